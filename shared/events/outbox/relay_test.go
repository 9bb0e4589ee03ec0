package outbox

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// A sink answers events with the result of a function.
type sink struct{ send func(event.Event) error }

func (s *sink) Send(_ context.Context, e event.Event) error { return s.send(e) }

func (*sink) Takes(*event.Type) bool { return true }

func (*sink) Timeout() time.Duration { return time.Minute }

func reject(event.Event) error { return event.ErrRefused }

func fail(event.Event) error { return errors.New("the sink is down") }

type payload struct {
	Text   string   `json:"text"`
	Count  int      `json:"count"`
	Price  float64  `json:"price"`
	Sold   bool     `json:"sold"`
	Rows   []int    `json:"rows"`
	Parent *payload `json:"parent"`
}

var changed = event.Define[payload]("com.example.changed.v1", "/things", "A thing changed.")

// open returns the outbox of a prepared collection with a sink that fails, and its clock.
func open(t *testing.T) (o *Outbox, to *sink, now *time.Time) {
	t.Helper()
	db, err := mongodb.New(mongotest.URI(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	clock := noon
	to = &sink{fail}
	things := &endpoint.Collection{Database: "users", Name: "things", Indexes: Indexes()}
	o = New(Config{Types: []*event.Type{changed}, Sink: to, Now: func() time.Time { return clock },
		Collection: func(ctx context.Context) (*mongo.Collection, error) { return db.Collection(ctx, things) }})
	if err := mongodb.Prepare(t.Context(), db, clock, o.Log, things); err != nil {
		t.Fatal(err)
	}
	return o, to, &clock
}

func stored(t *testing.T, o *Outbox) (d Document) {
	t.Helper()
	c, err := o.Collection(t.Context())
	if err == nil {
		err = c.FindOne(t.Context(), bson.D{{Key: "_id", Value: "ann"}}).Decode(&d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// undelivered returns the only document with undelivered events.
func undelivered(t *testing.T, o *Outbox) pending {
	t.Helper()
	all, _, _, err := o.undelivered(t.Context(), position{}, 2)
	if err != nil || len(all) != 1 {
		t.Fatalf("got %d documents with undelivered events and error %v, want 1", len(all), err)
	}
	return all[0]
}

// due returns the only document that is due for a retry.
func due(t *testing.T, o *Outbox, now time.Time) pending {
	t.Helper()
	all, _, _, err := o.dueForRetry(t.Context(), position{}, now, 2)
	if err != nil || len(all) != 1 {
		t.Fatalf("got %d documents that are due and error %v, want 1", len(all), err)
	}
	return all[0]
}

// An event arrives as JSON of its payload, whatever the sink had to wait for.
func TestRelay_SendsPayload(t *testing.T) {
	t.Parallel()
	o, to, now := open(t)
	want := payload{Text: "\u00e9<&>\u2028 \"", Count: 1 << 40, Price: 0.1, Sold: true, Rows: []int{1, 2}, Parent: &payload{Rows: []int{}}}
	events := o.Events(t.Context(), "ann", changed, want)
	c, err := o.Collection(t.Context())
	if err == nil {
		_, err = c.InsertOne(t.Context(), append(bson.D{{Key: "_id", Value: "ann"}}, events.Members()...))
	}
	if err != nil {
		t.Fatal(err)
	}
	var got []event.Event
	to.send = func(e event.Event) error { got = append(got, e); return nil }
	*now = now.Add(deliveryTimeout)
	if err := o.Relay(t.Context()); err != nil || len(got) != 1 {
		t.Fatalf("got %d events and %v, want 1", len(got), err)
	}
	data, _ := got[0].Data.(jsontext.Value)
	var sent payload
	if err := json.Unmarshal(data, &sent); err != nil || !reflect.DeepEqual(sent, want) {
		t.Errorf("got the data %s %v, want %+v", data, err, want)
	}
	e := got[0]
	if e.ID == "" || e.Type != changed.Name || e.Source != "/things" || e.Subject != "ann" || !e.Time.Equal(noon) {
		t.Errorf("got %+v", e)
	}
	if d := stored(t, o); d.Events != nil || !d.Undelivered.IsZero() {
		t.Errorf("got %+v after the delivery, want no events", d)
	}
}

// relay removes the delivered events and counts no failure of the sink.
func TestDeliver_ContextEnds(t *testing.T) {
	t.Parallel()
	for name, result := range map[string]error{"after an event": nil, "during an event": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			o, to, now := open(t)
			change(t, t.Context(), o)
			for range 4 {
				*now = now.Add(time.Second)
				change(t, t.Context(), o)
			}
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			to.send = func(event.Event) error {
				if calls++; calls < 3 {
					return nil
				}
				cancel()
				return result
			}
			want := map[bool]int{true: 3, false: 2}[result == nil]
			sent, failed, err := o.relay(ctx, undelivered(t, o), cutoff{start: now.Add(deliveryTimeout)}, now.Add(time.Minute))
			if sent != want || failed || err != nil {
				t.Errorf("got %d delivered, failed: %v, error %v; want %d, false, nil", sent, failed, err, want)
			}
			a := stored(t, o)
			for id, e := range a.Events {
				if e.Tries != 0 {
					t.Errorf("event %s has %d failed deliveries, want 0", id, e.Tries)
				}
			}
			if len(a.Events) != 5-want || calls != 3 {
				t.Errorf("%d events remain after %d calls of the sink, want %d after 3", len(a.Events), calls, 5-want)
			}
		})
	}
}

// retry removes the delivered events.
func TestRetry_ContextEnds(t *testing.T) {
	t.Parallel()
	o, to, now := open(t)
	change(t, t.Context(), o)
	to.send = reject
	if _, _, err := o.relay(t.Context(), undelivered(t, o), cutoff{start: now.Add(deliveryTimeout)}, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	to.send = func(event.Event) error { cancel(); return nil }
	if sent, failed, err := o.retry(ctx, due(t, o, *now), now.Add(time.Minute)); sent != 1 || failed || err != nil {
		t.Errorf("got %d delivered, failed: %v, error %v; want 1, false, nil", sent, failed, err)
	}
	if a := stored(t, o); len(a.Refused) != 0 || !a.RetryAt.IsZero() {
		t.Errorf("got the rejectd events %v and retryAt %v, want none", a.Refused, a.RetryAt)
	}
}

// Another relay moves an event to the retry queue while retry sends one whose delay is long.
func TestRetry_ConcurrentRefusal(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(event.Event) error{
		"the sink accepts the event": func(event.Event) error { return nil },
		"the sink rejects the event": reject,
		"the sink fails":             fail,
	} {
		t.Run(name, func(t *testing.T) {
			o, to, now := open(t)
			change(t, t.Context(), o)
			to.send = reject
			until := now.Add(24 * time.Hour)
			if _, _, err := o.relay(t.Context(), undelivered(t, o), cutoff{start: now.Add(deliveryTimeout)}, until); err != nil {
				t.Fatal(err)
			}
			for range 5 { // now the delay is 32 minutes
				*now = stored(t, o).RetryAt
				if _, _, err := o.retry(t.Context(), due(t, o, *now), until); err != nil {
					t.Fatal(err)
				}
			}
			*now = stored(t, o).RetryAt
			to.send = fail
			change(t, t.Context(), o)
			retried := due(t, o, *now)
			to.send = func(e event.Event) error {
				to.send = reject
				if _, _, err := o.relay(t.Context(), undelivered(t, o), cutoff{start: now.Add(deliveryTimeout)}, until); err != nil {
					t.Error(err)
				}
				return answer(e)
			}
			if _, _, err := o.retry(t.Context(), retried, until); err != nil {
				t.Fatal(err)
			}
			a := stored(t, o)
			if latest := now.Add(time.Minute); a.RetryAt.IsZero() || a.RetryAt.After(latest) {
				t.Errorf("got retryAt %v, want at most %v", a.RetryAt, latest)
			}
			want := 2
			if answer(event.Event{}) == nil {
				want = 1
			}
			if len(a.Refused) != want {
				t.Errorf("%d rejectd events are stored, want %d", len(a.Refused), want)
			}
			*now = now.Add(time.Minute)
			to.send = func(event.Event) error { return nil }
			if sent, _, err := o.retry(t.Context(), due(t, o, *now), until); sent != want || err != nil {
				t.Errorf("the next run delivered %d events with error %v, want %d", sent, err, want)
			}
		})
	}
}

// The data of an event has the payload of its type, also where no sink is set.
func TestEvents_PayloadOfAnotherType(t *testing.T) {
	t.Parallel()
	for _, sink := range []event.Sink{nil, &sink{}} {
		o := New(Config{Sink: sink})
		for _, payload := range []any{event.UserSignedIn{}, &event.UserSignedUp{}, nil, "ann"} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%T: got no panic, want one", payload)
					}
				}()
				o.Events(t.Context(), "ann", event.SignedUp, payload)
			}()
		}
		o.Events(t.Context(), "ann", event.SignedUp, event.UserSignedUp{})
	}
}

