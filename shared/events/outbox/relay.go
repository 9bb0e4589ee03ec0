package outbox

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/events/inprocess"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
)

// The relay has two queues of documents. Each queue is ordered by a member of the document, and
// then by the id.
const (
	undeliveredQueue = "undelivered" // documents with undelivered events, by the time of the oldest
	retryQueue       = "retryAt"     // documents with refused events, by the time of the next retry
)

const (
	// refusedLimit bounds the refused events of a document. The oldest over the limit are dropped
	// and logged.
	refusedLimit = 50
	// failureLimit is the number of failed deliveries by the relay after which an event counts
	// as refused.
	failureLimit = 10
	// countLimit bounds the work of countPending.
	countLimit = 1000
)

// The delay before the next retry of a refused event doubles: 1, 2, 4 … minutes, at most a day.
const minRetryDelay, maxRetryDelay = time.Minute, 24 * time.Hour

// Refused is an event that the sink has refused.
type Refused struct {
	Event   `bson:",inline"`
	RetryAt time.Time `bson:"retryAt"`
}

// refuse returns a refused event with the time of its next retry.
func refuse(e Event, tries int, now time.Time) Refused {
	e.Tries = tries
	delay := min(minRetryDelay<<min(tries-1, 11), maxRetryDelay)
	return Refused{Event: e, RetryAt: now.Add(delay).UTC().Truncate(time.Millisecond)}
}

// A pending document has undelivered or refused events.
type pending struct {
	ID       string `bson:"_id"`
	Document `bson:",inline"`
	refused  bson.RawValue // Refused as stored
}

// members is the projection of a pending document.
var members = bson.D{{Key: "events", Value: 1}, {Key: "undelivered", Value: 1}, {Key: "refused", Value: 1}, {Key: "retryAt", Value: 1}}

// A position is the position after a document in a queue, with the direction of iteration. The
// zero value starts at the oldest document. Time and id together are unique, so iteration omits and
// repeats no document.
type position struct {
	at       time.Time
	id       bson.RawValue
	backward bool
}

// newest returns the position that starts at the newest document and iterates backward.
func newest() position { return position{backward: true} }

