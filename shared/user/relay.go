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

// The relay has two queues, each ordered by a member of the user's document and its id:
// accounts with events that were not sent successfully yet, by the time of the oldest, and
// accounts with events that the sink refused, by the time of the next attempt.
const (
	fresh   = "undelivered"
	retries = "retryAt"
)

const (
	// refusedLimit bounds the refused events of a user. The oldest beyond it are dropped and
	// logged.
	refusedLimit = 50
	// failureLimit is the number of failed deliveries by the relay after which an event
	// counts as refused.
	failureLimit = 10
	// countLimit bounds the work of Waiting.
	countLimit = 1000
)

// The pause before a refused event is sent again: 1, 2, 4 … minutes, at most a day.
const firstPause, longestPause = time.Minute, 24 * time.Hour

// Refused is an event that the sink refused.
type Refused struct {
	event.Event `bson:",inline"`
	RetryAt     time.Time `bson:"retryAt"`
}

// refuse returns a refused event after one more attempt.
func refuse(e event.Event, tries int, now time.Time) Refused {
	e.Tries = tries
	pause := min(firstPause<<min(tries-1, 30), longestPause)
	return Refused{Event: e, RetryAt: now.Add(pause).UTC().Truncate(time.Millisecond)}
}

// A Position is a place in a queue: after an account, on the way from the oldest to the
// newest or back. The zero value is the oldest end. Time and id together are unique, so no
// account is passed over and none is returned twice.
type Position struct {
	at       time.Time
	id       bson.RawValue
	backward bool
}

// Newest returns the newest end of a queue.
func Newest() Position { return Position{backward: true} }

// filter matches what comes after the position, up to a time if that is not zero.
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

// order is the sort order of the way.
func (p Position) order(queue string) bson.D {
	way := 1
	if p.backward {
		way = -1
	}
	return bson.D{{Key: queue, Value: way}, {Key: "_id", Value: way}}
}

// Undelivered returns up to limit accounts with events that wait for the sink, in the order
// of the position, and the position after them; more is false at the end of the queue. A
// document that cannot be read is logged and passed over.
func (s *Store) Undelivered(ctx context.Context, after Position, limit int) (accounts []Account, next Position, more bool, err error) {
	return s.queue(ctx, fresh, after, time.Time{}, limit)
}

// DueForRetry returns accounts as Undelivered does: those with refused events whose pause
// is over.
func (s *Store) DueForRetry(ctx context.Context, after Position, now time.Time, limit int) (accounts []Account, next Position, more bool, err error) {
	return s.queue(ctx, retries, after, now, limit)
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
		next = next.past(cursor.Current, queue)
		var a Account
		if err := cursor.Decode(&a); err != nil {
			s.outbox.log.ErrorContext(ctx, "stored events cannot be read", "user", idText(cursor.Current), "error", err)
			continue
		}
		accounts = append(accounts, a)
	}
	return accounts, next, read == limit, mongodb.Translate("find undelivered events", cursor.Err())
}

// past returns the position after an account, on the same way.
func (p Position) past(document bson.Raw, queue string) Position {
	p.at, _ = document.Lookup(queue).TimeOK() // a filter by time matches nothing else
	p.id = document.Lookup("_id")
	p.id.Value = slices.Clone(p.id.Value) // the cursor uses its buffer again
	return p
}

