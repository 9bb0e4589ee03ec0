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

// outboxLimit bounds the events of a user that wait for the sink. A sign-in that leaves more
// drops the oldest events and logs them: users must be able to sign in while a sink is down
// for a week. The events of other changes stay until the next sign-in. They end sessions,
// whose number is bounded.
const outboxLimit = 50

// sendTimeout bounds the delivery of one event. No client waits for the relay. A request has
// a shorter limit of its own: see window.
const sendTimeout = 5 * time.Second

// An outbox writes events into documents, sends them, and forgets those that were
// taken.
type outbox struct {
	sink event.Sink // nil: nothing is written
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

// events are those of one change: what is written with it, and sent after it.
type events struct {
	of   string // the user's id
	at   time.Time
	all  []event.Event
	mute bool // there is no sink
}

// events begins the events of a change of a user.
func (o *outbox) events(ctx context.Context, id, kind string, told ...event.Data) *events {
	e := &events{of: id, at: o.now(), mute: o.sink == nil}
	e.add(ctx, kind, told...)
	return e
}

func (e *events) add(ctx context.Context, kind string, told ...event.Data) {
	if e.mute {
		return
	}
	var trace string
	if t := telemetry.From(ctx); t.ID != "" {
		trace = t.Traceparent()
	}
	for _, data := range told {
		e.all = append(e.all, event.New(kind, e.at, trace, data))
	}
	// MongoDB adds the members of an update in the order of their names; in
	// this order forget recognises them
	slices.SortFunc(e.all, func(x, y event.Event) int { return cmp.Compare(x.ID, y.ID) })
}

// fields are the members that an update sets.
func (e *events) fields() (set bson.D) {
	for _, v := range e.all {
		set = append(set, bson.E{Key: "events." + v.ID, Value: v})
	}
	return set
}

// since is the part of an update that keeps undelivered at the oldest.
func (e *events) since() bson.D {
	if len(e.all) == 0 {
		return nil
	}
	return bson.D{{Key: "$min", Value: bson.D{{Key: "undelivered", Value: e.at}}}}
}

// members are what a new document has of them.
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

// A window is the time in which a request may wait for the sink: once, however many
// events it has, from when the first is sent.
type window struct {
	ctx     context.Context
	timeout time.Duration
	sending context.Context // nil before the first
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

// deliver sends the events of a change before the response, in the window of its request,
// and returns those that were taken. It returns no error: the relay delivers the others.
func (o *outbox) deliver(ctx context.Context, w *window, users *mongo.Collection, e *events) (taken []event.Event) {
	if len(e.all) == 0 || w.begin().Err() != nil {
		return nil
	}
	if taken = o.send(w.begin(), e.all).taken; len(taken) == 0 {
		return nil
	}
	if len(taken) == len(e.all) {
		// nearly always these were the only ones: then all traces of them go at once
		result, err := users.UpdateOne(ctx,
			bson.D{{Key: "_id", Value: e.of}, {Key: "events", Value: e.document()}},
			bson.D{{Key: "$unset", Value: bson.D{{Key: "events", Value: ""}, {Key: "undelivered", Value: ""}}}})
		if err != nil || result.MatchedCount == 1 {
			o.noteLost(ctx, err)
			return taken
		}
	}
	o.noteLost(ctx, forget(ctx, users, e.of, taken))
	return taken
}

// An outcome is the result of sending events in a row.
type outcome struct {
	taken   []event.Event
	refused []event.Event
	failed  *event.Event // not taken for another reason, such as a sink that is down; sending stopped here
}

// send sends events, the oldest first. It goes on after an event that the sink refuses and
// stops at the first that fails for another reason, which keeps the order.
func (o *outbox) send(ctx context.Context, all []event.Event) (result outcome) {
	inTime := slices.SortedFunc(slices.Values(all), func(x, y event.Event) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(rank(x.Type), rank(y.Type)), cmp.Compare(x.ID, y.ID))
	})
	for _, e := range inTime {
		one, cancel := context.WithTimeout(ctx, sendTimeout)
		err := o.sink.Send(one, e)
		cancel()
		if err == nil {
			result.taken = append(result.taken, e)
			continue
		}
		o.log.WarnContext(ctx, "event not delivered", "event", e.ID, "type", e.Type, "error", err)
		if !errors.Is(err, event.ErrRefused) {
			result.failed = &e
			return result
		}
		result.refused = append(result.refused, e)
	}
	return result
}

// rank orders events of one moment: a session ends before another begins.
func rank(kind string) int {
	return slices.Index([]string{event.SignedUp, event.SignedOut, event.SignedIn}, kind)
}

// forget removes events that were taken.
func forget(ctx context.Context, users *mongo.Collection, id string, taken []event.Event) error {
	var unset bson.D
	for _, e := range taken {
		unset = append(unset, bson.E{Key: "events." + e.ID, Value: ""})
	}
	_, err := users.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, bson.D{{Key: "$unset", Value: unset}})
	return mongodb.Translate("forget events", err)
}

// noteLost logs that events which were taken are still written down: they will
// be delivered a second time.
func (o *outbox) noteLost(ctx context.Context, err error) {
	if err != nil {
		o.log.WarnContext(ctx, "delivered events not forgotten", "error", err)
	}
}

// trim drops the oldest events over the limit from an account as a sign-in left it, but
// for those that were taken since.
func (o *outbox) trim(ctx context.Context, users *mongo.Collection, a opened, taken []event.Event) {
	for _, e := range taken {
		delete(a.Events, e.ID)
	}
	if o.sink == nil || len(a.Events) <= outboxLimit {
		return
	}
	waiting := inOrder(a.Events)
	dropped := waiting[:len(waiting)-outboxLimit]
	if err := forget(ctx, users, a.ID, dropped); err != nil {
		o.log.WarnContext(ctx, "too many events wait for the sink", "error", err)
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
