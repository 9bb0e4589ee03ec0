package inprocess_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/inprocess"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
)

type payload struct {
	Text string `json:"text"`
}

type named struct {
	endpoint.Keyed
	Text string `json:"text"`
}

var (
	changed = event.Define[payload]("com.example.changed.v1", "/things", "A thing changed.")
	other   = event.Define[payload]("com.example.other.v1", "/things", "Another thing changed.")
	greeted = event.Define[payload]("com.example.greeted.v1", "/greetings", "A greeting was sent.")
	refused = event.Define[apierror.Errors]("com.example.refused.v1", "/greetings", "A greeting was refused.")
	things  = &endpoint.Collection{Database: "users", Name: "things", Indexes: outbox.Indexes()}
)

// store returns the outbox of the things.
func store(cfg *config.Config) *outbox.Outbox {
	return config.Part(cfg, "things", func() *outbox.Outbox {
		db := mongodb.FromConfig(cfg)
		return outbox.New(outbox.Config{Types: []*event.Type{changed, other}, Sink: sender.FromConfig(cfg), Now: cfg.Now(), Log: cfg.Log(),
			Collection: func(ctx context.Context) (*mongo.Collection, error) { return db.Collection(ctx, things) }})
	})
}

// write changes the thing with an id and publishes events.
func write(ctx context.Context, o *outbox.Outbox, id string, t *event.Type) error {
	things, err := o.Collection(ctx)
	if err != nil {
		return err
	}
	events := o.Events(ctx, id, t, payload{id})
	_, err = things.UpdateOne(ctx, bson.D{{Key: "_id", Value: id}}, events.Update(bson.D{{Key: "at", Value: o.Now()}}, nil, nil), options.UpdateOne().SetUpsert(true))
	if err == nil {
		o.Deliver(ctx, &outbox.Window{}, events)
	}
	return err
}

// publisher changes the thing that its path names, and publishes an event of a type.
func publisher(name string, t *event.Type) endpoint.Function {
	type input struct {
		ID string `path:"id"`
	}
	return endpoint.Function{
		Name:  name,
		Needs: []endpoint.Need{sender.Publishing(t)},
		Endpoints: []endpoint.Endpoint{endpoint.Define(endpoint.Spec{Method: http.MethodPost, Path: "/" + name + "/{id}", Access: endpoint.Public, Success: http.StatusNoContent},
			store, func(o *outbox.Outbox, ctx context.Context, in input) (endpoint.None, error) {
				return endpoint.None{}, write(ctx, o, in.ID, t)
			})},
	}
}

// relay delivers the events that remain in the outbox.
var relay = endpoint.Function{Name: "relay", Receivers: []endpoint.Receiver{receiver.On(endpoint.Receiver{Types: []*event.Type{event.Ping}},
	store, func(o *outbox.Outbox, ctx context.Context, _ endpoint.None) (endpoint.None, error) {
		return endpoint.None{}, o.Relay(ctx)
	})}}

// A delivery is a call of a receiver.
type delivery struct{ key, trace, text string }

// A taker is a function that takes events. It records its calls.
type taker struct {
	answer func(context.Context, *outbox.Outbox, payload) error // nil accepts all events

	mu    sync.Mutex
	calls []delivery
}

func (k *taker) function(r endpoint.Receiver) endpoint.Function {
	handle := func(o *outbox.Outbox, ctx context.Context, in named) (payload, error) {
		k.mu.Lock()
		k.calls = append(k.calls, delivery{in.Key, trace.SpanContextFromContext(ctx).TraceID().String(), in.Text})
		answer := k.answer
		k.mu.Unlock()
		if answer != nil {
			if err := answer(ctx, o, payload{in.Text}); err != nil {
				return payload{}, err
			}
		}
		return payload{"hello " + in.Text}, nil
	}
	name := "taker-" + r.Types[0].Name
	if r.Reply != nil {
		return endpoint.Function{Name: name, Receivers: []endpoint.Receiver{receiver.On(r, store, handle)}}
	}
	return endpoint.Function{Name: name, Receivers: []endpoint.Receiver{receiver.On(r, store,
		func(o *outbox.Outbox, ctx context.Context, in named) (endpoint.None, error) {
			_, err := handle(o, ctx, in)
			return endpoint.None{}, err
		})}}
}