// filter matches the documents after the position, up to a time unless that is zero.
func (p position) filter(queue string, until time.Time) bson.D {
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
func (p position) order(queue string) bson.D {
	direction := 1
	if p.backward {
		direction = -1
	}
	return bson.D{{Key: queue, Value: direction}, {Key: "_id", Value: direction}}
}

// undelivered returns up to limit documents with undelivered events, in the direction of the
// position, and the position after them. At the end of the queue, more is false. It logs and skips
// an unreadable document.
func (o *Outbox) undelivered(ctx context.Context, after position, limit int) (documents []pending, next position, more bool, err error) {
	return o.queue(ctx, undeliveredQueue, after, time.Time{}, limit)
}

// dueForRetry returns documents with refused events that are due for a retry. Its results are
// those of undelivered.
func (o *Outbox) dueForRetry(ctx context.Context, after position, now time.Time, limit int) (documents []pending, next position, more bool, err error) {
	return o.queue(ctx, retryQueue, after, now, limit)
}

func (o *Outbox) queue(ctx context.Context, queue string, after position, until time.Time, limit int) (documents []pending, next position, more bool, err error) {
	collection, err := o.Collection(ctx)
	if err != nil {
		return nil, after, false, err
	}
	cursor, err := collection.Find(ctx, after.filter(queue, until), options.Find().
		SetSort(after.order(queue)).SetLimit(int64(limit)).
		SetProjection(members))
	if err != nil {
		return nil, after, false, mongodb.Translate("find undelivered events", err)
	}
	defer cursor.Close(ctx)
	read := 0
	for next = after; cursor.Next(ctx); read++ {
		next = next.after(cursor.Current, queue)
		var d pending
		if err := cursor.Decode(&d); err != nil {
			o.Log.ErrorContext(ctx, "stored events cannot be read", "document", idText(cursor.Current), "error", err)
			continue
		}
		d.refused = cursor.Current.Lookup("refused")
		d.refused.Value = slices.Clone(d.refused.Value) // the cursor reuses its buffer
		documents = append(documents, d)
	}
	return documents, next, read == limit, mongodb.Translate("find undelivered events", cursor.Err())
}

// after returns the position after a document, in the same direction.
func (p position) after(document bson.Raw, queue string) position {
	p.at, _ = document.Lookup(queue).TimeOK() // the filter by time matches no other type
	p.id = document.Lookup("_id")
	p.id.Value = slices.Clone(p.id.Value) // the cursor reuses its buffer
	return p
}

// idText returns the id of a document for the log. The id may have any type.
func idText(document bson.Raw) string {
	id := document.Lookup("_id")
	if s, ok := id.StringValueOK(); ok {
		return s
	}
	return id.String()
}

// countPending returns the number of documents with undelivered events and of those with refused
// events. It counts each up to 1,000, so its work is bounded.
func (o *Outbox) countPending(ctx context.Context) (undelivered, refused int, err error) {
	if undelivered, err = o.count(ctx, undeliveredQueue); err != nil {
		return 0, 0, err
	}
	refused, err = o.count(ctx, retryQueue)
	return undelivered, refused, err
}

func (o *Outbox) count(ctx context.Context, queue string) (int, error) {
	collection, err := o.Collection(ctx)
	if err != nil {
		return 0, err
	}
	n, err := collection.CountDocuments(ctx, position{}.filter(queue, time.Time{}), options.Count().SetLimit(countLimit))
	return int(n), mongodb.Translate("count undelivered events", err)
}

// relay sends the events of a document that undelivered returned, except those after the cutoff and
// those that are in flight. It removes the delivered ones and moves the refused ones to
// the retry queue. It returns the number of delivered events, and whether the sink failed. A
// refused event is not a failure of the sink.
//
// After the time until, relay sends no further event. It stores the result even if the context has
// ended, because otherwise the next run would deliver the same events again.
//
// Two relays may deliver the same document at the same time. Then both send its events. At-least-once
// delivery allows that, and repeating their writes is harmless.
func (o *Outbox) relay(ctx context.Context, d pending, c cutoff, until time.Time) (sent int, failed bool, err error) {
	collection, err := o.Collection(ctx)
	if err == nil {
		d, err = o.settle(ctx, collection, d, c)
	}
	if err != nil {
		return 0, false, err
	}
	all, now := inOrder(d.Events), o.Now()
	result := o.send(ctx, d.ID, all, until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resultTimeout)
	defer cancel()
	if e := result.failed; e != nil && e.Tries+1 >= failureLimit {
		result.refused = append(result.refused, *e)
	} else if e != nil {
		o.countFailure(ctx, collection, d.ID, *e)
	}
	removed := slices.Concat(result.delivered, result.refused)
	if len(removed) > 0 {
		if err := o.moveToRefused(ctx, collection, d, removed, result.refused, now); err != nil {
			return len(result.delivered), result.failed != nil, err
		}
	}
	if len(removed) == len(all) {
		err = clearQueue(ctx, collection, d.ID, "events", undeliveredQueue)
	}
	return len(result.delivered), result.failed != nil, err
}

// A cutoff separates the events that a run of the relay sends from later ones.
type cutoff struct {
	start   time.Time       // of the run, or earlier
	settled <-chan struct{} // closed when no function sends an event from before the start
}

// settle returns a document with the events from before the start of the run. If a function may
// have been sending one of them at the start, settle waits for the end of that delivery, and reads
// the document again.
func (o *Outbox) settle(ctx context.Context, collection *mongo.Collection, d pending, c cutoff) (pending, error) {
	if last := d.dropAfter(c.start); !last.After(c.start.Add(-o.timeout())) {
		return d, nil
	}
	select {
	case <-c.settled:
	case <-ctx.Done():
		return d, ctx.Err()
	}
	d.Document = Document{}
	err := mongodb.Read(collection.FindOne(ctx, bson.D{{Key: "_id", Value: d.ID}}, options.FindOne().SetProjection(members)), &d)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return d, nil // the document was deleted with its events
	}
	d.dropAfter(c.start)
	return d, mongodb.Translate("read undelivered events", err)
}

// dropAfter removes the events after a time, and returns the time of the last one that remains.
func (d *pending) dropAfter(start time.Time) (last time.Time) {
	maps.DeleteFunc(d.Events, func(_ string, e Event) bool { return e.Time.After(start) })
	for _, e := range d.Events {
		if e.Time.After(last) {
			last = e.Time
		}
	}
	return last
}

// countFailure counts a failed delivery of an event, unless the event was removed meanwhile.
func (o *Outbox) countFailure(ctx context.Context, collection *mongo.Collection, id string, e entry) {
	_, err := collection.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: id}, {Key: "events." + e.id, Value: bson.D{{Key: "$exists", Value: true}}}},
		bson.D{{Key: "$inc", Value: bson.D{{Key: "events." + e.id + ".tries", Value: 1}}}})
	if err != nil {
		o.Log.WarnContext(ctx, "a failed delivery was not counted", "event", e.id, "error", err)
	}
}

