package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/shared/user"
)

// A crowd is people who sign up, sign in, refresh and sign out all the time, whatever
// is wrong with the system, and who remember what they were told. What they find
// strange fails the test: an answer that is not honest, or none in time.
type crowd struct {
	s *system
	// mortal: functions are killed, so a connection may break. A call that gets no
	// answer in time is a fault all the same.
	mortal bool

	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	people  []*resident
	lives   int            // lived to their end
	counts  map[string]int // of answers, by function and status
	longest time.Duration
	strange map[string]int
}

// A resident is one of the crowd, with what was acknowledged and what was not.
type resident struct {
	email string
	from  string // the address

	up, acknowledged bool      // a sign-up was sent; it was answered with 201
	kept             *granted  // a session that must go on: its newest tokens
	dead             *granted  // a session whose sign-out was answered with 200
	refreshing       time.Time // when a refresh was sent that was not answered
	leaving          *granted  // one whose sign-out was sent and not answered
	changes          []change  // what must have been told
	secrets          []string
}

// newCrowd sets people in motion.
func newCrowd(s *system, size int, pause time.Duration, mortal bool) *crowd {
	c := &crowd{s: s, mortal: mortal, stop: make(chan struct{}), counts: map[string]int{}, strange: map[string]int{}}
	for worker := range size {
		c.done.Go(func() {
			for i := 0; !c.stopped(pause); i++ {
				r := &resident{email: fmt.Sprintf("u%d-%d@example.com", worker, i), from: fmt.Sprintf("2001:db8:%x:%x::1", worker, i)}
				c.mu.Lock()
				c.people = append(c.people, r)
				c.mu.Unlock()
				c.live(r, pause)
				c.mu.Lock()
				c.lives++
				c.mu.Unlock()
			}
		})
	}
	return c
}

func (c *crowd) stopped(pause time.Duration) bool {
	select {
	case <-c.stop:
		return true
	case <-time.After(pause):
		return false
	}
}

// await waits until so many more have lived to their end.
func (c *crowd) await(t *testing.T, more int) {
	t.Helper()
	lives := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.lives
	}
	deadline := time.Now().Add(30 * time.Second)
	for enough := lives() + more; lives() < enough; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.end()
			c.report(t)
			t.Fatal("the system does not recover")
		}
	}
}

// end has everybody finish the call they are in.
func (c *crowd) end() {
	close(c.stop)
	c.done.Wait()
}

// live is a life: each step is tried until it is answered.
func (c *crowd) live(r *resident, pause time.Duration) {
	r.up = true
	up, ok := c.insist(pause, func() (int, string) {
		return c.call(r, "signup", "", credentials(r.email), http.StatusCreated, http.StatusBadRequest)
	})
	if !ok {
		return
	}
	if up.status == http.StatusCreated {
		r.acknowledged = true
		c.begun(r, up.grant, signedUp)
	}
	// one who was not answered is a member all the same: the second try said so
	in, ok := c.insist(pause, func() (int, string) {
		return c.call(r, "signin", "", credentials(r.email), http.StatusOK)
	})
	if !ok || in.status != http.StatusOK {
		return
	}
	if c.begun(r, in.grant, signedIn); up.status != http.StatusCreated {
		return
	}
	for range 2 {
		if !c.refresh(r, pause) {
			return
		}
	}
	if _, ok := c.insist(pause, func() (int, string) { return c.call(r, "currentuser", r.kept.Token, "", http.StatusOK) }); !ok {
		return
	}
	// the session of the sign-up ends, that of the sign-in goes on
	r.leaving = &up.grant
	if _, ok := c.insist(pause, func() (int, string) { return c.call(r, "signout", up.grant.Token, "", http.StatusOK) }); !ok {
		return
	}
	r.leaving, r.dead = nil, &up.grant
	c.acknowledge(r, up.grant, signedOut)
	c.insist(pause, func() (int, string) { return c.call(r, "currentuser", up.grant.Token, "", http.StatusUnauthorized) })
}

