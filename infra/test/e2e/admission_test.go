package e2e_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// Sixty sign-ins run at once, and one hash slot exists. Some sign-ins succeed and the others
// receive 503. Requests for the current user need no hash and must not wait for one.
//
// The test measures that wait in hashes, not in seconds, so that it holds on any machine. If
// every such request waited for one hash, their number could not exceed the number of hashes.
func TestHashConcurrency_OtherRequestsDoNotWait(t *testing.T) {
	slow := []string{"RATE_LIMIT=off", "HASH_CONCURRENCY=1", "HASH_MEMORY_KIB=16384", "HASH_TIME=16"} // one hash takes about 200 ms
	for name, start := range map[string]func(*testing.T) (url func(function string) string){
		"a process for each function": func(t *testing.T) func(string) string {
			s := start(t, mongotest.URI(t), slow...)
			return func(function string) string { return s.processes[function].URL }
		},
		"all functions in one process": func(t *testing.T) func(string) string {
			url, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"), slow...)
			t.Cleanup(interrupt)
			return func(string) string { return url }
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := start(t)
			status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url("signup")+"/api/users/signup", "", credentials("ann@example.com"))
			if err != nil || status != http.StatusCreated {
				t.Fatalf("sign-up: got %d %s %v, want 201", status, body, err)
			}
			tokens := parseTokens(t, body)

			burst := startSigninBurst(t, 60, url("signin"))
			select {
			case <-burst.firstRejected:
			case <-burst.done:
				t.Fatal("got no rejected sign-in of 60, want at least one")
			}
			responses := 0
			for !burst.finished() {
				status, _, body, err := e2e.Call(t.Context(), http.MethodGet, url("currentuser")+"/api/users/currentuser", tokens.Token, "")
				if err != nil || status != http.StatusOK || !strings.Contains(body, "ann@example.com") {
					t.Fatalf("currentuser: got %d %s %v, want 200 and the email", status, body, err)
				}
				if !burst.finished() {
					responses++
				}
			}
			if burst.accepted == 0 || burst.rejected == 0 || burst.accepted+burst.rejected != 60 {
				t.Errorf("got %d accepted and %d rejected sign-ins, want some of each and 60 in all", burst.accepted, burst.rejected)
			}
			if responses <= burst.accepted {
				t.Errorf("got %d responses of currentuser during %d hashes, want more responses than hashes", responses, burst.accepted)
			}
			t.Logf("%d of 60 sign-ins succeeded; currentuser sent %d responses meanwhile", burst.accepted, responses)
		})
	}
}

// A signinBurst is a number of concurrent sign-ins to one account.
type signinBurst struct {
	firstRejected chan struct{} // closed at the first 503: the hash queue is full
	done          chan struct{} // closed when every sign-in has a response

	accepted, rejected int // valid when done is closed
}

func startSigninBurst(t *testing.T, n int, url string) *signinBurst {
	burst := &signinBurst{firstRejected: make(chan struct{}), done: make(chan struct{})}
	reject := sync.OnceFunc(func() { close(burst.firstRejected) })
	var mu sync.Mutex
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			status, header, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signin", "", credentials("ann@example.com"))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && status == http.StatusOK:
				burst.accepted++
			case err == nil && status == http.StatusServiceUnavailable:
				burst.rejected++
				reject()
				if header.Get("Retry-After") != "1" || header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "no-store" ||
					body != `{"errors":[{"message":"The service is busy. Try again shortly."}]}` {
					t.Errorf("rejected sign-in: got %v %s, want Retry-After: 1 and the error body", header, body)
				}
			default:
				t.Errorf("sign-in: got %d %s %v, want 200 or 503", status, body, err)
			}
		})
	}
	go func() {
		group.Wait()
		close(burst.done)
	}()
	t.Cleanup(func() { <-burst.done })
	return burst
}

func (burst *signinBurst) finished() bool {
	select {
	case <-burst.done:
		return true
	default:
		return false
	}
}
