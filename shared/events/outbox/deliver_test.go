package outbox

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

// A process runs functions after responses.
type process struct {
	running sync.WaitGroup
	limit   int         // of the functions that it starts
	log     chan string // has its log lines
}

// Write adds a line to the log.
func (p *process) Write(line []byte) (int, error) {
	p.log <- string(line)
	return len(line), nil
}

func (p *process) later(f func()) bool {
	if p.limit--; p.limit < 0 {
		return false
	}
	p.running.Go(f)
	return true
}

// openLater returns an outbox in a process that continues to run after a response.
func openLater(t *testing.T, limit int) (ctx context.Context, o *Outbox, to *sink, now *time.Time, p *process) {
	t.Helper()
	o, to, now = open(t)
	p = &process{limit: limit, log: make(chan string, 10)}
	o.Log = slog.New(slog.NewTextHandler(p, nil))
	return endpoint.WithLater(t.Context(), p.later), o, to, now, p
}

// write changes the document ann and returns the events of the change.
func write(t *testing.T, ctx context.Context, o *Outbox) *Events {
	t.Helper()
	events := o.Events(ctx, "ann", changed, payload{Text: "x"})
	c, err := o.Collection(ctx)
	if err == nil {
		_, err = c.UpdateOne(ctx, bson.D{{Key: "_id", Value: "ann"}}, events.Update(bson.D{{Key: "at", Value: o.Now()}}, nil, nil), options.UpdateOne().SetUpsert(true))
	}
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// change changes the document ann. It returns the ids of the events that Deliver sends.
func change(t *testing.T, ctx context.Context, o *Outbox) (sent []string) {
	t.Helper()
	return o.Deliver(ctx, &Window{}, write(t, ctx, o))
}

// Deliver returns before the sink has answered, and the end of the request does not end the
// delivery.
func TestDeliver_SlowSink(t *testing.T) {
	t.Parallel()
	ctx, o, to, _, p := openLater(t, 1)
	ctx, end := context.WithCancel(ctx)
	answered := make(chan struct{})
	to.send = func(event.Event) error { <-answered; return nil }
	sent := change(t, ctx, o)
	if d := stored(t, o); len(sent) != 1 || len(d.Events) != 1 {
		t.Errorf("got %d events in flight and %d stored, want 1 and 1", len(sent), len(d.Events))
	}
	end()
	close(answered)
	p.running.Wait()
	if d := stored(t, o); d.Events != nil || !d.Undelivered.IsZero() || len(p.log) > 0 || len(o.last) > 0 {
		t.Errorf("got %d stored events, %d documents and %d log lines, want none", len(d.Events), len(o.last), len(p.log))
	}
}

// A sink receives the events of a document in the order of the changes.
func TestDeliver_OrderOfChanges(t *testing.T) {
	t.Parallel()
	ctx, o, to, _, p := openLater(t, 10)
	o.orderTimeout = time.Hour // a busy machine can need longer than usual
	hung := make(chan struct{})
	var got, want []string
	to.send = func(e event.Event) error {
		<-hung
		got = append(got, e.ID) // one at a time
		return nil
	}
	var changes []*Events
	for range 10 {
		changes = append(changes, write(t, ctx, o))
	}
	for _, e := range changes {
		want = append(want, o.Deliver(ctx, &Window{}, e)...)
	}
	close(hung)
	p.running.Wait()
	if !slices.Equal(got, want) || len(want) != 10 {
		t.Errorf("got the events %v, want %v", got, want)
	}
	if d := stored(t, o); len(d.Events) > 0 {
		t.Errorf("%d events are stored, want 0", len(d.Events))
	}
}

// A delivery that hangs does not prevent the next one.
func TestDeliver_EarlierDeliveryHangs(t *testing.T) {
	t.Parallel()
	ctx, o, to, _, p := openLater(t, 2)
	first, second := make(chan struct{}), make(chan struct{})
	var earlier []string
	to.send = func(e event.Event) error {
		if slices.Contains(earlier, e.ID) {
			close(first)
			<-second
			return errors.New("the sink is down")
		}
		close(second)
		return nil
	}
	a, b := write(t, ctx, o), write(t, ctx, o)
	earlier = ids(a.all)
	o.Deliver(ctx, &Window{}, a)
	<-first
	o.Deliver(ctx, &Window{}, b)
	p.running.Wait()
	if d := stored(t, o); len(d.Events) != 1 || d.Events[earlier[0]].Type == "" {
		t.Errorf("got the stored events %v, want %v", d.Events, earlier)
	}
	if line := <-p.log; !strings.Contains(line, "event not delivered") {
		t.Errorf("got the log line %q, want one about the event", line)
	}
}

// Over the limit of the process, the relay delivers the events.
func TestDeliver_TooManyInFlight(t *testing.T) {
	t.Parallel()
	ctx, o, to, now, p := openLater(t, 1)
	calls := 0
	to.send = func(event.Event) error { calls++; return nil }
	first := change(t, ctx, o)
	p.running.Wait()
	if second := change(t, ctx, o); len(first) != 1 || second != nil || calls != 1 {
		t.Errorf("got %d and %d events in flight after %d calls, want 1 and 0 after 1", len(first), len(second), calls)
	}
	if line := <-p.log; !strings.Contains(line, "event left to the relay") {
		t.Errorf("got the log line %q, want one about the event", line)
	}
	*now = now.Add(deliveryTimeout)
	if err := o.Relay(t.Context()); err != nil || calls != 2 {
		t.Errorf("got %d calls and %v, want 2", calls, err)
	}
}

// Without a Later, the events are sent before Deliver returns, within the window of the request.
func TestDeliver_FrozenAfterResponse(t *testing.T) {
	t.Parallel()
	o, to, _ := open(t)
	calls := 0
	to.send = func(event.Event) error { calls++; return nil }
	if sent := change(t, t.Context(), o); len(sent) != 1 || calls != 1 || stored(t, o).Events != nil {
		t.Errorf("got %d delivered events after %d calls, want 1 after 1", len(sent), calls)
	}
}

// The relay does not send an event that a function sends at the same time, but waits for it.
func TestRelay_EventInFlight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		result error
		calls  int
	}{
		"the sink accepts it": {nil, 1},
		"the sink fails":      {errors.New("the sink is down"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, o, to, _, p := openLater(t, 1)
			o.Now = time.Now
			answered, first := make(chan struct{}), make(chan struct{})
			calls := 0
			to.send = func(event.Event) error {
				if calls++; calls == 1 {
					close(first)
					<-answered
					return c.result
				}
				return nil
			}
			change(t, ctx, o)
			<-first
			relayed := make(chan error, 1)
			go func() { relayed <- o.Relay(t.Context()) }()
			close(answered)
			p.running.Wait()
			if err := <-relayed; err != nil || calls != c.calls {
				t.Errorf("got %d calls of the sink and %v, want %d", calls, err, c.calls)
			}
			if d := stored(t, o); d.Events != nil || !d.Undelivered.IsZero() {
				t.Errorf("%d events are stored, want 0", len(d.Events))
			}
		})
	}
}
