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

// The state of the limits is in the database, for all processes, and after a scale to zero.
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
			continue // a window ended in the middle: the next will not, so soon
		}
		if created != quota || status != http.StatusTooManyRequests || after == "" {
			t.Errorf("%d sign-ups of one address, then %d, Retry-After %q", created, status, after)
		}
		return
	}
}

// Signin and a sign-up with a used key both check a password, with the same counters.
func TestRateLimit_SigninAndRepeatedSignup(t *testing.T) {
	const home, elsewhere, stranger = "203.0.113.1", "203.0.113.2", "203.0.113.3"
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
			t.Errorf("a sign-up from %s: %d %s, want %d", from, w.Code, w.Body, want)
		}
	}
	signUp(home, ann, http.StatusCreated)
	for range 5 {
		c.call(t, "signin", stranger, "", wrong, http.StatusUnauthorized)
		signUp(stranger, wrong, http.StatusUnprocessableEntity)
	}
	c.call(t, "signin", elsewhere, "", ann, http.StatusTooManyRequests)
	signUp(elsewhere, ann, http.StatusTooManyRequests)
	signUp(home, ann, http.StatusCreated)
	c.advance(time.Second)
	signUp(elsewhere, ann, http.StatusCreated)
}
