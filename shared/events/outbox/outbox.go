// Package outbox stores events in the documents of a store, and delivers them (the
// transactional outbox pattern).
//
// The write that changes a document also stores its events there, so either both exist or
// neither does. Then the outbox sends the events, and their acknowledgment removes them from the
// document. A relay delivers the events that remain. So each event arrives at least once,
// always with the same ID, and a consumer can drop duplicates by ID.
//
// A store adds an outbox to the documents of one collection:
//
//   - The document has the members of Document, and a string _id.
//   - The collection has the indexes of Indexes.
//   - A change creates its Events, and combines them with its own update by Events.Update or, for
//     an insert, Events.Members. After the write it calls Deliver.
//   - A change that a client can repeat calls Trim, so that the document stays small.
//   - A function calls Relay at an interval.
package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/inprocess"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
)

// limit bounds the pending events of a document. Trim drops the oldest events over the limit and
// logs them. A store must work even if a sink is down for a week.
const limit = 50

// deliveryTimeout bounds the delivery of one event to a broker: see Outbox.timeout.
const deliveryTimeout = 5 * time.Second

// orderTimeout bounds how long a delivery waits for the previous delivery of the same document. A
// slower sink receives the events of a document at the same time.
const orderTimeout = 300 * time.Millisecond

// resultTimeout bounds the writes of the relay after it has sent events. It leaves time for a
// second attempt on another connection.
const resultTimeout = 4 * time.Second

// A Document has the members of an outbox. The document of a store embeds it inline.
type Document struct {
	Events      map[string]Event   `bson:"events"`
	Undelivered time.Time          `bson:"undelivered"` // the time of the oldest of Events, or earlier
	Refused     map[string]Refused `bson:"refused"`     // the events that the sink has refused
	RetryAt     time.Time          `bson:"retryAt"`     // the time of the next retry of a refused event
}

// An Event is an event in a document, in the map of its ids.
type Event struct {
	Type  string    `bson:"type"`
	Time  time.Time `bson:"time"`            // whole milliseconds
	Trace string    `bson:"trace,omitempty"` // traceparent of the request that caused it
	Data  bson.D    `bson:"data"`            // the values of JSON
	Tries int       `bson:"tries,omitempty"` // failed deliveries by the relay
}

// Indexes returns the indexes of a collection with an outbox.
func Indexes() []endpoint.Index {
	return []endpoint.Index{
		{Keys: []string{undeliveredQueue, "_id"}, Partial: true},
		{Keys: []string{retryQueue, "_id"}, Partial: true},
	}
}

// A Config is the configuration of an Outbox.
type Config struct {
	Types      []*event.Type // of all events, in the order of events with the same time
	Expendable []*event.Type // dropped before others if too many events wait for the sink
	Collection func(context.Context) (*mongo.Collection, error)
	Sink       event.Sink // if nil, the outbox writes no events
	Now        func() time.Time
	Log        *slog.Logger
	Telemetry  *telemetry.Telemetry
}

// An Outbox writes events into the documents of a collection, sends them, and removes the
// delivered ones. It is safe for concurrent use.
type Outbox struct {
	Config

	orderTimeout time.Duration

	mu   sync.Mutex
	last map[string]chan struct{} // by the id of a document: closed after its last delivery
}

// New returns an outbox with the configuration.
func New(c Config) *Outbox {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Outbox{Config: c, orderTimeout: orderTimeout, last: map[string]chan struct{}{}}
}

// timeout returns the time limit for the delivery of one event. It also bounds the delivery of the
// events of a change after the response, from the time of the change. So the relay knows that an
// older event is not in flight. A request that waits for the sink has a shorter limit: see Window.
//
// A receiver in the process may need longer than a broker.
func (o *Outbox) timeout() time.Duration {
	if local, is := o.Sink.(*inprocess.Sink); is {
		return max(local.Budget(), deliveryTimeout)
	}
	return deliveryTimeout
}

// Events are the events of one change of a document. The write of the change stores them. They
// are sent after the write.
type Events struct {
	id    string // of the document
	at    time.Time
	trace string // traceparent of the request, or ""
	takes func(*event.Type) bool
	all   []entry

	displaced []entry // the stored events that the change removes
}

// An entry is a stored event with its id.
type entry struct {
	id string
	Event
}

