package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestMain(m *testing.M) {
	log = slog.New(slog.DiscardHandler)
	m.Run()
}

// key returns a private key of the auth system, or of an attacker.
func key(name string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte((name + strings.Repeat(".", ed25519.SeedSize))[:ed25519.SeedSize]))
}

func keySet(t *testing.T, k token.JWK) []byte {
	t.Helper()
	set, err := json.Marshal(token.Set{Keys: []token.JWK{k}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A forgery is a token that differs from a valid one. The zero value is a valid token.
type forgery struct {
	key, issuer, audience string
	age                   time.Duration
}

func (f forgery) issue(t *testing.T, user string) string {
	t.Helper()
	keys, err := token.ParsePrivate(keySet(t, token.NewJWK(key(cmp.Or(f.key, "auth")))))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := token.NewIssuer(keys, cmp.Or(f.issuer, "ticketing"), cmp.Or(f.audience, "ticketing"), "web", 15*time.Minute).Issue(token.Claims{
		Subject: user, Session: "5e55104", ID: "1", Email: user + "@example.com", IssuedAt: time.Now().Add(-f.age),
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func bearer(t *testing.T, user string) string {
	t.Helper()
	return "Bearer " + forgery{}.issue(t, user)
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

// newService returns a service with a database of its own. With a sink it delivers events until
// the end of the test.
func newService(t *testing.T, uri, sink string) *service {
	t.Helper()
	identity, err := newIdentity(keySet(t, token.NewJWK(key("auth")).Public()), "ticketing", "ticketing", time.Now)
	if err != nil {
		t.Fatal(err)
	}
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
	return &service{store, identity}
}

// An api is a running service.
type api struct {
	t   *testing.T
	url string
}

func serve(t *testing.T, sink string) api {
	t.Helper()
	server := httptest.NewServer(newService(t, mongotest.URI(t), sink).routes())
	t.Cleanup(server.Close)
	return api{t, server.URL}
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
	return a.call(method, path, body, "Authorization: "+bearer(a.t, user))
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
