// Package bearertest issues access tokens in the tests of a service that uses package bearer. The
// tests need no auth system:
//
//	auth := bearertest.New(t)
//	v := auth.Verifier()
//	token := auth.Token(func(c *bearer.Claims) { c.Roles = []string{"admin"} })
package bearertest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/bearer"
	"ticketing.com/auth/shared/bearer/revocation"
	"ticketing.com/auth/shared/bearer/token"
)

// An Auth stands for the auth system. It has a key of its own, so another Auth issues tokens that
// this one's Verifier refuses. Its server, at URL, publishes the key set and the revocation feed.
// It is safe for concurrent use.
type Auth struct {
	URL string

	t      testing.TB
	issuer *token.Issuer
	keys   string

	mu       sync.Mutex
	now      time.Time
	sessions []string
}

// ttl is the lifetime of a token.
const ttl = 15 * time.Minute

// New returns an Auth. It ends with the test. Its clock starts at the current time and moves only
// with Advance and Revoke.
func New(t testing.TB) *Auth {
	t.Helper()
	key, err := token.GenerateKey(token.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(token.Set{Keys: []token.JWK{token.NewJWK(key)}})
	if err != nil {
		t.Fatal(err)
	}
	signing, err := token.ParsePrivate(set)
	if err != nil {
		t.Fatal(err)
	}
	a := &Auth{
		t:      t,
		issuer: token.NewIssuer(signing, "ticketing", "ticketing", "web", ttl),
		keys:   string(signing.Public().JWKS()),
		now:    time.Now().Truncate(time.Second),
	}
	server := httptest.NewServer(a.handler())
	t.Cleanup(server.Close)
	a.URL = server.URL
	return a
}

// Token returns a token of a new session of the user 65f1c0ffee. The changes set other claims. To
// get an expired token, set IssuedAt to an earlier time.
func (a *Auth) Token(changes ...func(*bearer.Claims)) string {
	a.t.Helper()
	now := a.Now()
	c := bearer.Claims{
		Subject:       "65f1c0ffee",
		Session:       fmt.Sprintf("%x", []byte(rand.Text())),
		ID:            rand.Text(),
		Email:         "ann@example.com",
		EmailVerified: true,
		IssuedAt:      now,
		AuthTime:      now,
		AMR:           []string{"pwd"},
		ACR:           "aal1",
	}
	for _, change := range changes {
		change(&c)
	}
	raw, err := a.issuer.Issue(c)
	if err != nil {
		a.t.Fatal(err)
	}
	return raw
}

// Config returns settings of a Verifier that trusts the tokens, asks the feed, and uses the clock.
func (a *Auth) Config() bearer.Config {
	return bearer.Config{Keys: a.keys, RevocationsURL: a.Getenv("REVOCATIONS_URL"), Now: a.Now}
}

// Verifier returns a Verifier with the settings of Config.
func (a *Auth) Verifier() *bearer.Verifier {
	a.t.Helper()
	v, err := bearer.New(a.Config())
	if err != nil {
		a.t.Fatal(err)
	}
	return v
}

// Getenv returns the environment variables of a service that trusts the tokens, for a service with
// the clock of the machine.
func (a *Auth) Getenv(name string) string {
	return map[string]string{
		"VERIFYING_KEYS":  a.keys,
		"REVOCATIONS_URL": a.URL + "/api/users/revocations",
	}[name]
}

// Now returns the time of the clock.
func (a *Auth) Now() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// Advance moves the clock forward.
func (a *Auth) Advance(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = a.now.Add(d)
}

// Revoke ends a session, as a sign-out does, and moves the clock forward by 7 seconds. After that
// time every Verifier refuses the tokens of the session.
func (a *Auth) Revoke(session string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions = append(a.sessions, session)
	a.now = a.now.Add(7 * time.Second)
}

func (a *Auth) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/jwks.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(a.keys))
	})
	mux.HandleFunc("GET /api/users/revocations", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		since, err := strconv.Atoi(r.FormValue("since"))
		if err != nil || since < 0 || since > len(a.sessions) {
			since = 0
		}
		w.Header().Set("Content-Type", "application/json")
		json.MarshalWrite(w, revocation.Answer{
			Cursor:   strconv.Itoa(len(a.sessions)),
			Window:   int64((ttl + time.Minute).Seconds()),
			Sessions: append([]string{}, a.sessions[since:]...),
			Users:    []revocation.User{},
		})
	})
	return mux
}