// Events returns the events of a change of the document with the id. Each payload is a value of the
// type's Data. Without a sink that takes the type there are no events.
func (o *Outbox) Events(ctx context.Context, id string, t *event.Type, payloads ...any) *Events {
	e := &Events{id: id, at: o.Now(), trace: telemetry.Traceparent(ctx), takes: func(t *event.Type) bool { return o.Sink != nil && o.Sink.Takes(t) }}
	e.Add(t, payloads...)
	return e
}

// Add adds events of a type.
func (e *Events) Add(t *event.Type, payloads ...any) {
	for _, payload := range payloads {
		if reflect.TypeOf(payload) != t.Data {
			panic(fmt.Sprintf("outbox: the payload of %s is a %v, not a %T", t.Name, t.Data, payload)) // a programming error
		}
		if e.takes(t) {
			e.all = append(e.all, entry{event.NewID(), Event{Type: t.Name, Time: e.at.UTC().Truncate(time.Millisecond), Trace: e.trace, Data: encode(payload)}})
		}
	}
	// MongoDB adds the members of an update in the order of their names. The filter of
	// Deliver compares the stored events in this order.
	slices.SortFunc(e.all, func(x, y entry) int { return cmp.Compare(x.id, y.id) })
}

// encode returns a payload as it is stored: its JSON, as BSON.
func encode(payload any) (d bson.D) {
	document, err := json.Marshal(payload, json.Deterministic(true))
	if err == nil {
		err = bson.UnmarshalExtJSON(document, false, &d)
	}
	if err != nil {
		panic(fmt.Sprintf("outbox: %T is not a payload: %v", payload, err)) // a programming error
	}
	return d
}

// decode returns the JSON of a stored payload.
func decode(d bson.D) (jsontext.Value, error) { return bson.MarshalExtJSON(d, false, false) }

// fields returns the members that an update sets.
func (e *Events) fields() (set bson.D) {
	for _, v := range e.all {
		set = append(set, bson.E{Key: "events." + v.id, Value: v.Event})
	}
	return set
}

// Update combines the parts of an update with the events. It omits empty parts, because MongoDB
// rejects them.
func (e *Events) Update(set, unset, more bson.D) bson.D {
	u := more
	if set = append(set, e.fields()...); set != nil {
		u = append(u, bson.E{Key: "$set", Value: set})
	}
	if unset != nil {
		u = append(u, bson.E{Key: "$unset", Value: unset})
	}
	if len(e.all) > 0 { // unless it is already earlier
		u = append(u, bson.E{Key: "$min", Value: bson.D{{Key: undeliveredQueue, Value: e.at}}})
	}
	return u
}

// Members returns the members of a new document with these events.
func (e *Events) Members() bson.D {
	if len(e.all) == 0 {
		return nil
	}
	return bson.D{{Key: "events", Value: e.document()}, {Key: undeliveredQueue, Value: e.at}}
}

// With returns the members of a document that replaces d: these events and those of d that are not
// delivered. It omits the refused events.
func (e *Events) With(d Document) bson.D {
	all := Events{at: e.at, all: slices.Clone(e.all)}
	for id, stored := range d.Events {
		all.all = append(all.all, entry{id, stored})
		if stored.Time.Before(all.at) {
			all.at = stored.Time
		}
	}
	slices.SortFunc(all.all, func(x, y entry) int { return cmp.Compare(x.id, y.id) })
	return all.Members()
}

func (e *Events) document() bson.D {
	d := bson.D{}
	for _, v := range e.all {
		d = append(d, bson.E{Key: v.id, Value: v.Event})
	}
	return d
}

// A Window is the time in which a request may wait for the sink, where a delivery must precede the
// response. It starts when the first event is sent and covers all events of the request.
type Window struct{ end time.Time } // zero before the first event

// limit returns a context that ends with the window.
func (w *Window) limit(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if w.end.IsZero() {
		w.end = time.Now().Add(timeout)
	}
	return context.WithDeadline(ctx, w.end)
}

// Deliver sends the events of a change. It starts after the response to the request of ctx, or
// sends them in the window of the request if the platform may freeze the process after the
// response. It returns the ids of the events that are delivered or in flight. It returns no error,
// because the relay delivers the others.
//
// The process sends the events of a document in the order of the calls, unless the sink takes
// longer than orderTimeout to answer.
func (o *Outbox) Deliver(ctx context.Context, w *Window, e *Events) (sent []string) {
	o.logDropped(ctx, e.displaced)
	if len(e.all) == 0 {
		return nil
	}
	later := endpoint.LaterFrom(ctx)
	if later == nil {
		sending, cancel := w.limit(ctx, o.Sink.Timeout())
		defer cancel()
		return o.deliver(ctx, sending, e)
	}
	if !o.start(context.WithoutCancel(ctx), later, e) {
		for _, v := range e.all {
			o.Log.WarnContext(ctx, "event left to the relay", "event", v.id, "type", v.Type, "error", "too many deliveries are in flight")
		}
		return nil
	}
	return ids(e.all)
}

