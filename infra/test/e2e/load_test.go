package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/infra/test/load/openloop"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestSignin_Overload checks the results of BenchmarkLoad that do not depend on the speed of
// the machine. Every request gets a response; some succeed, and the others get 503 with
// Retry-After and an error message. Memory stays within the container's. Requests for the
// current user, to a process of their own, all succeed.
func TestSignin_Overload(t *testing.T) {
	settings := []string{"HASH_MEMORY_KIB=19456", "HASH_TIME=8", "SESSION_LIMIT=2", "GOMAXPROCS=1"}
	s := start(t, mongotest.URI(t), append(settings, "GOMEMLIMIT=57MiB")...)
	overloaded := start(t, mongotest.Server(t).URI(), append(settings, "GOMEMLIMIT=230MiB")...)
	_, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	g := parseTokens(t, body)
	overloaded.post(t, "signup", "", credentials("ann@example.com"))
	var signins, currentUsers openloop.Result
	var group sync.WaitGroup
	group.Go(func() {
		signins = openloop.Send(func() (*http.Request, error) { return signinRequest(overloaded.url("signin"), "ann@example.com") }, 100, 3*time.Second)
	})
	group.Go(func() {
		currentUsers = openloop.Send(func() (*http.Request, error) { return currentUserRequest(s.url("currentuser"), g.Token) }, 20, 3*time.Second)
	})
	group.Wait()
	t.Logf("\n%-20s %s\n%-20s %s\n%-20s %s", "", header, "sign-ins", line(signins), "current users", line(currentUsers))
	served, rejected := signins.Count(http.StatusOK), signins.Count(http.StatusServiceUnavailable)
	malformed := slices.ContainsFunc(signins.Responses, func(r openloop.Response) bool {
		return r.Status != http.StatusOK && (r.Retry == "" || r.Error == "")
	})
	if served == 0 || rejected == 0 || served+rejected < len(signins.Responses) || signins.Unsent > 0 || malformed {
		t.Errorf("sign-ins: want 200 and 503 only, each 503 with Retry-After and a message; %d requests were not sent", signins.Unsent)
	}
	if n := currentUsers.Count(http.StatusOK); n == 0 || n < len(currentUsers.Responses) {
		t.Errorf("current users: want 200 only")
	}
	if runtime.GOOS == "linux" {
		for name, p := range map[string]*e2e.Process{"signin": overloaded.processes["signin"], "currentuser": s.processes["currentuser"]} {
			if peak, container := p.PeakMemory(t)>>20, map[string]int{"signin": 256, "currentuser": 64}[name]; peak > container {
				t.Errorf("%s: got a peak memory of %d MiB, want at most the %d of its container", name, peak, container)
			}
		}
	}
}

