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

// A workload runs simulated users that sign up, sign in, refresh and sign out during a
// fault. Each user records its responses. A response that the fault does not explain, or
// that takes over five seconds, fails the test.
type workload struct {
	system *system
	// killsFunctions says that the test kills functions, so a connection may break. A
	// timeout is still an error.
	killsFunctions bool

	stop chan struct{}
	done sync.WaitGroup

	mu         sync.Mutex
	users      []*simulatedUser
	completed  int            // users that reached the end of their scenario
	counts     map[string]int // responses by function and status
	longest    time.Duration
	unexpected map[string]int // unexpected responses, by description
}

// A simulatedUser stores the state that the responses to one user imply.
type simulatedUser struct {
	email   string
	address string // sent in X-Forwarded-For

	signupSent, acknowledged bool       // a sign-up was sent; a response was 201
	active                   *tokenPair // the newest tokens of the session that must stay valid
	revoked                  *tokenPair // the tokens of the session whose sign-out returned 200
	unansweredRefresh        time.Time  // the time of the first try of a refresh without a response
	unansweredSignout        *tokenPair // the tokens of a sign-out without a response
	changes                  []change   // acknowledged, so their events must be delivered
	secrets                  []string
}

// startWorkload starts size workers. Each runs one simulated user after another, and
// pauses before every request.
func startWorkload(s *system, size int, pause time.Duration, killsFunctions bool) *workload {
	w := &workload{system: s, killsFunctions: killsFunctions, stop: make(chan struct{}), counts: map[string]int{}, unexpected: map[string]int{}}
	for worker := range size {
		w.done.Go(func() {
			for i := 0; !w.stopped(pause); i++ {
				u := &simulatedUser{email: fmt.Sprintf("u%d-%d@example.com", worker, i), address: fmt.Sprintf("2001:db8:%x:%x::1", worker, i)}
				w.mu.Lock()
				w.users = append(w.users, u)
				w.mu.Unlock()
				w.runScenario(u, pause)
				w.mu.Lock()
				w.completed++
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *workload) stopped(pause time.Duration) bool {
	select {
	case <-w.stop:
		return true
	case <-time.After(pause):
		return false
	}
}

// awaitCompleted waits until more users have completed their scenario. It fails the test
// after 30 seconds.
func (w *workload) awaitCompleted(t *testing.T, more int) {
	t.Helper()
	completed := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.completed
	}
	deadline := time.Now().Add(30 * time.Second)
	for want := completed() + more; completed() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.stopAndWait()
			w.report(t)
			t.Fatalf("got fewer than %d completed scenarios in 30 s: the system did not recover", more)
		}
	}
}

// stopAndWait lets every user finish its request, and waits for all of them.
func (w *workload) stopAndWait() {
	close(w.stop)
	w.done.Wait()
}

// runScenario runs the scenario of one user. It retries each step on 429, on 503
// and without a response.
func (w *workload) runScenario(u *simulatedUser, pause time.Duration) {
	u.signupSent = true
	up, ok := w.retry(pause, func() (int, string) {
		return w.call(u, "signup", "", credentials(u.email), http.StatusCreated, http.StatusBadRequest)
	})
	if !ok {
		return
	}
	if up.status == http.StatusCreated {
		u.acknowledged = true
		w.recordSession(u, up.tokens, signedUp)
	}
	// On 400 an earlier try without a response created the account, so sign-in must work.
	in, ok := w.retry(pause, func() (int, string) {
		return w.call(u, "signin", "", credentials(u.email), http.StatusOK)
	})
	if !ok || in.status != http.StatusOK {
		return
	}
	if w.recordSession(u, in.tokens, signedIn); up.status != http.StatusCreated {
		return
	}
	for range 2 {
		if !w.refresh(u, pause) {
			return
		}
	}
	if _, ok := w.retry(pause, func() (int, string) { return w.call(u, "currentuser", u.active.Token, "", http.StatusOK) }); !ok {
		return
	}
	// Sign out the session of the sign-up. The session of the sign-in must stay valid.
	u.unansweredSignout = &up.tokens
	if _, ok := w.retry(pause, func() (int, string) { return w.call(u, "signout", up.tokens.Token, "", http.StatusOK) }); !ok {
		return
	}
	u.unansweredSignout, u.revoked = nil, &up.tokens
	w.recordChange(u, up.tokens, signedOut)
	w.retry(pause, func() (int, string) { return w.call(u, "currentuser", up.tokens.Token, "", http.StatusUnauthorized) })
}

// refresh exchanges the active refresh token and reports whether the session continues. A
// client that lost the response may repeat the request for two minutes. A later repetition
// counts as theft and ends the session.
func (w *workload) refresh(u *simulatedUser, pause time.Duration) bool {
	body, began, want := `{"refreshToken":"`+u.active.RefreshToken+`"}`, time.Now(), []int{http.StatusOK}
	next, ok := w.retry(pause, func() (int, string) {
		if time.Since(began) > user.LostAnswerWindow-httpClient.Timeout { // this call may take that long
			want = []int{http.StatusOK, http.StatusUnauthorized}
		}
		return w.call(u, "refresh", "", body, want...)
	})
	switch {
	case !ok:
		u.unansweredRefresh = began
		return false
	case next.status != http.StatusOK:
		u.active = nil
		return false
	}
	u.active, u.secrets = &next.tokens, append(u.secrets, next.tokens.secrets()...)
	return true
}

func (w *workload) recordSession(u *simulatedUser, tokens tokenPair, eventType string) {
	u.active = &tokens
	u.secrets = append(u.secrets, tokens.secrets()...)
	w.recordChange(u, tokens, eventType)
}

func (w *workload) recordChange(u *simulatedUser, tokens tokenPair, eventType string) {
	session, err := parseSession(tokens.Token)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.unexpected[err.Error()]++
		return
	}
	u.changes = append(u.changes, session.withType(eventType))
}

