package user

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
)

// outboxLimit bounds the pending events of a user. A sign-in over the limit drops the oldest events
// and logs them. Users must be able to sign in even if a sink is down for a week.
//
// Other changes drop no events: theirs remain until the next sign-in. Such changes only end
// sessions, and the number of sessions is bounded.
const outboxLimit = 50

// sendTimeout bounds the delivery of one event. No client waits for the relay. A request has a
// shorter limit: see window.
const sendTimeout = 5 * time.Second

// resultTimeout bounds the writes of the relay after it has sent events. It leaves time for a
// second attempt on another connection.
const resultTimeout = 4 * time.Second

// An outbox writes events into documents, sends them, and removes the delivered ones.
type outbox struct {
	sink event.Sink // if nil, the outbox writes no events
	now  func() time.Time
	log  *slog.Logger
}

func newOutbox(c Config) *outbox {
	o := &outbox{sink: c.Sink, now: c.Now, log: c.Log}
	if o.now == nil {
		o.now = time.Now
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	return o
}

// events are the events of one change. The write of the change stores them. They are sent after
// the write.
type events struct {
	userID   string
	at       time.Time
	all      []event.Event
	disabled bool // the outbox has no sink
}

// events returns the events of a change of a user.
func (o *outbox) events(ctx context.Context, id string, kind *event.Type, all ...event.Data) *events {
	e := &events{userID: id, at: o.now(), disabled: o.sink == nil}
	e.add(ctx, kind, all...)
	return e
}

func (e *events) add(ctx context.Context, kind *event.Type, all ...event.Data) {
	if e.disabled {
		return
	}
	var trace string
	if t := telemetry.From(ctx); t.ID != "" {
		trace = t.Traceparent()
	}
	for _, data := range all {
		e.all = append(e.all, event.New(kind, e.at, trace, data))
	}
	// MongoDB adds the members of an update in the order of their names. The filter of
	// deliver compares the stored events in this order.
	slices.SortFunc(e.all, func(x, y event.Event) int { return cmp.Compare(x.ID, y.ID) })
}

// fields returns the members that an update sets.
func (e *events) fields() (set bson.D) {
	for _, v := range e.all {
		set = append(set, bson.E{Key: "events." + v.ID, Value: v})
	}
	return set
}

// since returns the part of an update that sets undelivered, unless it is already earlier.
func (e *events) since() bson.D {
	if len(e.all) == 0 {
		return nil
	}
	return bson.D{{Key: "$min", Value: bson.D{{Key: "undelivered", Value: e.at}}}}
}

// members returns the members of a new document with these events.
func (e *events) members() bson.D {
	if len(e.all) == 0 {
		return nil
	}
	return bson.D{{Key: "events", Value: e.document()}, {Key: "undelivered", Value: e.at}}
}

func (e *events) document() bson.D {
	d := bson.D{}
	for _, v := range e.all {
		d = append(d, bson.E{Key: v.ID, Value: v})
	}
	return d
}

// A window is the time in which a request may wait for the sink. It starts when the first event
// is sent and covers all events of the request.
type window struct {
	ctx     context.Context
	timeout time.Duration
	sending context.Context // nil before the first event
	cancel  context.CancelFunc
}

func (o *outbox) window(ctx context.Context) *window {
	w := &window{ctx: ctx}
	if o.sink != nil {
		w.timeout = o.sink.Timeout()
	}
	return w
}

func (w *window) begin() context.Context {
	if w.sending == nil {
		w.sending, w.cancel = context.WithTimeout(w.ctx, w.timeout)
	}
	return w.sending
}

func (w *window) close() {
	if w.cancel != nil {
		w.cancel()
	}
}

// deliver sends the events of a change before the response, in the window of its request. It
// returns the delivered ones. It returns no error, because the relay delivers the others.
func (o *outbox) deliver(ctx context.Context, w *window, users *mongo.Collection, e *events) (delivered []event.Event) {
	if len(e.all) == 0 || w.begin().Err() != nil {
		return nil
	}
	if delivered = o.send(w.begin(), e.all, time.Time{}).delivered; len(delivered) == 0 {
		return nil
	}
	if len(delivered) == len(e.all) {
		// Usually the document has no other events. Then one write removes both members.
		result, err := users.UpdateOne(ctx,
			bson.D{{Key: "_id", Value: e.userID}, {Key: "events", Value: e.document()}},
			bson.D{{Key: "$unset", Value: bson.D{{Key: "events", Value: ""}, {Key: "undelivered", Value: ""}}}})
		if err != nil || result.MatchedCount == 1 {
			o.logNotRemoved(ctx, err)
			return delivered
		}
	}
	o.logNotRemoved(ctx, removeEvents(ctx, users, e.userID, delivered))
	return delivered
}

// An outcome is the result of sending several events.
type outcome struct {
	delivered []event.Event
	refused   []event.Event
	failed    *event.Event // failed for another reason, such as a sink that is down; send stopped here
}

// send sends events, the oldest first. It continues after an event that the sink refuses. It stops
// at the first event that fails for another reason, which preserves the order.
//
// It also stops, without a failure, when the context ends. It sends no further event after the
// time until, unless that is zero.
func (o *outbox) send(ctx context.Context, all []event.Event, until time.Time) (result outcome) {
	inTime := slices.SortedFunc(slices.Values(all), func(x, y event.Event) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(rank(x.Type), rank(y.Type)), cmp.Compare(x.ID, y.ID))
	})
	for _, e := range inTime {
		if ctx.Err() != nil || !until.IsZero() && !o.now().Before(until) {
			return result
		}
		one, cancel := context.WithTimeout(ctx, sendTimeout)
		err := o.sink.Send(one, e)
		cancel()
		if err == nil {
			result.delivered = append(result.delivered, e)
			continue
		}
		o.log.WarnContext(ctx, "event not delivered", "event", e.ID, "type", e.Type, "error", err)
		if !errors.Is(err, event.ErrRefused) {
			if ctx.Err() == nil { // otherwise the sink had less time than sendTimeout
				result.failed = &e
			}
			return result
		}
		result.refused = append(result.refused, e)
	}
	return result
}

