package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// The counters are in the database, so they hold for all processes and after a scale to zero.
func TestRateLimit_AcrossProcesses(t *testing.T) {
	const quota, window = 60, 10 * time.Minute
	s := start(t, mongotest.URI(t), "RATE_LIMIT=on")
	other := e2e.Start(t, "signup", s.env["signup"]...)
	call := func(p *e2e.Process, email string) (int, string) {
		status, header, _, err := e2e.Call(t.Context(), http.MethodPost, p.URL+"/api/users/signup", "", credentials(email+"@example.com"))
		if err != nil {
			t.Fatal(err)
		}
		return status, header.Get("Retry-After")
	}
	for round := 0; ; round++ {
		began := time.Now().Truncate(window)
		created := 0
		for i := range quota + 5 {
			status, _ := call([]*e2e.Process{s.processes["signup"], other}[i%2], fmt.Sprintf("u%d-%d", round, i))
			if status == http.StatusCreated {
				created++
			}
		}
		s.processes["signup"].Signal(syscall.SIGTERM)
		s.restart(t, "signup")
		status, after := call(s.processes["signup"], fmt.Sprint("last", round))
		if !time.Now().Truncate(window).Equal(began) && round == 0 {
			continue // the window ended during the round; the next window has just begun
		}
		if created != quota || status != http.StatusTooManyRequests || after == "" {
			t.Errorf("got %d sign-ups from one address, then %d, Retry-After %q; want %d, then 429 with Retry-After", created, status, after, quota)
		}
		return
	}
}

// Signin and a repeated sign-up both check the password and share their counters. A sign-up is
// repeated if its idempotency key has been used.
func TestRateLimit_SigninAndRepeatedSignup(t *testing.T) {
	const owner, newDevice, attacker = "203.0.113.1", "203.0.113.2", "203.0.113.3"
	c := newClockFixture(t)
	ann := credentials("ann@example.com")
	wrong := strings.Replace(ann, "correct", "wrong", 1)
	signUp := func(from, body string, want int) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/users/signup", strings.NewReader(body))
		r.Header = http.Header{"Content-Type": {"application/json"}, "X-Forwarded-For": {from}, "Idempotency-Key": {"order-1"}, "Device-Token": {c.devices[from]}}
		w := httptest.NewRecorder()
		c.handlers["signup"].ServeHTTP(w, r)
		if device := w.Header().Get("Device-Token"); device != "" {
			c.devices[from] = device
		}
		if w.Code != want {
			t.Errorf("signup from %s: got %d %s, want %d", from, w.Code, w.Body, want)
		}
	}
	signUp(owner, ann, http.StatusCreated)
	for range 5 {
		c.call(t, "signin", attacker, "", wrong, http.StatusUnauthorized)
		signUp(attacker, wrong, http.StatusUnprocessableEntity)
	}
	c.call(t, "signin", newDevice, "", ann, http.StatusTooManyRequests)
	signUp(newDevice, ann, http.StatusTooManyRequests)
	signUp(owner, ann, http.StatusCreated)
	c.advance(time.Second)
	signUp(newDevice, ann, http.StatusCreated)
}
