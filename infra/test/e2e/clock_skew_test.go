package e2e_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

// clockFixture runs every function in this process, each with its own clock, on one
// database. Processes would all use the clock of the machine.
type clockFixture struct {
	settings      map[string]string
	databaseClock *endpointtest.Clock
	clocks        map[string]*endpointtest.Clock
	handlers      map[string]http.Handler
	devices       map[string]string // device tokens by client address
}

func newClockFixture(t *testing.T) clockFixture {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signing, _ := json.Marshal(token.Set{Keys: []token.JWK{token.NewJWK(private)}})
	verifying, _ := json.Marshal(token.Set{Keys: []token.JWK{token.NewJWK(private).Public()}})
	settings := needs.Of(catalog.Functions()...).Samples()
	delete(settings, "K_SINK") // no function publishes events
	maps.Copy(settings, map[string]string{"MONGODB_URI": mongotest.URI(t), "SIGNING_KEYS": string(signing), "VERIFYING_KEYS": string(verifying),
		"HASH_MEMORY_KIB": "64", "HASH_TIME": "1", "HASH_TESTING": "on", "TRUSTED_PROXIES": "1"})
	runMigrate(t, settings["MONGODB_URI"])
	c := clockFixture{settings, endpointtest.NewClock(), map[string]*endpointtest.Clock{}, map[string]http.Handler{}, map[string]string{}}
	for _, f := range catalog.Functions() {
		if len(f.Endpoints) > 0 {
			c.start(t, f.Name, f)
		}
	}
	return c
}

// start starts a function with its own clock, under a name.
func (c clockFixture) start(t *testing.T, name string, f endpoint.Function) {
	t.Helper()
	clock := endpointtest.NewClock()
	cfg := config.New(func(name string) (string, bool) { v, ok := c.settings[name]; return v, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, clock.Now)
	ratelimit.FromConfig(cfg).SetClock(c.databaseClock.Now)
	c.clocks[name], c.handlers[name] = clock, httpserver.Handler(cfg, f)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cfg.Close(t.Context()) })
}

// advance moves every clock, including the database's.
func (c clockFixture) advance(d time.Duration) {
	c.databaseClock.Advance(d)
	for _, clock := range c.clocks {
		clock.Advance(d)
	}
}