// rank orders events with the same time: the end of a session comes before the start of another.
func rank(kind string) int {
	return slices.Index([]string{event.SignedUp.Name, event.SignedOut.Name, event.SignedIn.Name}, kind)
}

// removeEvents removes events from a document.
func removeEvents(ctx context.Context, users *mongo.Collection, id string, all []event.Event) error {
	var unset bson.D
	for _, e := range all {
		unset = append(unset, bson.E{Key: "events." + e.ID, Value: ""})
	}
	_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$unset", Value: unset}})
	return mongodb.Translate("remove events", err)
}

// logNotRemoved logs that delivered events are still stored. The relay delivers them again.
func (o *outbox) logNotRemoved(ctx context.Context, err error) {
	if err != nil {
		o.log.WarnContext(ctx, "delivered events were not removed", "error", err)
	}
}

// trim drops the oldest events over the limit from an account after a sign-in. It does not count the
// events that were just delivered.
func (o *outbox) trim(ctx context.Context, users *mongo.Collection, a opened, delivered []event.Event) {
	for _, e := range delivered {
		delete(a.Events, e.ID)
	}
	if o.sink == nil || len(a.Events) <= outboxLimit {
		return
	}
	pending := inOrder(a.Events)
	dropped := pending[:len(pending)-outboxLimit]
	if err := removeEvents(ctx, users, a.ID, dropped); err != nil {
		o.log.WarnContext(ctx, "events over the limit were not removed", "error", err)
		return
	}
	for _, e := range dropped {
		o.log.ErrorContext(ctx, "event dropped: too many wait for the sink", "event", e.ID, "type", e.Type, "time", e.Time)
	}
}

// inOrder returns the events of a document, the oldest first.
func inOrder(events map[string]event.Event) (all []event.Event) {
	for id, e := range events {
		e.ID = id
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y event.Event) int { return cmp.Or(x.Time.Compare(y.Time), strings.Compare(x.ID, y.ID)) })
	return all
}
