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
type workload struct {
	system *system
	// mortal: functions are killed, so a connection may break. A call that gets no
	// answer in time is a fault all the same.
	killsFunctions bool

	stop chan struct{}
	done sync.WaitGroup

	mu         sync.Mutex
	users      []*simulatedUser
	completed  int            // lived to their end
	counts     map[string]int // of answers, by function and status
	longest    time.Duration
	unexpected map[string]int
}

// A resident is one of the crowd, with what was acknowledged and what was not.
type simulatedUser struct {
	email   string
	address string // the address

	signupSent, acknowledged bool       // a sign-up was sent; it was answered with 201
	active                   *tokenPair // a session that must go on: its newest tokens
	revoked                  *tokenPair // a session whose sign-out was answered with 200
	unansweredRefresh        time.Time  // when a refresh was sent that was not answered
	unansweredSignout        *tokenPair // one whose sign-out was sent and not answered
	changes                  []change   // what must have been told
	secrets                  []string
}

// newCrowd sets people in motion.
func startWorkload(s *system, size int, pause time.Duration, mortal bool) *workload {
	c := &workload{system: s, killsFunctions: mortal, stop: make(chan struct{}), counts: map[string]int{}, unexpected: map[string]int{}}
	for worker := range size {
		c.done.Go(func() {
			for i := 0; !c.stopped(pause); i++ {
				r := &simulatedUser{email: fmt.Sprintf("u%d-%d@example.com", worker, i), address: fmt.Sprintf("2001:db8:%x:%x::1", worker, i)}
				c.mu.Lock()
				c.users = append(c.users, r)
				c.mu.Unlock()
				c.runScenario(r, pause)
				c.mu.Lock()
				c.completed++
				c.mu.Unlock()
			}
		})
	}
	return c
}

func (c *workload) stopped(pause time.Duration) bool {
	select {
	case <-c.stop:
		return true
	case <-time.After(pause):
		return false
	}
}

// await waits until so many more have lived to their end.
func (c *workload) awaitCompleted(t *testing.T, more int) {
	t.Helper()
	lives := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.completed
	}
	deadline := time.Now().Add(30 * time.Second)
	for enough := lives() + more; lives() < enough; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.stopAndWait()
			c.report(t)
			t.Fatal("the system does not recover")
		}
	}
}

// end has everybody finish the call they are in.
func (c *workload) stopAndWait() {
	close(c.stop)
	c.done.Wait()
}

// live is a life: each step is tried until it is answered.
func (c *workload) runScenario(r *simulatedUser, pause time.Duration) {
	r.signupSent = true
	up, ok := c.retry(pause, func() (int, string) {
		return c.call(r, "signup", "", credentials(r.email), http.StatusCreated, http.StatusBadRequest)
	})
	if !ok {
		return
	}
	if up.status == http.StatusCreated {
		r.acknowledged = true
		c.recordSession(r, up.tokens, signedUp)
	}
	// one who was not answered is a member all the same: the second try said so
	in, ok := c.retry(pause, func() (int, string) {
		return c.call(r, "signin", "", credentials(r.email), http.StatusOK)
	})
	if !ok || in.status != http.StatusOK {
		return
	}
	if c.recordSession(r, in.tokens, signedIn); up.status != http.StatusCreated {
		return
	}
	for range 2 {
		if !c.refresh(r, pause) {
			return
		}
	}
	if _, ok := c.retry(pause, func() (int, string) { return c.call(r, "currentuser", r.active.Token, "", http.StatusOK) }); !ok {
		return
	}
	// the session of the sign-up ends, that of the sign-in goes on
	r.unansweredSignout = &up.tokens
	if _, ok := c.retry(pause, func() (int, string) { return c.call(r, "signout", up.tokens.Token, "", http.StatusOK) }); !ok {
		return
	}
	r.unansweredSignout, r.revoked = nil, &up.tokens
	c.recordChange(r, up.tokens, signedOut)
	c.retry(pause, func() (int, string) { return c.call(r, "currentuser", up.tokens.Token, "", http.StatusUnauthorized) })
}

// refresh exchanges the kept tokens. One whose answer is lost may be repeated for ten
// seconds; who comes later is taken for a thief and has to sign in again.
func (c *workload) refresh(r *simulatedUser, pause time.Duration) bool {
	body, began, want := `{"refreshToken":"`+r.active.RefreshToken+`"}`, time.Now(), []int{http.StatusOK}
	next, ok := c.retry(pause, func() (int, string) {
		if time.Since(began) > user.ReplayWindow-5*time.Second { // before this call has had its answer
			want = []int{http.StatusOK, http.StatusUnauthorized}
		}
		return c.call(r, "refresh", "", body, want...)
	})
	switch {
	case !ok:
		r.unansweredRefresh = began
		return false
	case next.status != http.StatusOK:
		r.active = nil
		return false
	}
	r.active, r.secrets = &next.tokens, append(r.secrets, next.tokens.secrets()...)
	return true
}

func (c *workload) recordSession(r *simulatedUser, g tokenPair, kind string) {
	r.active = &g
	r.secrets = append(r.secrets, g.secrets()...)
	c.recordChange(r, g, kind)
}

func (c *workload) recordChange(r *simulatedUser, g tokenPair, kind string) {
	of, err := parseSession(g.Token)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.unexpected[err.Error()]++
		return
	}
	r.changes = append(r.changes, of.withType(kind))
}

// told counts the answers of a status so far.
func (c *workload) responses(status int) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, m := range c.counts {
		if strings.HasSuffix(kind, fmt.Sprint(" ", status)) {
			n += m
		}
	}
	return n
}