// moveToRefused removes events from the queue and stores the refused ones of them for a retry.
func (o *Outbox) moveToRefused(ctx context.Context, collection *mongo.Collection, d pending, removed, refused []entry, now time.Time) error {
	var unset, set bson.D
	for _, e := range removed {
		unset = append(unset, bson.E{Key: "events." + e.id, Value: ""})
	}
	if d.Refused == nil {
		d.Refused = map[string]Refused{}
	}
	for _, e := range refused {
		d.Refused[e.id] = refuse(e.Event, 1, now)
		set = append(set, bson.E{Key: "refused." + e.id, Value: d.Refused[e.id]})
	}
	for _, id := range overLimit(d.Refused) {
		o.Log.ErrorContext(ctx, "event dropped: the sink refuses too many", "event", id, "type", d.Refused[id].Type, "created", d.Refused[id].Time)
		set = slices.DeleteFunc(set, func(e bson.E) bool { return e.Key == "refused."+id })
		unset = append(unset, bson.E{Key: "refused." + id, Value: ""})
	}
	change := bson.D{{Key: "$unset", Value: unset}}
	if len(set) > 0 {
		change = append(change, bson.E{Key: "$set", Value: set},
			bson.E{Key: "$min", Value: bson.D{{Key: retryQueue, Value: refuse(Event{}, 1, now).RetryAt}}})
	}
	_, err := collection.UpdateOne(ctx, bson.D{{Key: "_id", Value: d.ID}}, change)
	return mongodb.Translate("store refused events", err)
}

// overLimit returns the ids of the oldest refused events over the limit.
func overLimit(refused map[string]Refused) []string {
	byAge := slices.SortedFunc(maps.Keys(refused), func(x, y string) int {
		return cmp.Or(refused[x].Time.Compare(refused[y].Time), cmp.Compare(x, y))
	})
	return byAge[:max(0, len(byAge)-refusedLimit)]
}

// retry sends the due refused events of a document that dueForRetry returned. Its parameters and
// results are those of relay.
//
// If another relay has changed the refused events meanwhile, retry only removes the delivered ones.
// It does not change the time of the next retry, because it does not know the new events. The
// document then remains due.
func (o *Outbox) retry(ctx context.Context, d pending, until time.Time) (sent int, failed bool, err error) {
	collection, err := o.Collection(ctx)
	if err != nil {
		return 0, false, err
	}
	now := o.Now()
	due := map[string]Event{}
	for id, r := range d.Refused {
		if !r.RetryAt.After(now) {
			due[id] = r.Event
		}
	}
	result := o.send(ctx, d.ID, inOrder(due), until)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resultTimeout)
	defer cancel()
	undelivered := result.refused
	if result.failed != nil {
		undelivered = append(undelivered, *result.failed)
	}
	var set, unset bson.D
	for _, e := range result.delivered {
		delete(d.Refused, e.id)
		unset = append(unset, bson.E{Key: "refused." + e.id, Value: ""})
	}
	for _, e := range undelivered {
		d.Refused[e.id] = refuse(e.Event, e.Tries+1, now)
		set = append(set, bson.E{Key: "refused." + e.id, Value: d.Refused[e.id]})
	}
	if len(d.Refused) > 0 {
		next := slices.MinFunc(slices.Collect(maps.Values(d.Refused)), func(x, y Refused) int { return x.RetryAt.Compare(y.RetryAt) })
		set = append(set, bson.E{Key: retryQueue, Value: next.RetryAt})
	}
	if change := (&Events{}).Update(set, unset, nil); len(change) > 0 {
		written, err := collection.UpdateOne(ctx, bson.D{{Key: "_id", Value: d.ID}, {Key: "refused", Value: d.refused}}, change)
		if err == nil && written.MatchedCount == 0 && len(unset) > 0 {
			_, err = collection.UpdateOne(ctx, bson.D{{Key: "_id", Value: d.ID}}, bson.D{{Key: "$unset", Value: unset}})
		}
		if err != nil {
			return len(result.delivered), result.failed != nil, mongodb.Translate("store the next retry", err)
		}
	}
	if len(d.Refused) == 0 {
		err = clearQueue(ctx, collection, d.ID, "refused", retryQueue)
	}
	return len(result.delivered), result.failed != nil, err
}

// clearQueue removes a document from a queue, unless it has events again.
func clearQueue(ctx context.Context, collection *mongo.Collection, id, events, queue string) error {
	_, err := collection.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: events, Value: bson.D{}}},
		bson.D{{Key: "$unset", Value: bson.D{{Key: events, Value: ""}, {Key: queue, Value: ""}}}})
	return mongodb.Translate("clear the outbox", err)
}