func (k *taker) taking(types ...*event.Type) endpoint.Function {
	return k.function(endpoint.Receiver{Types: types})
}

func (k *taker) deliveries() []delivery {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]delivery(nil), k.calls...)
}

func (k *taker) answerWith(answer func(context.Context, *outbox.Outbox, payload) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answer = answer
}

// A process serves functions, over HTTP as a Knative pod does, or over Lambda.
type process struct {
	clock   func(time.Duration) // advances the clock
	uri     string
	outbox  *outbox.Outbox
	logs    *transcript
	handler http.Handler
	post    func(t *testing.T, path string, header map[string]string, body string) int
}

type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, onLambda bool, settings map[string]string, functions ...endpoint.Function) *process {
	t.Helper()
	p := &process{logs: &transcript{}, uri: mongotest.URI(t)}
	var mu sync.Mutex
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	p.clock = func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	values := map[string]string{"MONGODB_URI": p.uri, "LOG_LEVEL": "debug"}
	for name, value := range settings {
		values[name] = value
	}
	cfg := config.New(func(name string) (string, bool) { v, is := values[name]; return v, is },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(p.logs, o) },
		func() time.Time { mu.Lock(); defer mu.Unlock(); return now })
	p.handler = httpserver.Handler(cfg, functions...)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	p.outbox = store(cfg)
	t.Cleanup(func() { cfg.Close(context.Background()) })
	if err := mongodb.Prepare(t.Context(), mongodb.FromConfig(cfg), now, cfg.Log(), things); err != nil {
		t.Fatal(err)
	}
	if onLambda {
		p.post = func(t *testing.T, path string, header map[string]string, body string) int {
			e := events.APIGatewayV2HTTPRequest{RawPath: path, Headers: header, Body: body}
			e.RequestContext.HTTP.Method, e.RequestContext.HTTP.SourceIP = http.MethodPost, "203.0.113.9"
			sent, _ := json.Marshal(e)
			answer, err := httpserver.Lambda(p.handler).Invoke(t.Context(), sent)
			var r events.APIGatewayV2HTTPResponse
			if err = errors.Join(err, json.Unmarshal(answer, &r)); err != nil {
				t.Fatal(err)
			}
			return r.StatusCode
		}
		return p
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- httpserver.Serve(ctx, listener, p.handler, cfg.Log()) }()
	t.Cleanup(func() {
		if stop(); <-served != nil {
			t.Error("the server did not drain")
		}
	})
	p.post = func(t *testing.T, path string, header map[string]string, body string) int {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+listener.Addr().String()+path, strings.NewReader(body))
		for name, value := range header {
			r.Header.Set(name, value)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		io.Copy(io.Discard, response.Body)
		return response.StatusCode
	}
	return p
}

func eachTransport(t *testing.T, play func(t *testing.T, onLambda bool)) {
	t.Run("over HTTP", func(t *testing.T) { t.Parallel(); play(t, false) })
	t.Run("over Lambda", func(t *testing.T) { t.Parallel(); play(t, true) })
}