// CountPending returns how many accounts have events that wait for the sink, and how many have
// refused events, each counted up to 1,000: the work is bounded however many wait.
func (s *Store) CountPending(ctx context.Context) (undelivered, refused int, err error) {
	if undelivered, err = s.count(ctx, fresh); err != nil {
		return 0, 0, err
	}
	refused, err = s.count(ctx, retries)
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

// Deliver sends the events of an account that Undelivered returned, removes those that were
// taken and sets aside those that were refused. It returns how many were taken, and whether
// the sink is away: one that refuses an event is not.
//
// Two relays may deliver the same account at the same time: both send, which at-least-once
// delivery allows, and each of their writes may be repeated without harm.
func (s *Store) Deliver(ctx context.Context, a Account) (sent int, away bool, err error) {
	users, err := s.users(ctx)
	if err != nil {
		return 0, false, err
	}
	waiting, now := inOrder(a.Events), s.outbox.now()
	result := s.outbox.send(ctx, waiting)
	if e := result.failed; e != nil && e.Tries+1 >= failureLimit {
		result.refused = append(result.refused, *e)
	} else if e != nil {
		s.noteFailure(ctx, users, a.ID, *e)
	}
	gone := slices.Concat(result.taken, result.refused)
	if len(gone) > 0 {
		if err := s.setAside(ctx, users, a, gone, result.refused, now); err != nil {
			return len(result.taken), result.failed != nil, err
		}
	}
	if len(gone) == len(waiting) {
		err = clearQueue(ctx, users, a.ID, "events", fresh)
	}
	return len(result.taken), result.failed != nil, err
}

// noteFailure counts a failed delivery of an event that is still there.
func (s *Store) noteFailure(ctx context.Context, users *mongo.Collection, id string, e event.Event) {
	_, err := users.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: id}, {Key: "events." + e.ID, Value: bson.D{{Key: "$exists", Value: true}}}},
		bson.D{{Key: "$inc", Value: bson.D{{Key: "events." + e.ID + ".tries", Value: 1}}}})
	if err != nil {
		s.outbox.log.WarnContext(ctx, "a failed delivery was not counted", "event", e.ID, "error", err)
	}
}

// setAside removes events from the queue and stores those of them that were refused for
// another attempt.
func (s *Store) setAside(ctx context.Context, users *mongo.Collection, a Account, gone, refused []event.Event, now time.Time) error {
	var unset, set bson.D
	for _, e := range gone {
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
			bson.E{Key: "$min", Value: bson.D{{Key: retries, Value: refuse(event.Event{}, 1, now).RetryAt}}})
	}
	_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: a.ID}}, change)
	return mongodb.Translate("set refused events aside", err)
}

// overLimit returns the ids of the oldest refused events over the limit.
func overLimit(refused map[string]Refused) []string {
	byAge := slices.SortedFunc(maps.Keys(refused), func(x, y string) int {
		return cmp.Or(refused[x].Time.Compare(refused[y].Time), cmp.Compare(x, y))
	})
	return byAge[:max(0, len(byAge)-refusedLimit)]
}

// Retry sends the refused events of an account that DueForRetry returned, those whose pause
// is over. It returns as Deliver does.
func (s *Store) Retry(ctx context.Context, a Account) (sent int, away bool, err error) {
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
	result := s.outbox.send(ctx, inOrder(due))
	notTaken := result.refused
	if result.failed != nil {
		notTaken = append(notTaken, *result.failed)
	}
	var set, unset bson.D
	for _, e := range result.taken {
		delete(a.Refused, e.ID)
		unset = append(unset, bson.E{Key: "refused." + e.ID, Value: ""})
	}
	for _, e := range notTaken {
		a.Refused[e.ID] = refuse(e, e.Tries+1, now)
		set = append(set, bson.E{Key: "refused." + e.ID, Value: a.Refused[e.ID]})
	}
	if len(a.Refused) > 0 {
		next := slices.MinFunc(slices.Collect(maps.Values(a.Refused)), func(x, y Refused) int { return x.RetryAt.Compare(y.RetryAt) })
		set = append(set, bson.E{Key: retries, Value: next.RetryAt})
	}
	if change := update(set, unset, nil, &events{}); len(change) > 0 {
		if _, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: a.ID}}, change); err != nil {
			return len(result.taken), result.failed != nil, mongodb.Translate("note another attempt", err)
		}
	}
	if len(a.Refused) == 0 {
		err = clearQueue(ctx, users, a.ID, "refused", retries)
	}
	return len(result.taken), result.failed != nil, err
}

// clearQueue removes an account from a queue, unless an event was added meanwhile.
func clearQueue(ctx context.Context, users *mongo.Collection, id, events, queue string) error {
	_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: events, Value: bson.D{}}},
		bson.D{{Key: "$unset", Value: bson.D{{Key: events, Value: ""}, {Key: queue, Value: ""}}}})
	return mongodb.Translate("clear the outbox", err)
}