// responses returns the number of responses so far that had a status.
func (w *workload) responses(status int) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, m := range w.counts {
		if strings.HasSuffix(key, fmt.Sprint(" ", status)) {
			n += m
		}
	}
	return n
}

type apiResponse struct {
	status int
	tokens tokenPair
}

// retry repeats a call until it gets a response other than 429 and 503. It returns false if
// the workload stops first.
func (w *workload) retry(pause time.Duration, call func() (int, string)) (a apiResponse, ok bool) {
	for !w.stopped(pause) {
		status, body := call()
		if status == 0 || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
			time.Sleep(250 * time.Millisecond) // a quarter of Retry-After, to send more requests during the fault
			continue
		}
		a.status = status
		return a, json.Unmarshal([]byte(body), &a.tokens) == nil
	}
	return a, false
}

// httpClient allows five seconds for a response: the upper bound that the API promises.
var httpClient = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// call calls a function and records an unexpected response. The status must be one of want,
// or 429 or 503 with Retry-After and an error body. Without a response, call returns status 0.
func (w *workload) call(u *simulatedUser, function, bearer, body string, want ...int) (int, string) {
	method := http.MethodPost
	if function == "currentuser" {
		method = http.MethodGet
	}
	request, err := http.NewRequest(method, w.system.url(function)+"/api/users/"+function, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Header.Set("X-Forwarded-For", u.address)
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

	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, took)
	if err != nil {
		var netErr net.Error
		w.counts[function+" none"]++
		if !w.killsFunctions || errors.As(err, &netErr) && netErr.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
			w.unexpected[fmt.Sprintf("%s: got no response after %.1f s: %v", function, took.Seconds(), errors.Unwrap(err))]++
		}
		return 0, ""
	}
	status := response.StatusCode
	w.counts[fmt.Sprint(function, " ", status)]++
	busy := status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
	switch {
	case busy && response.Header.Get("Retry-After") != "" && strings.HasPrefix(string(read), `{"errors":[{"message":"`):
	case slices.Contains(want, status):
	default:
		w.unexpected[fmt.Sprintf("%s: got %d %s %v, want status %v", function, status, read, response.Header, want)]++
	}
	return status, string(read)
}