// stored returns the events in the document of a thing.
func (p *process) stored(t *testing.T, id string) map[string]outbox.Event {
	t.Helper()
	var d outbox.Document
	things, err := p.outbox.Collection(t.Context())
	if err == nil {
		err = things.FindOne(t.Context(), bson.D{{Key: "_id", Value: id}}).Decode(&d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d.Events
}

// change publishes an event about a thing. On Lambda, all that follows has happened before the
// answer.
func (p *process) change(t *testing.T, function, id string) {
	t.Helper()
	if status := p.post(t, "/"+function+"/"+id, nil, ""); status != http.StatusNoContent {
		t.Fatalf("got %d, want 204", status)
	}
}

// await waits until a condition holds. On Lambda it must hold at once.
func await(t *testing.T, onLambda bool, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if onLambda || time.Now().After(deadline) {
			t.Fatal("not so: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// busy answers as a receiver that is overloaded does.
func busy(context.Context, *outbox.Outbox, payload) error {
	return apierror.Busy(time.Second, errors.New("overloaded"))
}

func TestSink_ReceiverAcceptsEvent(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, onLambda bool) {
		k := &taker{}
		p := start(t, onLambda, nil, publisher("changes", changed), k.taking(changed), relay)
		p.change(t, "changes", "ann")
		await(t, onLambda, "the event is delivered and removed", func() bool { return len(k.deliveries()) == 1 && len(p.stored(t, "ann")) == 0 })
		if got := k.deliveries()[0]; got.text != "ann" || len(got.key) != 32 {
			t.Errorf("got %+v, want the text ann and a key", got)
		}
	})
}

// A receiver gets an event with the key and the trace that it gets from a broker.
func TestSink_SameKeyAsFromBroker(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, onLambda bool) {
		k := &taker{answer: busy}
		p := start(t, onLambda, map[string]string{"EVENTS": "insecure"}, publisher("changes", changed), k.taking(changed), relay)
		const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
		if status := p.post(t, "/changes/ann", map[string]string{"traceparent": "00-" + trace + "-00f067aa0ba902b7-01"}, ""); status != http.StatusNoContent {
			t.Fatalf("got %d, want 204", status)
		}
		await(t, onLambda, "the event is delivered", func() bool { return len(k.deliveries()) == 1 })
		for id, e := range p.stored(t, "ann") {
			p.post(t, "/", map[string]string{"ce-specversion": "1.0", "ce-id": id, "ce-source": changed.Source, "ce-type": e.Type, "ce-traceparent": e.Trace, "content-type": "application/json"}, `{"text":"ann"}`)
		}
		got := k.deliveries()
		if len(got) != 2 || got[0] != got[1] || got[0].trace != trace {
			t.Errorf("got the deliveries %+v, want two equal ones with the trace %s", got, trace)
		}
	})
}

// The relay delivers what the receiver has not accepted. A request triggers it.
func TestSink_ReceiverUnavailable(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, onLambda bool) {
		k := &taker{answer: busy}
		p := start(t, onLambda, nil, publisher("changes", changed), k.taking(changed), relay)
		p.change(t, "changes", "ann")
		await(t, onLambda, "the event is delivered", func() bool { return len(k.deliveries()) == 1 })
		if n := len(p.stored(t, "ann")); n != 1 {
			t.Fatalf("got %d stored events, want 1", n)
		}
		k.answerWith(nil)
		p.clock(59 * time.Second)
		p.post(t, "/nowhere", nil, "")
		p.clock(time.Second)
		if len(k.deliveries()) != 1 {
			t.Errorf("the relay ran twice within a minute")
		}
		p.post(t, "/nowhere", nil, "")
		await(t, onLambda, "the relay removes the event", func() bool { return len(p.stored(t, "ann")) == 0 })
		if got := k.deliveries(); len(got) != 2 || got[0].key != got[1].key {
			t.Errorf("got the deliveries %+v, want two with one key", got)
		}
	})
}

// A schedule of EventBridge triggers the relay with the input that infra/docs/events.md states.
func TestSink_RelayOnSchedule(t *testing.T) {
	t.Parallel()
	k := &taker{answer: busy}
	p := start(t, true, nil, publisher("changes", changed), k.taking(changed), relay)
	p.change(t, "changes", "ann")
	k.answerWith(nil)
	p.clock(time.Minute)
	const input = `{"version": "2.0", "rawPath": "/health/liveness", "requestContext": {"http": {"method": "GET"}}}`
	if _, err := httpserver.Lambda(p.handler).Invoke(t.Context(), []byte(input)); err != nil {
		t.Fatal(err)
	}
	if n := len(p.stored(t, "ann")); n != 0 || len(k.deliveries()) != 2 {
		t.Errorf("got %d stored events and the deliveries %v, want none and two", n, k.deliveries())
	}
}

// An event that its receiver rejects counts as delivered: a broker would not deliver it again.
func TestSink_ReceiverRejectsEvent(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, onLambda bool) {
		k := &taker{answer: func(context.Context, *outbox.Outbox, payload) error {
			return apierror.Field("text", "Not this text.")
		}}
		p := start(t, onLambda, nil, publisher("changes", changed), k.taking(changed), relay)
		p.change(t, "changes", "ann")
		await(t, onLambda, "the event is removed", func() bool { return len(k.deliveries()) == 1 && len(p.stored(t, "ann")) == 0 })
		if logs := p.logs.String(); !strings.Contains(logs, "event rejected by its receiver") {
			t.Errorf("got the log %s, want the rejected event", logs)
		}
	})
}

