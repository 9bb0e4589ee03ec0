package user

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
)

// The relay has two queues of accounts. Each queue is ordered by a member of the user's document,
// and then by the id.
const (
	undeliveredQueue = "undelivered" // accounts with undelivered events, by the time of the oldest
	retryQueue       = "retryAt"     // accounts with refused events, by the time of the next retry
)

const (
	// refusedLimit bounds the refused events of a user. The oldest over the limit are dropped
	// and logged.
	refusedLimit = 50
	// failureLimit is the number of failed deliveries by the relay after which an event counts
	// as refused.
	failureLimit = 10
	// countLimit bounds the work of CountPending.
	countLimit = 1000
)

// The delay before the next retry of a refused event doubles: 1, 2, 4 … minutes, at most a day.
const minRetryDelay, maxRetryDelay = time.Minute, 24 * time.Hour

// Refused is an event that the sink has refused.
type Refused struct {
	event.Event `bson:",inline"`
	RetryAt     time.Time `bson:"retryAt"`
}

// refuse returns a refused event with the time of its next retry.
func refuse(e event.Event, tries int, now time.Time) Refused {
	e.Tries = tries
	delay := min(minRetryDelay<<min(tries-1, 30), maxRetryDelay)
	return Refused{Event: e, RetryAt: now.Add(delay).UTC().Truncate(time.Millisecond)}
}

// A Position is the position after an account in a queue, with the direction of iteration. The
// zero value starts at the oldest account. Time and id together are unique, so iteration omits and
// repeats no account.
type Position struct {
	at       time.Time
	id       bson.RawValue
	backward bool
}

// Newest returns the position that starts at the newest account and iterates backward.
func Newest() Position { return Position{backward: true} }

// filter matches the accounts after the position, up to a time unless that is zero.
func (p Position) filter(queue string, until time.Time) bson.D {
	times := bson.D{{Key: "$gt", Value: time.Time{}}}
	if !until.IsZero() {
		times = append(times, bson.E{Key: "$lte", Value: until})
	}
	if p.id.IsZero() {
		return bson.D{{Key: queue, Value: times}}
	}
	after := "$gt"
	if p.backward {
		after = "$lt"
	}
	times[0] = bson.E{Key: after, Value: p.at}
	return bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: queue, Value: times}},
		bson.D{{Key: queue, Value: p.at}, {Key: "_id", Value: bson.D{{Key: after, Value: p.id}}}},
	}}}
}

// order returns the sort order of the direction.
func (p Position) order(queue string) bson.D {
	direction := 1
	if p.backward {
		direction = -1
	}
	return bson.D{{Key: queue, Value: direction}, {Key: "_id", Value: direction}}
}

// Undelivered returns up to limit accounts with undelivered events, in the direction of the
// position, and the position after them. At the end of the queue, more is false. It logs and skips
// an unreadable document.
func (s *Store) Undelivered(ctx context.Context, after Position, limit int) (accounts []Account, next Position, more bool, err error) {
	return s.queue(ctx, undeliveredQueue, after, time.Time{}, limit)
}

// DueForRetry returns accounts with refused events that are due for a retry. Its results are those
// of Undelivered.
func (s *Store) DueForRetry(ctx context.Context, after Position, now time.Time, limit int) (accounts []Account, next Position, more bool, err error) {
	return s.queue(ctx, retryQueue, after, now, limit)
}

func (s *Store) queue(ctx context.Context, queue string, after Position, until time.Time, limit int) (accounts []Account, next Position, more bool, err error) {
	users, err := s.users(ctx)
	if err != nil {
		return nil, after, false, err
	}
	cursor, err := users.Find(ctx, after.filter(queue, until), options.Find().
		SetSort(after.order(queue)).SetLimit(int64(limit)).
		SetProjection(bson.D{{Key: "events", Value: 1}, {Key: "undelivered", Value: 1}, {Key: "refused", Value: 1}, {Key: "retryAt", Value: 1}}))
	if err != nil {
		return nil, after, false, mongodb.Translate("find undelivered events", err)
	}
	defer cursor.Close(ctx)
	read := 0
	for next = after; cursor.Next(ctx); read++ {
		next = next.after(cursor.Current, queue)
		var a Account
		if err := cursor.Decode(&a); err != nil {
			s.outbox.log.ErrorContext(ctx, "stored events cannot be read", "user", idText(cursor.Current), "error", err)
			continue
		}
		a.refused = cursor.Current.Lookup("refused")
		a.refused.Value = slices.Clone(a.refused.Value) // the cursor reuses its buffer
		accounts = append(accounts, a)
	}
	return accounts, next, read == limit, mongodb.Translate("find undelivered events", cursor.Err())
}