// start starts the delivery of the events of a change. It returns false if the process runs too
// many deliveries.
func (o *Outbox) start(ctx context.Context, later endpoint.Later, e *Events) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	previous, done := o.last[e.id], make(chan struct{})
	if !later(func() {
		defer func() { // also after a panic
			o.mu.Lock()
			defer o.mu.Unlock()
			close(done)
			if o.last[e.id] == done {
				delete(o.last, e.id)
			}
		}()
		o.deliverAfter(ctx, previous, e)
	}) {
		return false
	}
	o.last[e.id] = done
	return true
}

// deliverAfter sends the events of a change after the previous delivery, if there is one. It ends
// o.timeout after the change.
func (o *Outbox) deliverAfter(ctx context.Context, previous <-chan struct{}, e *Events) {
	if previous != nil {
		select {
		case <-previous:
		case <-time.After(o.orderTimeout):
		}
	}
	remaining := o.timeout() - o.Now().Sub(e.at)
	sending, cancel := context.WithTimeout(ctx, remaining)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, remaining+resultTimeout)
	defer cancel()
	o.deliver(ctx, sending, e)
}

// deliver sends events until the context sending ends, and removes the delivered ones. It returns
// their ids.
func (o *Outbox) deliver(ctx, sending context.Context, e *Events) (delivered []string) {
	collection, err := o.Collection(ctx)
	if err != nil {
		return nil
	}
	sent := o.send(sending, e.id, e.all, time.Time{}).delivered
	if len(sent) == 0 {
		return nil
	}
	delivered = ids(sent)
	if len(sent) == len(e.all) {
		// Usually the document has no other events. Then one write removes both members.
		result, err := collection.UpdateOne(ctx,
			bson.D{{Key: "_id", Value: e.id}, {Key: "events", Value: e.document()}},
			bson.D{{Key: "$unset", Value: bson.D{{Key: "events", Value: ""}, {Key: undeliveredQueue, Value: ""}}}})
		if err != nil || result.MatchedCount == 1 {
			o.logNotRemoved(ctx, err)
			return delivered
		}
	}
	o.logNotRemoved(ctx, remove(ctx, collection, e.id, delivered))
	return delivered
}

func ids(all []entry) (ids []string) {
	for _, e := range all {
		ids = append(ids, e.id)
	}
	return ids
}

// An outcome is the result of sending several events.
type outcome struct {
	delivered []entry
	refused   []entry
	failed    *entry // failed for another reason, such as a sink that is down; send stopped here
}

// send sends events, the oldest first. It continues after an event that the sink refuses. It stops
// at the first event that fails for another reason, which preserves the order.
//
// It also stops, without a failure, when the context ends. It sends no further event after the
// time until, unless that is zero.
func (o *Outbox) send(ctx context.Context, id string, all []entry, until time.Time) (result outcome) {
	inTime := slices.SortedFunc(slices.Values(all), func(x, y entry) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(o.rank(x.Type), o.rank(y.Type)), cmp.Compare(x.id, y.id))
	})
	for _, e := range inTime {
		if ctx.Err() != nil || !until.IsZero() && !o.Now().Before(until) {
			return result
		}
		ctx, span := o.Telemetry.Continue(ctx, e.Trace, "send "+e.Type, trace.SpanKindProducer, telemetry.Messaging("send", e.Type)...)
		data, err := decode(e.Data)
		if err == nil {
			one, cancel := context.WithTimeout(ctx, o.timeout())
			err = o.Sink.Send(one, event.Event{ID: e.id, Type: e.Type, Source: o.source(e.Type), Subject: id, Time: e.Time, Trace: e.Trace, Data: data})
			cancel()
		}
		telemetry.End(span, err != nil)
		if err == nil {
			o.Telemetry.Count(ctx, telemetry.EventsSent, e.Type)
			result.delivered = append(result.delivered, e)
			continue
		}
		o.Log.WarnContext(ctx, "event not delivered", "event", e.id, "type", e.Type, "error", err)
		if !errors.Is(err, event.ErrRefused) {
			if ctx.Err() == nil { // otherwise the sink had less time than o.timeout
				result.failed = &e
			}
			return result
		}
		result.refused = append(result.refused, e)
	}
	return result
}

