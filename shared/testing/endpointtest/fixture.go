// Package endpointtest is the test fixture for functions. Everything around the function is
// real except the clock: an HTTP server on a socket, a store with a separate database, keys,
// hashes.
//
// A Case describes one behaviour: a request and the complete response to it. Tests play each
// case over each transport, so that a function behaves the same on all transports.
package endpointtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

// A Fixture is one function with its dependencies.
type Fixture struct {
	Clock *Clock
	Users *user.Store // the store of the function, if it has one
	Keys  ed25519.PrivateKey

	function endpoint.Function
	cfg      *config.Config
	handler  http.Handler
	send     transport
	url, uri string
	logs     *logs
}

// EveryTransport runs a test once per transport, each time with a new fixture. The subtests are
// parallel, so they run after the code that follows the call. With -short, EveryTransport runs the test
// over HTTP only.
func EveryTransport(t *testing.T, function endpoint.Function, play func(*testing.T, *Fixture), settings ...string) {
	t.Helper()
	everyTransport(t, func(t *testing.T, use func(*Fixture)) {
		f := New(t, function, settings...)
		use(f)
		play(t, f)
	})
}

// everyTransport calls play for each transport. The function use selects the transport of a fixture.
func everyTransport(t *testing.T, play func(t *testing.T, use func(*Fixture))) {
	t.Helper()
	t.Run("over HTTP", func(t *testing.T) {
		t.Parallel()
		play(t, func(*Fixture) {})
	})
	t.Run("over Lambda", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("the function behaves as over HTTP")
		}
		play(t, func(f *Fixture) { f.send = overLambda(f.handler) })
	})
}

// New returns a fixture for a function, with the HTTP transport. Settings of the form
// "NAME=value" change the environment. If they name a database, New does not prepare that
// database, and it need not exist.
func New(t testing.TB, function endpoint.Function, settings ...string) *Fixture {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &Fixture{Clock: NewClock(), Keys: private, function: function, logs: &logs{}}
	environment := f.environment(t, settings)
	collections, schema := collections(function)
	_, prepared := environment["MONGODB_URI"]
	if !prepared {
		environment["MONGODB_URI"], prepared = mongotest.Reused(t, schema)
	}
	f.cfg = config.New(func(name string) (string, bool) {
		v, ok := environment[name]
		return v, ok
	}, func(o *slog.HandlerOptions) slog.Handler { return telemetry.LogHandler(slog.NewJSONHandler(f.logs, o)) }, f.Clock.Now)
	if environment["MONGODB_URI"] != "" {
		f.Users = user.FromConfig(f.cfg, sender.FromConfig(f.cfg))
		ratelimit.FromConfig(f.cfg).SetClock(f.Clock.Now)
	}
	f.handler = httpserver.Handler(f.cfg, function)
	if err := f.cfg.Err(); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f.handler)
	f.url, f.uri, f.send = server.URL, environment["MONGODB_URI"], overHTTP(server.URL)
	t.Cleanup(func() {
		server.Close()
		f.cfg.Close(context.Background())
	})
	if !prepared {
		if err := mongodb.Prepare(t.Context(), mongodb.FromConfig(f.cfg), f.Clock.Now(), f.cfg.Log(), collections...); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// WithBudget returns a function with another time limit of its first endpoint; 0 is the default.
func WithBudget(f endpoint.Function, budget time.Duration) endpoint.Function {
	f.Endpoints = slices.Clone(f.Endpoints)
	f.Endpoints[0].Budget = budget
	return f
}

// collections returns the collections of a function and that of the users, and their names.
func collections(f endpoint.Function) (all []*endpoint.Collection, names string) {
	all, names = []*endpoint.Collection{user.Collection}, user.Collection.Name
	for _, need := range f.Needs {
		if need.Grant != nil && need.Grant.Collection != user.Collection {
			all, names = append(all, need.Grant.Collection), names+" "+need.Grant.Collection.Name
		}
	}
	return all, names
}

func (f *Fixture) environment(t testing.TB, settings []string) map[string]string {
	environment := map[string]string{
		"SIGNING_KEYS":          keySet(t, token.NewJWK(f.Keys)),
		"VERIFYING_KEYS":        keySet(t, token.NewJWK(f.Keys).Public()),
		"INTROSPECTION_CLIENTS": identity.Clients.Secret.Sample(),
		"MAIL_KEYS":             confirmation.Confirming.Secret.Sample(),
		"HASH_MEMORY_KIB":       "64", // the minimum: tests need no strong hashes
		"HASH_TIME":             "1",
		"HASH_TESTING":          "on",
		"LOG_LEVEL":             "debug",
		"TRUSTED_PROXIES":       "1", // overHTTP adds the entry of one proxy
	}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		environment[name] = value
	}
	return environment
}

