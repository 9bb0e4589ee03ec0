package bearer_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/bearer"
	"ticketing.com/auth/shared/bearer/token"
)

// key returns the private key with a number.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func encode(t testing.TB, keys ...crypto.Signer) (private, public string) {
	t.Helper()
	var set token.Set
	for _, k := range keys {
		set.Keys = append(set.Keys, token.NewJWK(k))
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := token.ParsePrivate(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), string(parsed.Public().JWKS())
}

// jwks returns a public set with the numbered keys.
func jwks(t testing.TB, numbers ...byte) string {
	t.Helper()
	var keys []crypto.Signer
	for _, n := range numbers {
		keys = append(keys, key(n))
	}
	_, public := encode(t, keys...)
	return public
}

// issue returns a token that expires after a day, so that the tests can move the clock.
func issue(t testing.TB, n byte, changes ...func(*bearer.Claims)) string {
	t.Helper()
	private, _ := encode(t, key(n))
	keys, err := token.ParsePrivate([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c := bearer.Claims{Subject: "ann", Session: "5e55", ID: "1", Email: "ann@example.com", IssuedAt: now, AuthTime: now, ACR: "aal1"}
	for _, change := range changes {
		change(&c)
	}
	raw, err := token.NewIssuer(keys, "ticketing", "ticketing", "web", 24*time.Hour).Issue(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func session(id string) func(*bearer.Claims) {
	return func(c *bearer.Claims) { c.Session = id }
}

// An auth is the auth system in these tests. Its handler runs in the goroutine of the request.
type auth struct {
	mu       sync.Mutex
	handler  http.HandlerFunc // nil answers 404
	requests []string         // method, path and query
}

func (a *auth) set(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handler = h
}

// taken returns the requests since the last call.
func (a *auth) taken() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := strings.Join(a.requests, " ")
	a.requests = nil
	return all
}

func (a *auth) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	a.requests = append(a.requests, strings.TrimPrefix(r.Method+r.URL.RequestURI(), "GET"))
	h := a.handler
	a.mu.Unlock()
	if h == nil {
		h = http.NotFound
	}
	if r.Body != nil {
		defer r.Body.Close()
	}
	w := httptest.NewRecorder()
	h(w, r)
	if w.Code == hung {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if w.Code == refused {
		return nil, errors.New("connection refused")
	}
	return w.Result(), nil
}

// The statuses of a handler that stand for no response.
const (
	hung    = 598
	refused = 599
)

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// held holds the request until the channel is closed or the request is cancelled.
func held(release chan bool, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
			h(w, r)
		case <-r.Context().Done():
			w.WriteHeader(hung)
		}
	}
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }
}

// A fixture is a Verifier with its auth system and its log.
type fixture struct {
	*auth
	*bearer.Verifier
	log *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// taken returns the messages since the last call, without their attributes.
func (l *lockedBuffer) taken() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var messages []string
	for line := range strings.Lines(l.b.String()) {
		var entry struct {
			Message string `json:"msg"`
		}
		json.Unmarshal([]byte(line), &entry)
		messages = append(messages, entry.Message)
	}
	l.b.Reset()
	return strings.Join(messages, "; ")
}

func newFixture(t testing.TB, c bearer.Config) fixture {
	t.Helper()
	f := fixture{auth: new(auth), log: new(lockedBuffer)}
	c.Client, c.Log = &http.Client{Transport: f.auth}, slog.New(slog.NewJSONHandler(f.log, nil))
	v, err := bearer.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f.Verifier = v
	return f
}

// verdict returns the status for a request with a token.
func (f fixture) verdict(t testing.TB, raw string) int {
	t.Helper()
	_, err := f.Verify(t.Context(), []string{"Bearer " + raw})
	return statusOf(t, err)
}

func statusOf(t testing.TB, err error) int {
	t.Helper()
	if err == nil {
		return 200
	}
	e, ok := errors.AsType[*bearer.Error](err)
	if !ok {
		t.Errorf("got the error %v, want a *bearer.Error", err)
		return 0
	}
	return e.Status
}

func (f fixture) want(t testing.TB, raw string, status int) {
	t.Helper()
	if got := f.verdict(t, raw); got != status {
		t.Errorf("got %d, want %d", got, status)
	}
}

func (f fixture) wantRequests(t testing.TB, want string) {
	t.Helper()
	if got := f.taken(); got != want {
		t.Errorf("got the requests %q to the auth system, want %q", got, want)
	}
}

func (f fixture) wantLog(t testing.TB, want string) {
	t.Helper()
	if got := f.log.taken(); got != want {
		t.Errorf("got the log %q, want %q", got, want)
	}
}

// count runs n requests at once and counts their statuses.
func (f fixture) count(t testing.TB, n int, raw string) map[int]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	statuses := map[int]int{}
	for range n {
		all.Go(func() {
			status := f.verdict(t, raw)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	all.Wait()
	return statuses
}
