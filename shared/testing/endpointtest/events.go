package endpointtest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/user"
)

// Event returns an event from another service, with JSON data.
func Event(id, kind, data string) event.Event {
	e := event.New()
	e.SetID(id)
	e.SetSource("/tests")
	e.SetType(kind)
	if err := e.SetData(event.ApplicationJSON, json.RawMessage(data)); err != nil {
		panic(err)
	}
	return e
}

// A Reply is the response to a delivered event. It may contain an event.
type Reply struct {
	Status int
	Type   string // of the event, or empty
	JSON   string // the data of the event, or the body of an error
}

// A Mode is a content mode of the CloudEvents HTTP Protocol Binding §3.
type Mode string

// The content modes.
const (
	Binary     Mode = "binary"
	Structured Mode = "structured"
)

// Deliver sends an event to the function with the official SDK, as a broker does.
func (f *Fixture) Deliver(t testing.TB, mode Mode, e event.Event) Reply {
	t.Helper()
	ctx := t.Context()
	if mode == Structured {
		ctx = binding.WithForceStructured(ctx)
	}
	r, err := cehttp.NewHTTPRequestFromEvent(ctx, f.url+"/", e)
	if err != nil {
		t.Fatal(err)
	}
	return f.deliver(t, r)
}

// Send sends an event as Deliver does, from a broker that disconnects at the end of the context.
func (f *Fixture) Send(ctx context.Context, e event.Event) error {
	r, err := cehttp.NewHTTPRequestFromEvent(ctx, f.url+"/", e)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// DeliverRaw sends a request that the SDK would not send.
func (f *Fixture) DeliverRaw(t testing.TB, header http.Header, body string) Reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	return f.deliver(t, r)
}

func (f *Fixture) deliver(t testing.TB, r *http.Request) Reply {
	t.Helper()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	reply := Reply{Status: response.StatusCode, JSON: string(body)}
	if response.StatusCode > 299 || len(body) == 0 {
		return reply
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	e, err := binding.ToEvent(context.Background(), cehttp.NewMessageFromHttpResponse(response))
	if err != nil || e.Validate() != nil {
		t.Fatalf("reply %s (%v), want an event", body, err)
	}
	return Reply{Status: response.StatusCode, Type: e.Type(), JSON: string(e.Data())}
}

// Expect compares a reply. "*" in the wanted JSON stands for any string that is not empty.
func (r Reply) Expect(t testing.TB, status int, kind, wanted string) {
	t.Helper()
	var want, got any
	json.Unmarshal([]byte(wanted), &want)
	json.Unmarshal([]byte(r.JSON), &got)
	if r.Status != status || r.Type != kind || !matches(want, got) {
		t.Errorf("reply %d %q %s\nwant  %d %q %s", r.Status, r.Type, r.JSON, status, kind, wanted)
	}
}

// A Sink is an HTTP server that receives the events of functions.
type Sink struct {
	URL string

	mu       sync.Mutex
	received []event.Event
	headers  []http.Header
	answer   func(http.ResponseWriter)
}

// NewSink returns a sink that accepts all events.
func NewSink(t testing.TB) *Sink {
	t.Helper()
	s := &Sink{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Setting returns the setting with which a function sends its events to the sink.
func (s *Sink) Setting() string { return "K_SINK=" + s.URL }

// Answer replaces the response to further events. A nil function accepts all events.
func (s *Sink) Answer(answer func(http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// ServeHTTP implements [http.Handler].
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, err := binding.ToEvent(r.Context(), cehttp.NewMessageFromHttpRequest(r))
	if err != nil || e.Validate() != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.received, s.headers = append(s.received, *e), append(s.headers, r.Header)
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		answer(w)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// Received returns the events so far, in order.
func (s *Sink) Received() []event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]event.Event(nil), s.received...)
}

// Headers returns the request headers of the events so far.
func (s *Sink) Headers() []http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]http.Header(nil), s.headers...)
}

// Types returns the types of the events so far, without their common prefix and suffix.
func (s *Sink) Types() (types []string) {
	for _, e := range s.Received() {
		types = append(types, strings.TrimSuffix(strings.TrimPrefix(e.Type(), "com.ticketing.user."), ".v1"))
	}
	return types
}

// OpenSession adds a session to a user, as a sign-in would, and returns the grant.
func (f *Fixture) OpenSession(t testing.TB, email string) session.Grant {
	t.Helper()
	a, err := f.Users.Account(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	opened, refresh := session.Open(a.ID, f.Clock.Now(), time.Hour)
	if err := f.Users.Open(t.Context(), a, opened, "", ""); err != nil {
		t.Fatal(err)
	}
	grant, err := session.FromConfig(f.cfg).Grant(a.Profile, opened, refresh, opened.CreatedAt)
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

// OutboxIs fails the test unless the outbox of a user has the wanted number of events.
func (f *Fixture) OutboxIs(t testing.TB, email string, want int) {
	t.Helper()
	a := f.Stored(t, email)
	if len(a.Events) != want || a.Undelivered.IsZero() != (want == 0) {
		t.Errorf("outbox has %d events, undelivered since %v; want %d", len(a.Events), a.Undelivered, want)
	}
}

// Stored returns the complete stored account of an email.
func (f *Fixture) Stored(t testing.TB, email string) user.Account {
	t.Helper()
	a, err := f.Users.Account(t.Context(), email)
	if err == nil {
		a, err = f.Users.AccountByID(t.Context(), a.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}