// refresh exchanges the kept tokens. One whose answer is lost may be repeated for ten
// seconds; who comes later is taken for a thief and has to sign in again.
func (c *crowd) refresh(r *resident, pause time.Duration) bool {
	body, began, want := `{"refreshToken":"`+r.kept.RefreshToken+`"}`, time.Now(), []int{http.StatusOK}
	next, ok := c.insist(pause, func() (int, string) {
		if time.Since(began) > user.ReplayWindow-5*time.Second { // before this call has had its answer
			want = []int{http.StatusOK, http.StatusUnauthorized}
		}
		return c.call(r, "refresh", "", body, want...)
	})
	switch {
	case !ok:
		r.refreshing = began
		return false
	case next.status != http.StatusOK:
		r.kept = nil
		return false
	}
	r.kept, r.secrets = &next.grant, append(r.secrets, next.grant.secrets()...)
	return true
}

func (c *crowd) begun(r *resident, g granted, kind string) {
	r.kept = &g
	r.secrets = append(r.secrets, g.secrets()...)
	c.acknowledge(r, g, kind)
}

func (c *crowd) acknowledge(r *resident, g granted, kind string) {
	of, err := claimed(g.Token)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.strange[err.Error()]++
		return
	}
	r.changes = append(r.changes, of.is(kind))
}

// told counts the answers of a status so far.
func (c *crowd) told(status int) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, m := range c.counts {
		if strings.HasSuffix(kind, fmt.Sprint(" ", status)) {
			n += m
		}
	}
	return n
}

type answered struct {
	status int
	grant  granted
}

// insist repeats a call until it is answered, or the crowd ends: then it returns
// false.
func (c *crowd) insist(pause time.Duration, call func() (int, string)) (a answered, ok bool) {
	for !c.stopped(pause) {
		status, body := call()
		if status == 0 || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
			time.Sleep(250 * time.Millisecond) // they were told to wait a second
			continue
		}
		a.status = status
		return a, json.Unmarshal([]byte(body), &a.grant) == nil
	}
	return a, false
}

// patient waits as long as callers are promised that they need to.
var patient = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// call calls a function, and notes what is strange of the answer. It returns status
// 0 where there was none. What may come besides what is wanted is an honest 503 or 429.
func (c *crowd) call(r *resident, function, bearer, body string, want ...int) (int, string) {
	method := http.MethodPost
	if function == "currentuser" {
		method = http.MethodGet
	}
	request, err := http.NewRequest(method, c.s.url(function)+"/api/users/"+function, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("X-Forwarded-For", r.from)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	began := time.Now()
	response, err := patient.Do(request)
	var read []byte
	if err == nil {
		read, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	took := time.Since(began)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest = max(c.longest, took)
	if err != nil {
		var late net.Error
		c.counts[function+" none"]++
		if !c.mortal || errors.As(err, &late) && late.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
			c.strange[fmt.Sprintf("%s after %.1f s: %v", function, took.Seconds(), errors.Unwrap(err))]++
		}
		return 0, ""
	}
	status := response.StatusCode
	c.counts[fmt.Sprint(function, " ", status)]++
	busy := status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
	switch {
	case busy && response.Header.Get("Retry-After") != "" && strings.HasPrefix(string(read), `{"errors":[{"message":"`):
	case slices.Contains(want, status):
	default:
		c.strange[fmt.Sprintf("%s: %d %s %v", function, status, read, response.Header)]++
	}
	return status, string(read)
}

// settled is call where all is well: a machine that is busy may still say so, for a
// while.
func (c *crowd) settled(r *resident, function, bearer, body string, want ...int) (status int, answer string) {
	for range 8 {
		status, answer = c.call(r, function, bearer, body, want...)
		if status != http.StatusServiceUnavailable {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	return status, answer
}

// report fails the test for what was strange.
func (c *crowd) report(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, n := range c.strange {
		t.Errorf("%d × %s", n, what)
	}
	var counts []string
	for _, kind := range slices.Sorted(maps.Keys(c.counts)) {
		counts = append(counts, fmt.Sprintf("%s × %d", kind, c.counts[kind]))
	}
	t.Logf("%d people; %s; the longest call took %.1f s", len(c.people), strings.Join(counts, ", "), c.longest.Seconds())
}

// hold is the invariant. Whatever happened, when all is well again:
//
//   - whoever was told 201 can sign in, and who was not can sign in or sign up;
//   - who was told of a refresh can refresh again, and who was not can repeat it;
//   - who was told 200 of a sign-out is out, with both tokens;
//   - nobody is there twice;
//   - each of these changes was told to the sink, and nothing that was not;
//   - no secret is in any log.
//
// A relay is woken for what waits. The crowd has ended.
func (c *crowd) hold(t *testing.T, uri string, sink *sink) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	people := make(chan *resident)
	for range 4 {
		group.Go(func() {
			for r := range people {
				if wrong := c.visit(r); wrong != "" {
					mu.Lock()
					t.Errorf("%s (acknowledged: %v): %s", r.email, r.acknowledged, wrong)
					mu.Unlock()
				}
			}
		})
	}
	for _, r := range c.people {
		people <- r
	}
	close(people)
	group.Wait()
	c.report(t)

	emails := map[string]string{}
	for id, a := range accounts(t, uri) {
		if other, twice := emails[a.Email]; twice {
			t.Errorf("%s is there as %s and as %s", a.Email, other, id)
		}
		emails[a.Email] = id
	}
	c.s.drain(t, uri)
	told := sink.audit(t, uri)
	secrets := []string{"correct horse battery staple", "$argon2"}
	for _, r := range c.people {
		for _, change := range r.changes {
			told.has(t, change)
		}
		secrets = append(append(secrets, r.secrets...), r.email)
	}
	sink.holdsNone(t, uri, slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return strings.Contains(s, "@") })) // an event names the email
	for name, log := range c.s.logs() {
		for _, secret := range secrets {
			if strings.Contains(log, secret) {
				t.Errorf("%s logs %q", name, secret)
			}
		}
	}
}

