package e2e_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/token"
)

// clocked is every function with a clock of its own, on one database. A process has
// the machine's clock, and so these are no processes.
type clockFixture struct {
	settings      map[string]string
	databaseClock *endpointtest.Clock
	clocks        map[string]*endpointtest.Clock
	handlers      map[string]http.Handler
	devices       map[string]string // the device tokens of clients, by address
}

func newClockFixture(t *testing.T) clockFixture {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signing, _ := json.Marshal(token.Set{Keys: []token.JWK{token.NewJWK(private)}})
	verifying, _ := json.Marshal(token.Set{Keys: []token.JWK{token.NewJWK(private).Public()}})
	settings := map[string]string{"MONGODB_URI": mongotest.URI(t), "SIGNING_KEYS": string(signing), "VERIFYING_KEYS": string(verifying),
		"HASH_MEMORY_KIB": "64", "HASH_TIME": "1", "HASH_TESTING": "on", "TRUSTED_PROXIES": "1"}
	runMigrate(t, settings["MONGODB_URI"])
	c := clockFixture{settings, endpointtest.NewClock(), map[string]*endpointtest.Clock{}, map[string]http.Handler{}, map[string]string{}}
	for _, f := range catalog.Functions() {
		if f.Path != "" {
			c.start(t, f.Name, f)
		}
	}
	return c
}

// start starts a function under a name.
func (c clockFixture) start(t *testing.T, name string, f endpoint.Endpoint) {
	t.Helper()
	clock := endpointtest.NewClock()
	cfg := config.New(func(name string) (string, bool) { v, is := c.settings[name]; return v, is },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, clock.Now)
	ratelimit.FromConfig(cfg).SetClock(c.databaseClock.Now)
	c.clocks[name], c.handlers[name] = clock, httpserver.Handler(cfg, f)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cfg.Close(t.Context()) })
}

// later moves every clock, the database's too.
func (c clockFixture) advance(d time.Duration) {
	c.databaseClock.Advance(d)
	for _, clock := range c.clocks {
		clock.Advance(d)
	}
}