// rank orders events with the same time.
func (o *Outbox) rank(name string) int {
	return slices.IndexFunc(o.Types, func(t *event.Type) bool { return t.Name == name })
}

// source returns the source of a type. The types of a collection have one source, so this is also
// the source of a type that only an earlier version had.
func (o *Outbox) source(name string) string { return o.Types[max(o.rank(name), 0)].Source }

// remove removes events from a document.
func remove(ctx context.Context, collection *mongo.Collection, id string, events []string) error {
	var unset bson.D
	for _, e := range events {
		unset = append(unset, bson.E{Key: "events." + e, Value: ""})
	}
	_, err := collection.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$unset", Value: unset}})
	return mongodb.Translate("remove events", err)
}

// logNotRemoved logs that delivered events are still stored. The relay delivers them again.
func (o *Outbox) logNotRemoved(ctx context.Context, err error) {
	if err != nil {
		o.Log.WarnContext(ctx, "delivered events were not removed", "error", err)
	}
}

// Trim drops the oldest events over the limit from a document, given as it was stored by the last
// change. It does not count the events that Deliver has sent. It does not count unreadable events;
// the relay logs these.
func (o *Outbox) Trim(ctx context.Context, id string, document bson.Raw, sent []string) {
	if o.Sink == nil {
		return
	}
	embedded, _ := document.Lookup("events").DocumentOK()
	elements, _ := embedded.Elements()
	pending := map[string]Event{}
	for _, e := range elements {
		var stored Event
		if e.Value().Unmarshal(&stored) == nil && !slices.Contains(sent, e.Key()) {
			pending[e.Key()] = stored
		}
	}
	if len(pending) <= limit {
		return
	}
	ranked := o.ranked(pending)
	dropped := ranked[:len(ranked)-limit]
	collection, err := o.Collection(ctx)
	if err == nil {
		err = remove(ctx, collection, id, ids(dropped))
	}
	if err != nil {
		o.Log.WarnContext(ctx, "events over the limit were not removed", "error", err)
		return
	}
	o.logDropped(ctx, dropped)
}

// ranked returns events in the order in which they are dropped: those of the Expendable types first, and
// the oldest first.
func (o *Outbox) ranked(pending map[string]Event) []entry {
	all := inOrder(pending)
	slices.SortStableFunc(all, func(x, y entry) int { return cmp.Compare(o.keeps(x.Type), o.keeps(y.Type)) })
	return all
}

// keeps returns 0 for an expendable type and 1 for others.
func (o *Outbox) keeps(name string) int {
	if slices.ContainsFunc(o.Expendable, func(t *event.Type) bool { return t.Name == name }) {
		return 0
	}
	return 1
}

func (o *Outbox) logDropped(ctx context.Context, dropped []entry) {
	for _, e := range dropped {
		o.Log.ErrorContext(ctx, "event dropped: too many wait for the sink", "event", e.id, "type", e.Type, "created", e.Time)
	}
}

// Displace returns the paths of the stored events that a change with these events must remove, so that the
// document keeps to the limit. An expendable event displaces only expendable ones, so the document can
// exceed the limit by the expendable events of one change. Deliver logs the removed
// events. A change that has read the document uses Displace in place of Trim.
func (o *Outbox) Displace(stored Document, e *Events) (unset bson.D) {
	room, important := limit-len(e.all), limit // for events of any type, and for those that are not expendable
	for _, v := range e.all {
		important -= o.keeps(v.Type)
	}
	for _, v := range slices.Backward(o.ranked(stored.Events)) {
		if room > 0 || important > 0 && o.keeps(v.Type) > 0 {
			room, important = room-1, important-1
			continue
		}
		e.displaced = append(e.displaced, v)
		unset = append(unset, bson.E{Key: "events." + v.id, Value: ""})
	}
	return unset
}

// inOrder returns the events of a document, the oldest first.
func inOrder(events map[string]Event) (all []entry) {
	for id, e := range events {
		all = append(all, entry{id, e})
	}
	slices.SortFunc(all, func(x, y entry) int { return cmp.Or(x.Time.Compare(y.Time), strings.Compare(x.id, y.id)) })
	return all
}