func TestSink_Reply(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, onLambda bool) {
		k, second := &taker{}, &taker{answer: busy}
		replying := k.function(endpoint.Receiver{Types: []*event.Type{changed}, Reply: greeted, Refusal: refused})
		p := start(t, onLambda, nil, publisher("changes", changed), replying, second.taking(greeted), relay)
		p.change(t, "changes", "ann")
		await(t, onLambda, "the reply is delivered", func() bool { return len(second.deliveries()) == 1 })
		if n := len(p.stored(t, "ann")); n != 1 {
			t.Fatalf("got %d stored events before the reply is accepted, want 1", n)
		}
		second.answerWith(nil)
		p.clock(2 * time.Minute)
		p.post(t, "/nowhere", nil, "")
		await(t, onLambda, "the event is removed", func() bool { return len(p.stored(t, "ann")) == 0 })
		if got := second.deliveries(); len(got) != 2 || got[0].key != got[1].key || got[0].text != "hello ann" {
			t.Errorf("got the replies %+v, want two with one key", got)
		}
	})
	t.Run("no function takes it", func(t *testing.T) {
		k := &taker{}
		p := start(t, true, nil, publisher("changes", changed), k.function(endpoint.Receiver{Types: []*event.Type{changed}, Reply: greeted, Refusal: refused}), relay)
		p.change(t, "changes", "ann")
		if n := len(p.stored(t, "ann")); n != 0 || !strings.Contains(p.logs.String(), "reply dropped") {
			t.Errorf("got %d stored events and the log %s, want none and the dropped reply", n, p.logs)
		}
	})
}

// Only the types with a receiver in the process are stored.
func TestSink_TypesWithoutReceiver(t *testing.T) {
	t.Parallel()
	k := &taker{answer: busy}
	p := start(t, true, nil, publisher("changes", changed), publisher("others", other), k.taking(changed), relay)
	p.change(t, "changes", "ann")
	p.change(t, "others", "bob")
	if ann, bob := len(p.stored(t, "ann")), len(p.stored(t, "bob")); ann != 1 || bob != 0 {
		t.Errorf("got %d and %d stored events, want 1 and 0", ann, bob)
	}
	if p = start(t, true, nil, publisher("changes", changed)); p.outbox.Sink != nil {
		t.Errorf("got the sink %v in a process without receivers, want none", p.outbox.Sink)
	}
}

// With K_SINK the broker alone delivers.
func TestSink_Broker(t *testing.T) {
	t.Parallel()
	var received sync.Map
	broker := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received.Store(r.Header.Get("Ce-Type"), true) }))
	defer broker.Close()
	k := &taker{}
	p := start(t, true, map[string]string{"K_SINK": broker.URL, "EVENTS": "insecure"}, publisher("changes", changed), publisher("others", other), k.taking(changed), relay)
	p.change(t, "changes", "ann")
	p.change(t, "others", "bob")
	for _, want := range []*event.Type{changed, other} {
		if _, is := received.Load(want.Name); !is {
			t.Errorf("the broker did not receive %s", want.Name)
		}
	}
	if got := k.deliveries(); len(got) != 0 {
		t.Errorf("got the deliveries %v in the process, want none", got)
	}
	if strings.Contains(p.logs.String(), `"relayed"`) {
		t.Error("a request triggered the relay, want a PingSource alone to do so")
	}
}