// call calls a function from an address and fails the test unless the status is one of want.
func (c clockFixture) call(t *testing.T, function, address, bearer, body string, want ...int) (status int, tokens tokenPair) {
	t.Helper()
	method := http.MethodPost
	if function == "currentuser" {
		method = http.MethodGet
	}
	r := httptest.NewRequestWithContext(t.Context(), method, "/api/users/"+strings.TrimPrefix(function, "another "), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Forwarded-For", address)
	if device := c.devices[address]; device != "" {
		r.Header.Set("Device-Token", device)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	c.handlers[function].ServeHTTP(w, r)
	if device := w.Header().Get("Device-Token"); device != "" {
		c.devices[address] = device
	}
	if !slices.Contains(want, w.Code) {
		t.Errorf("%s: got %d %s, want status %v", function, w.Code, w.Body, want)
	}
	json.Unmarshal(w.Body.Bytes(), &tokens)
	return w.Code, tokens
}

// The clock of one function is wrong by an hour. During that hour the function may reject valid
// tokens, because it sees them as expired or as issued in the future. It must not fail in any
// other way. Acknowledged changes must hold after the clock is correct again. The access tokens
// that it signed must expire after at most one hour plus their lifetime.
func TestClockSkew_OneFunctionByAnHour(t *testing.T) {
	t.Parallel()
	for _, skewed := range []string{"signup", "signin", "refresh", "signout", "currentuser"} {
		for name, skew := range map[string]time.Duration{"fast": time.Hour, "slow": -time.Hour} {
			t.Run(skewed+" "+name, func(t *testing.T) {
				t.Parallel()
				const home, elsewhere = "203.0.113.1", "203.0.113.2"
				c := newClockFixture(t)
				ann := credentials("ann@example.com")
				wrong := strings.Replace(ann, "correct", "wrong", 1)
				refreshBody := func(tokens tokenPair) string { return `{"refreshToken":"` + tokens.RefreshToken + `"}` }

				c.clocks[skewed].Advance(skew)
				_, up := c.call(t, "signup", home, "", ann, http.StatusCreated)
				_, in := c.call(t, "signin", home, "", ann, http.StatusOK)
				_, next := c.call(t, "refresh", home, "", refreshBody(in), http.StatusOK)
				c.call(t, "currentuser", home, next.Token, "", http.StatusOK, http.StatusUnauthorized)
				out, _ := c.call(t, "signout", home, up.Token, "", http.StatusOK, http.StatusUnauthorized)
				for i := range 12 {
					c.call(t, "signin", elsewhere, "", wrong, []int{http.StatusUnauthorized, http.StatusTooManyRequests}[i/10])
				}

				c.clocks[skewed].Advance(-skew)
				if out == http.StatusOK {
					c.call(t, "currentuser", home, up.Token, "", http.StatusUnauthorized)
					c.call(t, "refresh", home, "", refreshBody(up), http.StatusUnauthorized)
				} else { // a rejected sign-out changed nothing
					c.call(t, "refresh", home, "", refreshBody(up), http.StatusOK)
				}
				c.call(t, "signin", home, "", ann, http.StatusOK) // the failures from another address do not lock this client out
				_, last := c.call(t, "refresh", home, "", refreshBody(next), http.StatusOK)
				c.call(t, "currentuser", home, last.Token, "", http.StatusOK)
				c.advance(time.Minute)
				c.call(t, "signin", elsewhere, "", ann, http.StatusOK) // the other address may sign in after its wait
				c.advance(time.Hour + 15*time.Minute)
				for _, tokens := range []tokenPair{up, in, next, last} {
					c.call(t, "currentuser", home, tokens.Token, "", http.StatusUnauthorized)
				}
				_, last = c.call(t, "refresh", home, "", refreshBody(last), http.StatusOK)
				c.call(t, "currentuser", home, last.Token, "", http.StatusOK)
			})
		}
	}
}

// One of two sign-in functions has a wrong clock. Rate limits use the clock of the database. So
// an account gets ten attempts and then one after each wait, and an address has one limit for both
// functions. The owner can sign in after the wait that other clients caused.
func TestClockSkew_RateLimitsUseDatabaseClock(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"an hour fast": time.Hour, "an hour slow": -time.Hour, "16 minutes fast": 16 * time.Minute, "16 minutes slow": -16 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClockFixture(t)
			c.start(t, "another signin", signin.Function)
			c.clocks["another signin"].Advance(skew)
			ann := credentials("ann@example.com")
			wrong := strings.Replace(ann, "correct", "wrong", 1)
			both := []string{"signin", "another signin"}
			c.call(t, "signup", "203.0.113.1", "", ann, http.StatusCreated)

			for i := range 10 {
				c.call(t, both[i%2], fmt.Sprint("198.51.100.", i), "", wrong, http.StatusUnauthorized)
			}
			for i := range 40 { // in the first second even the right password is rejected
				c.call(t, both[i%2], fmt.Sprint("192.0.2.", i), "", ann, http.StatusTooManyRequests)
				c.advance(20 * time.Millisecond)
			}
			c.call(t, "another signin", "203.0.113.1", "", ann, http.StatusOK) // the owner's known device has its own limit
			c.advance(time.Second)
			c.call(t, "another signin", "203.0.113.2", "", ann, http.StatusOK) // a new device may sign in after the wait

			tried := 0
			for i := range 120 {
				if status, _ := c.call(t, both[i%2], "198.51.100.200", "", credentials(fmt.Sprintf("u%d@example.com", i/4)), http.StatusUnauthorized, http.StatusTooManyRequests); status == http.StatusUnauthorized {
					tried++
				}
			}
			if tried != 100 {
				t.Errorf("one address: got %d attempts with a wrong password, want 100", tried)
			}
		})
	}
}