func TestRefuse_Delay(t *testing.T) {
	t.Parallel()
	previous := time.Duration(0)
	for tries := 1; tries < 100; tries++ {
		delay := refuse(Event{}, tries, noon).RetryAt.Sub(noon)
		if delay < max(minRetryDelay, previous) || delay > maxRetryDelay {
			t.Errorf("the delay after %d tries is %s, after %s before", tries, delay, previous)
		}
		previous = delay
	}
}

// An event of an expendable type displaces only others of these types.
func TestDisplace_ExpendableEvents(t *testing.T) {
	t.Parallel()
	ended := event.Define[payload]("com.example.ended.v1", "/things", "A thing ended.")
	o := New(Config{Types: []*event.Type{changed, ended}, Expendable: []*event.Type{ended}, Sink: &sink{fail}})
	stored := Document{Events: map[string]Event{
		"important":  {Type: changed.Name, Time: noon},
		"expendable": {Type: ended.Name, Time: noon.Add(time.Minute)},
	}}
	for _, c := range []struct {
		of   *event.Type
		n    int
		want []string
	}{
		{ended, limit - 2, nil},
		{ended, limit - 1, []string{"events.expendable"}},
		{ended, 2 * limit, []string{"events.expendable"}},
		{changed, limit - 1, []string{"events.expendable"}},
		{changed, limit, []string{"events.important", "events.expendable"}},
	} {
		e := o.Events(t.Context(), "ann", c.of, slices.Repeat([]any{payload{}}, c.n)...)
		var got []string
		for _, member := range o.Displace(stored, e) {
			got = append(got, member.Key)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d events of %s displace %v, want %v", c.n, c.of.Name, got, c.want)
		}
	}
}