// The receivers in the process take the events of the process, and those of no client.
func TestSink_EventsOff(t *testing.T) {
	t.Parallel()
	k := &taker{}
	p := start(t, true, nil, publisher("changes", changed), k.taking(changed), relay)
	header := map[string]string{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/things", "ce-type": changed.Name, "content-type": "application/json"}
	if status := p.post(t, "/", header, `{"text":"eve"}`); status != http.StatusNotFound || len(k.deliveries()) != 0 {
		t.Errorf("got %d and the deliveries %v, want 404 and none", status, k.deliveries())
	}
	cfg := config.New(func(string) (string, bool) { return "", false }, func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
	httpserver.Handler(cfg, k.taking(changed))
	if err := cfg.Err(); err == nil || !strings.Contains(err.Error(), "EVENTS must be on") {
		t.Errorf("a receiver alone: got the error %v, want one about EVENTS", err)
	}
}

// A receiver that publishes the type that it takes does not recurse without end. The last event
// remains for the relay.
func TestSink_EventsThatCauseEachOther(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, onLambda bool) {
		k := &taker{answer: func(ctx context.Context, o *outbox.Outbox, in payload) error {
			return write(ctx, o, in.Text+"x", changed)
		}}
		p := start(t, onLambda, nil, publisher("changes", changed), k.taking(changed))
		p.change(t, "changes", "x")
		await(t, onLambda, "the first event is removed", func() bool { return len(p.stored(t, "x")) == 0 })
		if got := k.deliveries(); len(got) != 8 || len(p.stored(t, strings.Repeat("x", 9))) != 1 {
			t.Errorf("got %d deliveries and the events %v of the last thing, want 8 and 1", len(got), p.stored(t, strings.Repeat("x", 9)))
		}
	})
}

// Where the response ends the delivery, a receiver that hangs delays it for the window only.
func TestSink_ReceiverHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the window")
	}
	t.Parallel()
	k := &taker{answer: func(ctx context.Context, _ *outbox.Outbox, _ payload) error { <-ctx.Done(); return ctx.Err() }}
	p := start(t, true, nil, publisher("changes", changed), k.taking(changed))
	began := time.Now()
	p.change(t, "changes", "ann")
	if took := time.Since(began); took < 1900*time.Millisecond || took > 4*time.Second {
		t.Errorf("the response took %s, want the window of 2 s", took)
	}
	if n := len(p.stored(t, "ann")); n != 1 {
		t.Errorf("got %d stored events, want 1", n)
	}
}

// A receiver in the process has its own time limit, which can be longer than that of a broker.
func TestSink_SlowReceiver(t *testing.T) {
	t.Parallel()
	k, remaining := &taker{}, make(chan time.Duration, 1)
	k.answer = func(ctx context.Context, _ *outbox.Outbox, _ payload) error {
		end, _ := ctx.Deadline()
		remaining <- time.Until(end)
		return nil
	}
	p := start(t, false, nil, publisher("changes", changed), k.function(endpoint.Receiver{Types: []*event.Type{changed}, Budget: 20 * time.Second}), relay)
	p.change(t, "changes", "ann")
	if got := <-remaining; got < 10*time.Second || got > 20*time.Second {
		t.Errorf("the receiver has %s, want about 20 s", got)
	}
}

func TestTypes(t *testing.T) {
	t.Parallel()
	k := &taker{}
	replying := k.function(endpoint.Receiver{Types: []*event.Type{changed}, Reply: greeted, Refusal: refused})
	for _, c := range []struct {
		name      string
		functions []endpoint.Function
		want      string
	}{
		{"no receiver", []endpoint.Function{publisher("changes", changed)}, ""},
		{"no publisher", []endpoint.Function{k.taking(changed), relay}, ""},
		{"a receiver", []endpoint.Function{publisher("changes", changed), publisher("others", other), k.taking(changed), relay}, "com.example.changed.v1 dev.knative.sources.ping"},
		{"a reply that is taken", []endpoint.Function{publisher("changes", changed), replying, k.taking(greeted)}, "com.example.changed.v1 com.example.greeted.v1 dev.knative.sources.ping"},
		{"a reply to an event of another system", []endpoint.Function{publisher("others", other), replying, k.taking(greeted)}, ""},
	} {
		var got []string
		for _, name := range []string{changed.Name, greeted.Name, other.Name, refused.Name, event.Ping.Name} {
			if inprocess.Types(c.functions)[name] {
				got = append(got, name)
			}
		}
		if fmt.Sprint(got) != "["+c.want+"]" {
			t.Errorf("%s: got the types %v, want [%s]", c.name, got, c.want)
		}
	}
}