// callUntilAvailable calls a function when no fault is active. It accepts 503 for up to two
// seconds, because a busy machine may still return it.
func (w *workload) callUntilAvailable(u *simulatedUser, function, bearer, body string, want ...int) (status int, answer string) {
	for range 8 {
		status, answer = w.call(u, function, bearer, body, want...)
		if status != http.StatusServiceUnavailable {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	return status, answer
}

// report fails the test for each unexpected response, and logs the number of responses.
func (w *workload) report(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for description, n := range w.unexpected {
		t.Errorf("%d × %s", n, description)
	}
	var counts []string
	for _, key := range slices.Sorted(maps.Keys(w.counts)) {
		counts = append(counts, fmt.Sprintf("%s × %d", key, w.counts[key]))
	}
	t.Logf("%d users; %s; the longest call took %.1f s", len(w.users), strings.Join(counts, ", "), w.longest.Seconds())
}

// checkInvariants fails the test unless these hold after a fault:
//
//   - A user whose sign-up returned 201 can sign in. Any other user can sign in or sign up.
//   - A user whose refresh returned 200 can refresh again. Any other user can repeat it.
//   - After a sign-out that returned 200, both tokens of the session are rejected.
//   - No account exists twice.
//   - The sink received an event for each of these changes, and no other event.
//   - No log contains a secret.
//
// checkInvariants triggers the relay for pending events. The workload must have stopped.
func (w *workload) checkInvariants(t *testing.T, uri string, sink *sink) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	users := make(chan *simulatedUser)
	for range 4 {
		group.Go(func() {
			for u := range users {
				if problem := w.checkUser(u); problem != "" {
					mu.Lock()
					t.Errorf("%s (acknowledged: %v): %s", u.email, u.acknowledged, problem)
					mu.Unlock()
				}
			}
		})
	}
	for _, u := range w.users {
		users <- u
	}
	close(users)
	group.Wait()
	w.report(t)

	emails := map[string]string{}
	for id, a := range accounts(t, uri) {
		if other, twice := emails[a.Email]; twice {
			t.Errorf("got two accounts of %s, %s and %s, want one", a.Email, other, id)
		}
		emails[a.Email] = id
	}
	w.system.drainOutbox(t, uri)
	delivered := sink.checkDelivered(t, uri)
	secrets := []string{"correct horse battery staple", "$argon2"}
	for _, u := range w.users {
		for _, change := range u.changes {
			// A database that is killed after the insert of a sign-up forgets it for retries. The
			// driver's retry then finds its own account, and the sign-up opens a second session.
			if _, again := delivered[change.withType(signedIn)]; !again || change.eventType != signedUp {
				delivered.require(t, change)
			}
		}
		secrets = append(append(secrets, u.secrets...), u.email)
	}
	sink.checkNoSecrets(t, uri, slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return strings.Contains(s, "@") })) // events contain the email
	for name, log := range w.system.logs() {
		for _, secret := range secrets {
			if strings.Contains(log, secret) {
				t.Errorf("the log of %s contains the secret %q", name, secret)
			}
		}
	}
}

// checkUser compares the account and the sessions of a user with its responses. It returns
// a description of the first difference, or "".
func (w *workload) checkUser(u *simulatedUser) (problem string) {
	if !u.signupSent {
		return ""
	}
	again, body := w.callUntilAvailable(u, "signup", "", credentials(u.email), http.StatusBadRequest, http.StatusCreated)
	in, _ := w.callUntilAvailable(u, "signin", "", credentials(u.email), http.StatusOK)
	switch {
	case in != http.StatusOK:
		return fmt.Sprintf("sign-in: got %d, want 200", in)
	case u.acknowledged && again != http.StatusBadRequest:
		return fmt.Sprintf("second sign-up: got %d %s, want 400", again, body)
	}
	if tokens := u.revoked; tokens != nil {
		current, _ := w.callUntilAvailable(u, "currentuser", tokens.Token, "", http.StatusUnauthorized)
		refreshed, _ := w.callUntilAvailable(u, "refresh", "", `{"refreshToken":"`+tokens.RefreshToken+`"}`, http.StatusUnauthorized)
		if current != http.StatusUnauthorized || refreshed != http.StatusUnauthorized {
			return fmt.Sprintf("after sign-out: got currentuser %d, refresh %d, want 401", current, refreshed)
		}
	}
	if u.active != nil && (u.unansweredRefresh.IsZero() || time.Since(u.unansweredRefresh) < user.ReplayWindow) {
		current, _ := w.callUntilAvailable(u, "currentuser", u.active.Token, "", http.StatusOK)
		refreshed, _ := w.callUntilAvailable(u, "refresh", "", `{"refreshToken":"`+u.active.RefreshToken+`"}`, http.StatusOK)
		if current != http.StatusOK || refreshed != http.StatusOK {
			return fmt.Sprintf("active session: got currentuser %d, refresh %d, want 200", current, refreshed)
		}
	}
	if u.unansweredSignout != nil {
		out, _ := w.callUntilAvailable(u, "signout", u.unansweredSignout.Token, "", http.StatusOK)
		current, _ := w.callUntilAvailable(u, "currentuser", u.unansweredSignout.Token, "", http.StatusUnauthorized)
		if out != http.StatusOK || current != http.StatusUnauthorized {
			return fmt.Sprintf("repeated sign-out: got signout %d, currentuser %d, want 200 and 401", out, current)
		}
	}
	return ""
}