// RelayBudget is the time limit of a receiver that calls Relay. It is below the 30 s after which
// Knative's sources give up.
const RelayBudget = 25 * time.Second

const (
	// batch is the number of documents that one query reads. Their events are at most a few
	// hundred kilobytes.
	batch = 20
	// maxFailures is the number of consecutive documents with failing events, from both ends of a
	// queue. After these the relay considers the sink down.
	maxFailures = 4
	// maxRunTime is the time after which a run sends no further event. The next run sends the
	// remaining events. The rest of RelayBudget is for the event that is in flight, at most 5 s,
	// and for the writes after it, at most 4 s.
	maxRunTime = 15 * time.Second
)

// Relay sends the oldest undelivered events first, then the refused events that are due for a
// retry. It stops when all are sent, the sink is down, or maxRunTime has passed. Two relays
// may run at the same time: an event that both send has the same id.
//
// Relay waits for the end of deliveries that are in flight, so that it does not send their events
// again. In a process that delivers its events itself it does not wait, because a request can
// wait for the run. It leaves events that may be in flight to the next run.
//
// Without a sink it does nothing.
func (o *Outbox) Relay(ctx context.Context) error {
	if o.Sink == nil {
		return nil
	}
	now := o.Now()
	until := now.Add(maxRunTime)
	start := now
	if _, local := o.Sink.(*inprocess.Sink); local {
		start = now.Add(-o.timeout())
	}
	settled, cancel := context.WithTimeout(ctx, o.timeout()-now.Sub(start))
	defer cancel()
	sent, err := o.run(until, func(after position) ([]pending, position, bool, error) {
		return o.undelivered(ctx, after, batch)
	}, func(d pending) (int, bool, error) { return o.relay(ctx, d, cutoff{start, settled.Done()}, until) })
	if err == nil {
		var retried int
		retried, err = o.run(until, func(after position) ([]pending, position, bool, error) {
			return o.dueForRetry(ctx, after, now, batch)
		}, func(d pending) (int, bool, error) { return o.retry(ctx, d, until) })
		sent += retried
	}
	undelivered, refused, countErr := o.countPending(ctx)
	if countErr == nil {
		o.Telemetry.Observe(ctx, telemetry.OutboxDepth, float64(undelivered), "undelivered")
		o.Telemetry.Observe(ctx, telemetry.OutboxDepth, float64(refused), "refused")
		o.observeAge(ctx)
	}
	o.Log.InfoContext(ctx, "relayed", "sent", sent, "waiting", undelivered, "refused", refused)
	return cmp.Or(err, countErr)
}

// observeAge records the age of the oldest undelivered event. It reads the database only if telemetry
// is on.
func (o *Outbox) observeAge(ctx context.Context) {
	if !o.Telemetry.On() {
		return
	}
	oldest, next, _, err := o.undelivered(ctx, position{}, 1)
	if err != nil {
		return // countPending has just read the same index
	}
	age := time.Duration(0)
	if len(oldest) > 0 {
		age = max(0, o.Now().Sub(next.at))
	}
	o.Telemetry.Observe(ctx, telemetry.OutboxAge, age.Seconds(), "")
}

// run delivers the events of the documents in a queue and returns the number of events sent. It begins at
// the oldest end and changes to the other end after each document that fails.
//
// A sink may fail on the events of some documents only. These collect at the oldest end, but
// not at the newest. So they do not delay the others, even if each attempt ends by a timeout.
// If the sink is down, a run costs few requests.
func (o *Outbox) run(until time.Time,
	page func(position) (documents []pending, next position, more bool, err error),
	deliver func(pending) (sent int, failed bool, err error),
) (sent int, err error) {
	type end struct {
		next      position
		documents []pending
		last      bool // there is no further page
	}
	ends := [2]end{{}, {next: newest()}}
	tried := map[string]bool{}
	for current, failures := 0, 0; failures < maxFailures && o.Now().Before(until); {
		e := &ends[current]
		if len(e.documents) == 0 {
			if e.last { // all documents of the queue were tried
				return sent, nil
			}
			var more bool
			if e.documents, e.next, more, err = page(e.next); err != nil {
				return sent, err
			}
			e.last = !more
			continue
		}
		a := e.documents[0]
		e.documents = e.documents[1:]
		if tried[a.ID] {
			continue
		}
		tried[a.ID] = true
		n, failed, err := deliver(a)
		sent += n
		if err != nil {
			return sent, err
		}
		if n > 0 || !failed {
			failures = 0
			continue
		}
		failures++
		current = 1 - current
	}
	return sent, nil
}
