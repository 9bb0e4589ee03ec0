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

// Sixty people sign in at once where there is room for one hash. Who is let in is
// answered, who is not is told so at once, and who needs no hash notices nothing of
// it. The last is measured in hashes, not in seconds, so that it holds on any
// machine: somebody who asks again and again, and had to wait for even one hash
// each time, could be answered no more often than hashes are made.
func TestWhoNeedsNoHashIsNotHeldUpByThoseWhoDo(t *testing.T) {
	slow := []string{"RATE_LIMIT=off", "HASH_CONCURRENCY=1", "HASH_MEMORY_KIB=16384", "HASH_TIME=16"} // some 200 ms each
	for name, start := range map[string]func(*testing.T) (url func(function string) string){
		"in a process of its own": func(t *testing.T) func(string) string {
			s := start(t, mongotest.URI(t), slow...)
			return func(function string) string { return s.processes[function].URL }
		},
		"in the same process": func(t *testing.T) func(string) string {
			url, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"), slow...)
			t.Cleanup(interrupt)
			return func(string) string { return url }
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := start(t)
			status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url("signup")+"/api/users/signup", "", credentials("ann@example.com"))
			if err != nil || status != http.StatusCreated {
				t.Fatal(status, body, err)
			}
			g := parseTokens(t, body)

			f := startSigninBurst(t, 60, url("signin"))
			select {
			case <-f.firstRejected:
			case <-f.done:
				t.Fatal("all found room")
			}
			answered := 0
			for !f.finished() {
				status, _, body, err := e2e.Call(t.Context(), http.MethodGet, url("currentuser")+"/api/users/currentuser", g.Token, "")
				if err != nil || status != http.StatusOK || !strings.Contains(body, "ann@example.com") {
					t.Fatalf("currentuser: %d %s %v", status, body, err)
				}
				if !f.finished() {
					answered++
				}
			}
			if f.served == 0 || f.rejected == 0 || f.served+f.rejected != 60 {
				t.Errorf("of 60 sign-ins %d were served and %d refused", f.served, f.rejected)
			}
			if answered <= f.served {
				t.Errorf("currentuser was answered %d times while %d hashes were made", answered, f.served)
			}
			t.Logf("of 60 sign-ins %d were served; meanwhile currentuser was answered %d times", f.served, answered)
		})
	}
}

// A flooding is many sign-ins at once.
type signinBurst struct {
	firstRejected chan struct{} // closed when the first was refused: from then on all room is taken
	done          chan struct{} // closed when all were answered

	served, rejected int // read them when it is over
}

func startSigninBurst(t *testing.T, n int, url string) *signinBurst {
	f := &signinBurst{firstRejected: make(chan struct{}), done: make(chan struct{})}
	fill := sync.OnceFunc(func() { close(f.firstRejected) })
	var mu sync.Mutex
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			status, header, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signin", "", credentials("ann@example.com"))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && status == http.StatusOK:
				f.served++
			case err == nil && status == http.StatusServiceUnavailable:
				f.rejected++
				fill()
				if header.Get("Retry-After") != "1" || header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "no-store" ||
					body != `{"errors":[{"message":"The service is busy. Try again shortly."}]}` {
					t.Errorf("a sign-in that is refused: %v %s", header, body)
				}
			default:
				t.Errorf("a sign-in: %d %s %v", status, body, err)
			}
		})
	}
	go func() {
		group.Wait()
		close(f.done)
	}()
	t.Cleanup(func() { <-f.done })
	return f
}

func (f *signinBurst) finished() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}