// after returns the position after an account, in the same direction.
func (p Position) after(document bson.Raw, queue string) Position {
	p.at, _ = document.Lookup(queue).TimeOK() // the filter by time matches no other type
	p.id = document.Lookup("_id")
	p.id.Value = slices.Clone(p.id.Value) // the cursor reuses its buffer
	return p
}

// CountPending returns the number of accounts with undelivered events and of those with refused
// events. It counts each up to 1,000, so its work is bounded.
func (s *Store) CountPending(ctx context.Context) (undelivered, refused int, err error) {
	if undelivered, err = s.count(ctx, undeliveredQueue); err != nil {
		return 0, 0, err
	}
	refused, err = s.count(ctx, retryQueue)
	return undelivered, refused, err
}

func (s *Store) count(ctx context.Context, queue string) (int, error) {
	users, err := s.users(ctx)
	if err != nil {
		return 0, err
	}
	n, err := users.CountDocuments(ctx, Position{}.filter(queue, time.Time{}), options.Count().SetLimit(countLimit))
	return int(n), mongodb.Translate("count undelivered events", err)
}

// Deliver sends the events of an account that Undelivered returned. It removes the delivered ones
// and moves the refused ones to the retry queue. It returns the number of delivered events, and
// whether the sink failed. A refused event is not a failure of the sink.
//
// After the time until, Deliver sends no further event. It stores the result even if the context has
// ended, because otherwise the next run would deliver the same events again.
//
// Two relays may deliver the same account at the same time. Then both send its events. At-least-once
// delivery allows that, and repeating their writes is harmless.
func (s *Store) Deliver(ctx context.Context, a Account, until time.Time) (sent int, failed bool, err error) {
	users, err := s.users(ctx)
	if err != nil {
		return 0, false, err
	}
	pending, now := inOrder(a.Events), s.outbox.now()
	result := s.outbox.send(ctx, pending, until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resultTimeout)
	defer cancel()
	if e := result.failed; e != nil && e.Tries+1 >= failureLimit {
		result.refused = append(result.refused, *e)
	} else if e != nil {
		s.countFailure(ctx, users, a.ID, *e)
	}
	removed := slices.Concat(result.delivered, result.refused)
	if len(removed) > 0 {
		if err := s.moveToRefused(ctx, users, a, removed, result.refused, now); err != nil {
			return len(result.delivered), result.failed != nil, err
		}
	}
	if len(removed) == len(pending) {
		err = clearQueue(ctx, users, a.ID, "events", undeliveredQueue)
	}
	return len(result.delivered), result.failed != nil, err
}

// countFailure counts a failed delivery of an event, unless the event was removed meanwhile.
func (s *Store) countFailure(ctx context.Context, users *mongo.Collection, id string, e event.Event) {
	_, err := users.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: id}, {Key: "events." + e.ID, Value: bson.D{{Key: "$exists", Value: true}}}},
		bson.D{{Key: "$inc", Value: bson.D{{Key: "events." + e.ID + ".tries", Value: 1}}}})
	if err != nil {
		s.outbox.log.WarnContext(ctx, "a failed delivery was not counted", "event", e.ID, "error", err)
	}
}