// ask calls a function from an address and fails the test unless the status is one of
// those that are wanted.
func (c clockFixture) call(t *testing.T, function, from, bearer, body string, want ...int) (status int, g tokenPair) {
	t.Helper()
	method := http.MethodPost
	if function == "currentuser" {
		method = http.MethodGet
	}
	r := httptest.NewRequestWithContext(t.Context(), method, "/api/users/"+strings.TrimPrefix(function, "another "), strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Forwarded-For", from)
	if device := c.devices[from]; device != "" {
		r.Header.Set("Device-Token", device)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	c.handlers[function].ServeHTTP(w, r)
	if device := w.Header().Get("Device-Token"); device != "" {
		c.devices[from] = device
	}
	if !slices.Contains(want, w.Code) {
		t.Errorf("%s: %d %s, want %v", function, w.Code, w.Body, want)
	}
	json.Unmarshal(w.Body.Bytes(), &g)
	return w.Code, g
}

// A function whose clock is wrong by an hour says no to some for that time: it sees a
// token as expired, or as one of the future. It never fails otherwise, what it has
// acknowledged holds when its clock is right again, and what it signed does not count
// for longer than the hour and a token's life.
func TestAClockThatIsOffByAnHourDoesNoLastingHarm(t *testing.T) {
	for _, victim := range []string{"signup", "signin", "refresh", "signout", "currentuser"} {
		for name, off := range map[string]time.Duration{"fast": time.Hour, "slow": -time.Hour} {
			t.Run(victim+" "+name, func(t *testing.T) {
				t.Parallel()
				const home, elsewhere = "203.0.113.1", "203.0.113.2"
				c := newClockFixture(t)
				ann := credentials("ann@example.com")
				wrong := strings.Replace(ann, "correct", "wrong", 1)
				refreshed := func(g tokenPair) string { return `{"refreshToken":"` + g.RefreshToken + `"}` }

				c.clocks[victim].Advance(off)
				_, up := c.call(t, "signup", home, "", ann, http.StatusCreated)
				_, in := c.call(t, "signin", home, "", ann, http.StatusOK)
				_, next := c.call(t, "refresh", home, "", refreshed(in), http.StatusOK)
				c.call(t, "currentuser", home, next.Token, "", http.StatusOK, http.StatusUnauthorized)
				out, _ := c.call(t, "signout", home, up.Token, "", http.StatusOK, http.StatusUnauthorized)
				for i := range 12 {
					c.call(t, "signin", elsewhere, "", wrong, []int{http.StatusUnauthorized, http.StatusTooManyRequests}[i/10])
				}

				c.clocks[victim].Advance(-off)
				if out == http.StatusOK {
					c.call(t, "currentuser", home, up.Token, "", http.StatusUnauthorized)
					c.call(t, "refresh", home, "", refreshed(up), http.StatusUnauthorized)
				} else { // who was told no is still in
					c.call(t, "refresh", home, "", refreshed(up), http.StatusOK)
				}
				c.call(t, "signin", home, "", ann, http.StatusOK) // strangers' failures do not keep her out
				_, last := c.call(t, "refresh", home, "", refreshed(next), http.StatusOK)
				c.call(t, "currentuser", home, last.Token, "", http.StatusOK)
				c.advance(time.Minute)
				c.call(t, "signin", elsewhere, "", ann, http.StatusOK) // nor longer than their wait
				c.advance(time.Hour + 15*time.Minute)
				for _, g := range []tokenPair{up, in, next, last} {
					c.call(t, "currentuser", home, g.Token, "", http.StatusUnauthorized)
				}
				_, last = c.call(t, "refresh", home, "", refreshed(last), http.StatusOK)
				c.call(t, "currentuser", home, last.Token, "", http.StatusOK)
			})
		}
	}
}

// Of two sign-in functions one has a wrong clock. What is counted goes by the
// database's, so no more passwords are tried than ten and those that waited, no address
// has a second quota, and the owner is let in when strangers have waited.
func TestGuessingIsBoundedWhateverAFunctionsClockSays(t *testing.T) {
	for name, off := range map[string]time.Duration{"an hour fast": time.Hour, "an hour slow": -time.Hour, "16 minutes fast": 16 * time.Minute, "16 minutes slow": -16 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClockFixture(t)
			c.start(t, "another signin", signin.Endpoint)
			c.clocks["another signin"].Advance(off)
			ann := credentials("ann@example.com")
			wrong := strings.Replace(ann, "correct", "wrong", 1)
			both := []string{"signin", "another signin"}
			c.call(t, "signup", "203.0.113.1", "", ann, http.StatusCreated)

			for i := range 10 {
				c.call(t, both[i%2], fmt.Sprint("198.51.100.", i), "", wrong, http.StatusUnauthorized)
			}
			for i := range 40 { // in the first second nobody is let in, not with the right password
				c.call(t, both[i%2], fmt.Sprint("192.0.2.", i), "", ann, http.StatusTooManyRequests)
				c.advance(20 * time.Millisecond)
			}
			c.call(t, "another signin", "203.0.113.1", "", ann, http.StatusOK) // but her, where she was before
			c.advance(time.Second)
			c.call(t, "another signin", "203.0.113.2", "", ann, http.StatusOK) // and elsewhere after the wait

			tried := 0
			for i := range 120 {
				if status, _ := c.call(t, both[i%2], "198.51.100.200", "", credentials(fmt.Sprintf("u%d@example.com", i/4)), http.StatusUnauthorized, http.StatusTooManyRequests); status == http.StatusUnauthorized {
					tried++
				}
			}
			if tried != 100 {
				t.Errorf("an address has tried %d wrong passwords", tried)
			}
		})
	}
}