func keySet(t testing.TB, key token.JWK) string {
	document, err := json.Marshal(token.Set{Keys: []token.JWK{key}})
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

// Given creates a user with one session, as a sign-up would, and returns the grant.
func (f *Fixture) Given(t testing.TB, email, plain string) session.Grant {
	t.Helper()
	hash, err := password.FromConfig(f.cfg).Hash(t.Context(), plain)
	if err != nil {
		t.Fatal(err)
	}
	return f.GivenHash(t, email, hash)
}

// GivenHash is like Given, with a stored hash in place of a password.
func (f *Fixture) GivenHash(t testing.TB, email, hash string) session.Grant {
	t.Helper()
	u := user.User{ID: session.NewID(), Email: email}
	first, refresh := session.Open(u.ID, f.Clock.Now(), session.FromConfig(f.cfg).TTL())
	if err := f.Users.Create(t.Context(), user.Registration{User: u, Password: hash, First: &first}); err != nil {
		t.Fatal(err)
	}
	grant, err := session.FromConfig(f.cfg).Grant(user.Profile{User: u}, first, refresh, first.CreatedAt)
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

// Collection returns the collection of users in the database, without the store.
func (f *Fixture) Collection(t testing.TB) *mongo.Collection {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(f.uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Disconnect(context.Background()) })
	uri, err := url.Parse(f.uri)
	if err != nil {
		t.Fatal(err)
	}
	return client.Database(strings.Trim(uri.Path, "/")).Collection("users")
}

// Claims returns the claims of an access token. It fails the test for an invalid token.
func (f *Fixture) Claims(t testing.TB, access string) token.Claims {
	t.Helper()
	claims, err := accesstoken.VerifierFromConfig(f.cfg).Verify(t.Context(), access)
	if err != nil {
		t.Fatalf("the access token does not verify: %v", err)
	}
	return claims
}

// Issue returns an access token with claims.
func (f *Fixture) Issue(t testing.TB, claims token.Claims) string {
	t.Helper()
	access, err := accesstoken.IssuerFromConfig(f.cfg, 720*time.Hour).Issue(claims)
	if err != nil {
		t.Fatal(err)
	}
	return access
}

// Session returns the ID of a refresh token's session.
func (f *Fixture) Session(t testing.TB, refresh string) string {
	t.Helper()
	r, err := session.Parse(refresh)
	if err != nil {
		t.Fatal(err)
	}
	return r.Session
}

// Flush exports the spans and the metrics of all answers so far, if a setting names a collector.
func (f *Fixture) Flush(t testing.TB) { telemetry.FromConfig(f.cfg).Flush(t.Context()) }

// Logs returns all log lines so far.
func (f *Fixture) Logs() string { return f.logs.String() }

// An Answer is the response of a function.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Grant returns the grant in the body. It fails the test if the body is no grant.
func (a Answer) Grant(t testing.TB) session.Grant {
	t.Helper()
	var g session.Grant
	if err := json.Unmarshal([]byte(a.Body), &g); err != nil || g.Token == "" {
		t.Fatalf("response %d %s (%v), want a grant", a.Status, a.Body, err)
	}
	return g
}

// A Call is a request. An empty Method or Path means that of the first endpoint. Without a
// Content-Type, a body is JSON.
type Call struct {
	Method, Path string
	Header       http.Header
	Body         string
	From         string // the client's address; 203.0.113.9 if empty
	Device       string // the device token, sent as a header
}

// Do sends a call over the transport of the fixture.
func (f *Fixture) Do(t testing.TB, c Call) Answer {
	t.Helper()
	answer, err := f.send(t.Context(), f.complete(c))
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func (f *Fixture) complete(c Call) Call {
	if len(f.function.Endpoints) > 0 {
		first := f.function.Endpoints[0]
		c.Method, c.Path = cmp.Or(c.Method, first.Method), cmp.Or(c.Path, first.Path)
	}
	c.Header = c.Header.Clone()
	c.From = cmp.Or(c.From, "203.0.113.9")
	if c.Header == nil {
		c.Header = http.Header{}
	}
	if c.Device != "" {
		c.Header.Set("Device-Token", c.Device)
	}
	if c.Body != "" && c.Header.Get("Content-Type") == "" {
		c.Header.Set("Content-Type", f.mediaType())
	}
	return c
}

// mediaType returns the media type of the body that the first endpoint reads.
func (f *Fixture) mediaType() string {
	if len(f.function.Endpoints) > 0 && f.function.Endpoints[0].Form() != nil {
		return "application/x-www-form-urlencoded"
	}
	return "application/json"
}

// Bearer returns the Authorization header for an access token.
func Bearer(access string) http.Header { return http.Header{"Authorization": {"Bearer " + access}} }

// Race sends n calls at the same time and returns their responses.
func (f *Fixture) Race(t testing.TB, n int, call func(i int) Call) []Answer {
	t.Helper()
	answers, errs := make([]Answer, n), make([]error, n)
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() {
			start.Wait()
			answers[i], errs[i] = f.send(t.Context(), f.complete(call(i)))
		})
	}
	start.Done()
	done.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return answers
}

// A Clock is a clock that only Advance moves.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock at an arbitrary fixed time.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)} }

// Now returns the time of the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock forward.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