// BenchmarkLoad sends more requests than the system can serve and prints the results. It runs
// for less than a minute, against processes of its own:
//
//	go test -run=^$ -bench=Load -benchtime=1x ./infra/test/e2e
//
// A function has one core and the memory limit of its container. The clients run on the same
// machine, and so do the databases. They are embedded databases, which are slow and execute
// one command at a time. So signin has a database of its own; otherwise currentuser would wait
// in its queue. A hash has four times the passes of production; otherwise the database would
// be the bottleneck. Compare only rows of one run.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		settings := []string{"HASH_MEMORY_KIB=19456", "HASH_TIME=8", "SESSION_LIMIT=2", "GOMAXPROCS=1"}
		s := start(b, mongotest.URI(b), append(settings, "GOMEMLIMIT=57MiB")...)
		overloaded := start(b, mongotest.Server(b).URI(), append(settings, "GOMEMLIMIT=230MiB")...)
		_, _, body := s.post(b, "signup", "", credentials("ann@example.com"))
		g := parseTokens(b, body)
		current := func() (*http.Request, error) { return currentUserRequest(s.url("currentuser"), g.Token) }
		forged := func() (*http.Request, error) {
			return currentUserRequest(s.url("currentuser"), g.Token[:len(g.Token)-8]+"AAAAAAAA")
		}
		for n := range userCount {
			overloaded.post(b, "signup", "", credentials(emailOf(n)))
		}
		var next atomic.Int64
		signin := func() (*http.Request, error) {
			return signinRequest(overloaded.url("signin"), emailOf(int(next.Add(1))%userCount))
		}
		table := &strings.Builder{}
		fmt.Fprintf(table, "\n%-58s %s\n", "", header)
		row := func(name string, r openloop.Result) { fmt.Fprintf(table, "%-58s %s\n", name, line(r)) }

		openloop.Send(signin, 4, time.Second) // warm
		openloop.Send(current, 100, time.Second)
		rate := openloop.Send(signin, 100, 3*time.Second)
		capacity := float64(rate.Count(http.StatusOK)) / 4 // 3 s, and a second for the requests that waited
		row("sign-ins, more than signin can hash", rate)

		alone := openloop.Send(current, 200, 6*time.Second)
		row("currentuser, alone", alone)

		var overload openloop.Result
		var group sync.WaitGroup
		group.Go(func() { overload = openloop.Send(signin, 10*capacity, 8*time.Second) })
		time.Sleep(time.Second)
		meanwhile := openloop.Send(current, 200, 6*time.Second)
		group.Wait()
		row("sign-ins, ten times as many", overload)
		row("currentuser meanwhile", meanwhile)

		group.Go(func() { overload = openloop.Send(forged, 1667, 8*time.Second) })
		time.Sleep(time.Second)
		meanwhile = openloop.Send(current, 200, 6*time.Second)
		group.Wait()
		row("100,000 forged tokens per minute", overload)
		row("currentuser meanwhile", meanwhile)

		row("100,000 valid tokens per minute", openloop.Send(current, 1667, 5*time.Second))

		closed := make(chan time.Duration)
		go func() { closed <- trickle(b, overloaded.url("signin"), 1000) }()
		time.Sleep(500 * time.Millisecond)
		row("sign-ins beside 1,000 slow clients", openloop.Send(signin, capacity/2, 3*time.Second))
		fmt.Fprintf(table, "the server closed the last slow connection after %.1f s\n", (<-closed).Seconds())
		fmt.Fprintf(table, "peak memory: signin %d MB, currentuser %d MB\n", overloaded.processes["signin"].PeakMemory(b)>>20, s.processes["currentuser"].PeakMemory(b)>>20)
		fmt.Println(table) // b.Log prints ten lines at most
	}
}

// userCount is the number of users in the database of signin.
const userCount = 20

func emailOf(n int) string { return fmt.Sprintf("u%d@example.com", n) }

const header = "   sent    200    503   none      p50      p99  longest rejection"

// line returns the results of requests below the header. A forged token that receives 401 counts as served.
func line(r openloop.Result) string {
	served, rejected := []int{http.StatusOK, http.StatusUnauthorized}, []int{http.StatusServiceUnavailable, http.StatusTooManyRequests}
	return fmt.Sprintf("%7d %6d %6d %6d %8s %8s %18s", len(r.Responses)+r.Unsent, r.Count(served...), r.Count(rejected...), r.Count(0)+r.Unsent,
		ms(r.Quantile(.5, served...)), ms(r.Quantile(.99, served...)), ms(r.Quantile(1, rejected...)))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func currentUserRequest(url, token string) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodGet, url+"/api/users/currentuser", nil)
	if err == nil {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r, err
}

func signinRequest(url, email string) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodPost, url+"/api/users/signin", strings.NewReader(credentials(email)))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// trickle opens connections and sends one byte on each every half second, half of them in the
// headers and half in the body. It returns the time until the server closed the last one.
func trickle(b *testing.B, url string, connections int) (longest time.Duration) {
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range connections {
		group.Go(func() {
			began := time.Now()
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			sent := "POST /api/users/signin HTTP/1.1\r\nHost: x\r\n"
			if i%2 == 0 {
				sent += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
			}
			io.WriteString(c, sent)
			go func() {
				for time.Since(began) < 30*time.Second {
					time.Sleep(500 * time.Millisecond)
					if _, err := io.WriteString(c, "x"); err != nil {
						return
					}
				}
			}()
			io.Copy(io.Discard, c)
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, time.Since(began))
		})
	}
	group.Wait()
	return longest
}