// visit asks one of the crowd what is left of what they were told, and returns what
// is wrong.
func (c *crowd) visit(r *resident) (wrong string) {
	if !r.up {
		return ""
	}
	again, body := c.settled(r, "signup", "", credentials(r.email), http.StatusBadRequest, http.StatusCreated)
	in, _ := c.settled(r, "signin", "", credentials(r.email), http.StatusOK)
	switch {
	case in != http.StatusOK:
		return fmt.Sprintf("sign-in %d", in)
	case r.acknowledged && again != http.StatusBadRequest:
		return fmt.Sprintf("signed up a second time: %d %s", again, body)
	}
	if g := r.dead; g != nil {
		who, _ := c.settled(r, "currentuser", g.Token, "", http.StatusUnauthorized)
		refreshed, _ := c.settled(r, "refresh", "", `{"refreshToken":"`+g.RefreshToken+`"}`, http.StatusUnauthorized)
		if who != http.StatusUnauthorized || refreshed != http.StatusUnauthorized {
			return fmt.Sprintf("signed out: currentuser %d, refresh %d", who, refreshed)
		}
	}
	if r.kept != nil && (r.refreshing.IsZero() || time.Since(r.refreshing) < user.ReplayWindow) {
		who, _ := c.settled(r, "currentuser", r.kept.Token, "", http.StatusOK)
		refreshed, _ := c.settled(r, "refresh", "", `{"refreshToken":"`+r.kept.RefreshToken+`"}`, http.StatusOK)
		if who != http.StatusOK || refreshed != http.StatusOK {
			return fmt.Sprintf("signed in: currentuser %d, refresh %d", who, refreshed)
		}
	}
	if r.leaving != nil {
		out, _ := c.settled(r, "signout", r.leaving.Token, "", http.StatusOK)
		who, _ := c.settled(r, "currentuser", r.leaving.Token, "", http.StatusUnauthorized)
		if out != http.StatusOK || who != http.StatusUnauthorized {
			return fmt.Sprintf("signed out again: %d, currentuser %d", out, who)
		}
	}
	return ""
}