type apiResponse struct {
	status int
	tokens tokenPair
}

// insist repeats a call until it is answered, or the crowd ends: then it returns
// false.
func (c *workload) retry(pause time.Duration, call func() (int, string)) (a apiResponse, ok bool) {
	for !c.stopped(pause) {
		status, body := call()
		if status == 0 || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
			time.Sleep(250 * time.Millisecond) // they were told to wait a second
			continue
		}
		a.status = status
		return a, json.Unmarshal([]byte(body), &a.tokens) == nil
	}
	return a, false
}

// patient waits as long as callers are promised that they need to.
var httpClient = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// call calls a function, and notes what is strange of the answer. It returns status
// 0 where there was none. What may come besides what is wanted is an honest 503 or 429.
func (c *workload) call(r *simulatedUser, function, bearer, body string, want ...int) (int, string) {
	method := http.MethodPost
	if function == "currentuser" {
		method = http.MethodGet
	}
	request, err := http.NewRequest(method, c.system.url(function)+"/api/users/"+function, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("X-Forwarded-For", r.address)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	began := time.Now()
	response, err := httpClient.Do(request)
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
		if !c.killsFunctions || errors.As(err, &late) && late.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
			c.unexpected[fmt.Sprintf("%s after %.1f s: %v", function, took.Seconds(), errors.Unwrap(err))]++
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
		c.unexpected[fmt.Sprintf("%s: %d %s %v", function, status, read, response.Header)]++
	}
	return status, string(read)
}

// settled is call where all is well: a machine that is busy may still say so, for a
// while.
func (c *workload) callUntilAvailable(r *simulatedUser, function, bearer, body string, want ...int) (status int, answer string) {
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
func (c *workload) report(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, n := range c.unexpected {
		t.Errorf("%d × %s", n, what)
	}
	var counts []string
	for _, kind := range slices.Sorted(maps.Keys(c.counts)) {
		counts = append(counts, fmt.Sprintf("%s × %d", kind, c.counts[kind]))
	}
	t.Logf("%d people; %s; the longest call took %.1f s", len(c.users), strings.Join(counts, ", "), c.longest.Seconds())
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
func (c *workload) checkInvariants(t *testing.T, uri string, sink *sink) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	people := make(chan *simulatedUser)
	for range 4 {
		group.Go(func() {
			for r := range people {
				if wrong := c.checkUser(r); wrong != "" {
					mu.Lock()
					t.Errorf("%s (acknowledged: %v): %s", r.email, r.acknowledged, wrong)
					mu.Unlock()
				}
			}
		})
	}
	for _, r := range c.users {
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
	c.system.drainOutbox(t, uri)
	told := sink.checkDelivered(t, uri)
	secrets := []string{"correct horse battery staple", "$argon2"}
	for _, r := range c.users {
		for _, change := range r.changes {
			told.require(t, change)
		}
		secrets = append(append(secrets, r.secrets...), r.email)
	}
	sink.checkNoSecrets(t, uri, slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return strings.Contains(s, "@") })) // an event names the email
	for name, log := range c.system.logs() {
		for _, secret := range secrets {
			if strings.Contains(log, secret) {
				t.Errorf("%s logs %q", name, secret)
			}
		}
	}
}

// visit asks one of the crowd what is left of what they were told, and returns what
// is wrong.
func (c *workload) checkUser(r *simulatedUser) (wrong string) {
	if !r.signupSent {
		return ""
	}
	again, body := c.callUntilAvailable(r, "signup", "", credentials(r.email), http.StatusBadRequest, http.StatusCreated)
	in, _ := c.callUntilAvailable(r, "signin", "", credentials(r.email), http.StatusOK)
	switch {
	case in != http.StatusOK:
		return fmt.Sprintf("sign-in %d", in)
	case r.acknowledged && again != http.StatusBadRequest:
		return fmt.Sprintf("signed up a second time: %d %s", again, body)
	}
	if g := r.revoked; g != nil {
		who, _ := c.callUntilAvailable(r, "currentuser", g.Token, "", http.StatusUnauthorized)
		refreshed, _ := c.callUntilAvailable(r, "refresh", "", `{"refreshToken":"`+g.RefreshToken+`"}`, http.StatusUnauthorized)
		if who != http.StatusUnauthorized || refreshed != http.StatusUnauthorized {
			return fmt.Sprintf("signed out: currentuser %d, refresh %d", who, refreshed)
		}
	}
	if r.active != nil && (r.unansweredRefresh.IsZero() || time.Since(r.unansweredRefresh) < user.ReplayWindow) {
		who, _ := c.callUntilAvailable(r, "currentuser", r.active.Token, "", http.StatusOK)
		refreshed, _ := c.callUntilAvailable(r, "refresh", "", `{"refreshToken":"`+r.active.RefreshToken+`"}`, http.StatusOK)
		if who != http.StatusOK || refreshed != http.StatusOK {
			return fmt.Sprintf("signed in: currentuser %d, refresh %d", who, refreshed)
		}
	}
	if r.unansweredSignout != nil {
		out, _ := c.callUntilAvailable(r, "signout", r.unansweredSignout.Token, "", http.StatusOK)
		who, _ := c.callUntilAvailable(r, "currentuser", r.unansweredSignout.Token, "", http.StatusUnauthorized)
		if out != http.StatusOK || who != http.StatusUnauthorized {
			return fmt.Sprintf("signed out again: %d, currentuser %d", out, who)
		}
	}
	return ""
}
