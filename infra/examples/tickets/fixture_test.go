package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"ticketing.com/auth/shared/bearer"
	"ticketing.com/auth/shared/bearer/bearertest"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestMain(m *testing.M) {
	log = slog.New(slog.DiscardHandler)
	m.Run()
}

// A sink receives events. It answers 503 while it is down.
type sink struct {
	*httptest.Server
	mu     sync.Mutex
	down   bool
	events chan event
	seen   map[string]bool // ids that nextNew has returned
}

type event struct{ id, kind, subject, data string }

func newTestSink(t *testing.T) *sink {
	s := &sink{events: make(chan event, 1000), seen: map[string]bool{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		e, err := cehttp.NewEventFromHTTPRequest(r)
		if err != nil || e.Validate() != nil || e.Source() != "/api/tickets" || e.Extensions()["partitionkey"] != e.Subject() {
			t.Errorf("got the event %v (%v), want a valid event of /api/tickets with its partition key", e, err)
		}
		s.events <- event{e.ID(), e.Type(), e.Subject(), string(e.Data())}
		if s.down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// next returns the next event that the sink receives.
func (s *sink) next(t *testing.T) event {
	t.Helper()
	select {
	case e := <-s.events:
		return e
	case <-time.After(30 * time.Second):
		t.Fatal("got no event within 30 s")
		return event{}
	}
}

// nextNew returns the next event that is not a repeated delivery. A change can start before the
// event of the previous change is removed from the outbox. Then both are sent.
func (s *sink) nextNew(t *testing.T) event {
	t.Helper()
	for {
		if e := s.next(t); !s.seen[e.id] {
			s.seen[e.id] = true
			return e
		}
	}
}

// openStore returns a store in a database. With a sink it delivers events until the end of the test.
func openStore(t *testing.T, uri, sink string) *store {
	t.Helper()
	store, err := newStore(uri, sink)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.close)
	if err := store.createIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sink != "" {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); store.deliverChanges(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
	}
	return store
}

// An api is a running service, with an auth system of its own.
type api struct {
	t    *testing.T
	url  string
	auth *bearertest.Auth
}

// serve returns a service with a database of its own.
func serve(t *testing.T, sink string) api {
	t.Helper()
	return serveStore(t, openStore(t, mongotest.URI(t), sink))
}

func serveStore(t *testing.T, store *store) api {
	t.Helper()
	auth := bearertest.New(t)
	server := httptest.NewServer((&service{store, auth.Verifier()}).routes())
	t.Cleanup(server.Close)
	return api{t, server.URL, auth}
}

// bearer returns the Authorization header of a user.
func (a api) bearer(user string) string {
	a.t.Helper()
	return "Authorization: Bearer " + a.auth.Token(func(c *bearer.Claims) { c.Subject = user })
}

type response struct {
	status int
	header http.Header
	body   string
}

// call sends a request. Headers have the form "Name: value". A body is JSON unless a header says
// otherwise.
func (a api) call(method, path, body string, headers ...string) response {
	a.t.Helper()
	r, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	replaced := map[string]bool{}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if !replaced[name] {
			r.Header.Del(name)
			replaced[name] = true
		}
		r.Header.Add(name, value)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		a.t.Error(err)
		return response{}
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Error(err)
	}
	return response{res.StatusCode, res.Header, string(got)}
}

func (a api) as(user, method, path, body string) response {
	a.t.Helper()
	return a.call(method, path, body, a.bearer(user))
}

// create creates a ticket of a user and returns its path.
func (a api) create(user string) string {
	a.t.Helper()
	r := a.as(user, "POST", "/api/tickets", `{"title":"Concert","price":1500}`)
	if r.status != http.StatusCreated {
		a.t.Fatalf("create: got %d %s, want 201", r.status, r.body)
	}
	return r.header.Get("Location")
}

func (a api) want(r response, status int, body string) {
	a.t.Helper()
	if r.status != status || r.body != body {
		a.t.Errorf("got %d %s\nwant %d %s", r.status, r.body, status, body)
	}
	if got := r.header.Get("Cache-Control"); got != "no-store" {
		a.t.Errorf("got Cache-Control %q, want no-store", got)
	}
	if got := r.header.Get("X-Content-Type-Options"); got != "nosniff" {
		a.t.Errorf("got X-Content-Type-Options %q, want nosniff", got)
	}
	if got := r.header.Get("Content-Type"); body != "" && got != "application/json" {
		a.t.Errorf("got Content-Type %q, want application/json", got)
	}
}

func errorBody(field, message string) string {
	if field != "" {
		return `{"errors":[{"message":"` + message + `","field":"` + field + `"}]}`
	}
	return `{"errors":[{"message":"` + message + `"}]}`
}