// moveToRefused removes events from the queue and stores the refused ones of them for a retry.
func (s *Store) moveToRefused(ctx context.Context, users *mongo.Collection, a Account, removed, refused []event.Event, now time.Time) error {
	var unset, set bson.D
	for _, e := range removed {
		unset = append(unset, bson.E{Key: "events." + e.ID, Value: ""})
	}
	if a.Refused == nil {
		a.Refused = map[string]Refused{}
	}
	for _, e := range refused {
		a.Refused[e.ID] = refuse(e, 1, now)
		set = append(set, bson.E{Key: "refused." + e.ID, Value: a.Refused[e.ID]})
	}
	for _, id := range overLimit(a.Refused) {
		s.outbox.log.ErrorContext(ctx, "event dropped: the sink refuses too many", "event", id, "type", a.Refused[id].Type, "time", a.Refused[id].Time)
		set = slices.DeleteFunc(set, func(e bson.E) bool { return e.Key == "refused."+id })
		unset = append(unset, bson.E{Key: "refused." + id, Value: ""})
	}
	change := bson.D{{Key: "$unset", Value: unset}}
	if len(set) > 0 {
		change = append(change, bson.E{Key: "$set", Value: set},
			bson.E{Key: "$min", Value: bson.D{{Key: retryQueue, Value: refuse(event.Event{}, 1, now).RetryAt}}})
	}
	_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: a.ID}}, change)
	return mongodb.Translate("store refused events", err)
}

// overLimit returns the ids of the oldest refused events over the limit.
func overLimit(refused map[string]Refused) []string {
	byAge := slices.SortedFunc(maps.Keys(refused), func(x, y string) int {
		return cmp.Or(refused[x].Time.Compare(refused[y].Time), cmp.Compare(x, y))
	})
	return byAge[:max(0, len(byAge)-refusedLimit)]
}

// Retry sends the due refused events of an account that DueForRetry returned. Its parameters and
// results are those of Deliver.
//
// If another relay has changed the refused events meanwhile, Retry only removes the delivered ones.
// It does not change the time of the next retry, because it does not know the new events. The
// account then remains due.
func (s *Store) Retry(ctx context.Context, a Account, until time.Time) (sent int, failed bool, err error) {
	users, err := s.users(ctx)
	if err != nil {
		return 0, false, err
	}
	now := s.outbox.now()
	due := map[string]event.Event{}
	for id, r := range a.Refused {
		if !r.RetryAt.After(now) {
			due[id] = r.Event
		}
	}
	result := s.outbox.send(ctx, inOrder(due), until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resultTimeout)
	defer cancel()
	undelivered := result.refused
	if result.failed != nil {
		undelivered = append(undelivered, *result.failed)
	}
	var set, unset bson.D
	for _, e := range result.delivered {
		delete(a.Refused, e.ID)
		unset = append(unset, bson.E{Key: "refused." + e.ID, Value: ""})
	}
	for _, e := range undelivered {
		a.Refused[e.ID] = refuse(e, e.Tries+1, now)
		set = append(set, bson.E{Key: "refused." + e.ID, Value: a.Refused[e.ID]})
	}
	if len(a.Refused) > 0 {
		next := slices.MinFunc(slices.Collect(maps.Values(a.Refused)), func(x, y Refused) int { return x.RetryAt.Compare(y.RetryAt) })
		set = append(set, bson.E{Key: retryQueue, Value: next.RetryAt})
	}
	if change := update(set, unset, nil, &events{}); len(change) > 0 {
		written, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: a.ID}, {Key: "refused", Value: a.refused}}, change)
		if err == nil && written.MatchedCount == 0 && len(unset) > 0 {
			_, err = users.UpdateOne(ctx, bson.D{{Key: "_id", Value: a.ID}}, bson.D{{Key: "$unset", Value: unset}})
		}
		if err != nil {
			return len(result.delivered), result.failed != nil, mongodb.Translate("store the next retry", err)
		}
	}
	if len(a.Refused) == 0 {
		err = clearQueue(ctx, users, a.ID, "refused", retryQueue)
	}
	return len(result.delivered), result.failed != nil, err
}

// clearQueue removes an account from a queue, unless it has events again.
func clearQueue(ctx context.Context, users *mongo.Collection, id, events, queue string) error {
	_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: events, Value: bson.D{}}},
		bson.D{{Key: "$unset", Value: bson.D{{Key: events, Value: ""}, {Key: queue, Value: ""}}}})
	return mongodb.Translate("clear the outbox", err)
}
