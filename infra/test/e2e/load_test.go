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
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestSignin_Overload is what of BenchmarkLoad can be said without a clock:
// who is refused is told honestly, and nobody is left without an answer; some are served
// all the same; the memory is that of the container; and who asks for the current user,
// of a process of its own, is none of those who are refused.
func TestSignin_Overload(t *testing.T) {
	settings := []string{"HASH_MEMORY_KIB=19456", "HASH_TIME=8", "SESSION_LIMIT=2", "GOMAXPROCS=1"}
	s := start(t, mongotest.URI(t), append(settings, "GOMEMLIMIT=57MiB")...)
	flooded := start(t, mongotest.Server(t).URI(), append(settings, "GOMEMLIMIT=230MiB")...)
	_, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	g := grant(t, body)
	flooded.post(t, "signup", "", credentials("ann@example.com"))
	var flood, beside measured
	var group sync.WaitGroup
	group.Go(func() {
		flood = offer(func() (*http.Request, error) { return signingIn(flooded.url("signin"), "ann@example.com") }, 100, 3*time.Second)
	})
	group.Go(func() {
		beside = offer(func() (*http.Request, error) { return asking(s.url("currentuser"), g.Token) }, 20, 3*time.Second)
	})
	group.Wait()
	t.Logf("\n%-20s %s\n%-20s %s\n%-20s %s", "", header, "sign-ins", flood, "current users", beside)
	served, refused := flood.statuses[http.StatusOK], flood.statuses[http.StatusServiceUnavailable]
	if served == 0 || refused == 0 || len(flood.statuses) > 2 || flood.unstarted+flood.curt > 0 {
		t.Errorf("sign-ins: %v, %d of them refused without a word", flood.statuses, flood.curt)
	}
	if len(beside.statuses) != 1 || beside.statuses[http.StatusOK] == 0 {
		t.Errorf("current users: %v", beside.statuses)
	}
	if runtime.GOOS == "linux" {
		for name, p := range map[string]*e2e.Process{"signin": flooded.all["signin"], "currentuser": s.all["currentuser"]} {
			if peak, container := p.PeakMemory(t)>>20, map[string]int{"signin": 256, "currentuser": 64}[name]; peak > container {
				t.Errorf("%s: %d MiB were resident, and its container has %d", name, peak, container)
			}
		}
	}
}

// BenchmarkLoad puts more on the system than it can do and prints what becomes of it.
// It runs for less than a minute, against processes of its own:
//
//	go test -run=^$ -bench=Load -benchtime=1x ./infra/test/e2e
//
// A function has one core and the memory limit of its container. All that calls runs
// on the same machine, and so do the databases, which are the embedded ones: slow, and
// one command at a time. So those who sign in have one of their own, or currentuser
// would stand in its line, and a hash has four times the passes of production, or the
// database would be what there is too little of. Compare the lines of one run.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		settings := []string{"HASH_MEMORY_KIB=19456", "HASH_TIME=8", "SESSION_LIMIT=2", "GOMAXPROCS=1"}
		s := start(b, mongotest.URI(b), append(settings, "GOMEMLIMIT=57MiB")...)
		flooded := start(b, mongotest.Server(b).URI(), append(settings, "GOMEMLIMIT=230MiB")...)
		_, _, body := s.post(b, "signup", "", credentials("ann@example.com"))
		g := grant(b, body)
		who := func() (*http.Request, error) { return asking(s.url("currentuser"), g.Token) }
		forged := func() (*http.Request, error) {
			return asking(s.url("currentuser"), g.Token[:len(g.Token)-8]+"AAAAAAAA")
		}
		for n := range people {
			flooded.post(b, "signup", "", credentials(emailOf(n)))
		}
		var turn atomic.Int64
		in := func() (*http.Request, error) {
			return signingIn(flooded.url("signin"), emailOf(int(turn.Add(1))%people))
		}
		table := &strings.Builder{}
		fmt.Fprintf(table, "\n%-58s %s\n", "", header)
		line := func(name string, m measured) { fmt.Fprintf(table, "%-58s %s\n", name, m) }

		offer(in, 4, time.Second) // warm
		offer(who, 100, time.Second)
		pace := offer(in, 100, 3*time.Second)
		able := float64(pace.statuses[http.StatusOK]) / 4 // the last second is of those who waited
		line("sign-ins, more than can be hashed", pace)

		alone := offer(who, 200, 6*time.Second)
		line("currentuser, alone", alone)

		var flood measured
		var group sync.WaitGroup
		group.Go(func() { flood = offer(in, 10*able, 8*time.Second) })
		time.Sleep(time.Second)
		beside := offer(who, 200, 6*time.Second)
		group.Wait()
		line("sign-ins, ten times as many", flood)
		line("currentuser meanwhile", beside)

		group.Go(func() { flood = offer(forged, 1667, 8*time.Second) })
		time.Sleep(time.Second)
		beside = offer(who, 200, 6*time.Second)
		group.Wait()
		line("100,000 forged tokens a minute", flood)
		line("currentuser meanwhile", beside)

		line("100,000 authentic tokens a minute, if the database can", offer(who, 1667, 5*time.Second))

		closed := make(chan time.Duration)
		go func() { closed <- trickle(b, flooded.url("signin"), 1000) }()
		time.Sleep(500 * time.Millisecond)
		line("sign-ins beside 1,000 callers that send a byte at a time", offer(in, able/2, 3*time.Second))
		fmt.Fprintf(table, "the last of those was cut off after %.1f s\n", (<-closed).Seconds())
		fmt.Fprintf(table, "resident at most: signin %d MB, currentuser %d MB\n", flooded.all["signin"].PeakMemory(b)>>20, s.all["currentuser"].PeakMemory(b)>>20)
		fmt.Println(table) // b.Log would keep ten lines of it
	}
}

// people is how many sign in.
const people = 20

func emailOf(n int) string { return fmt.Sprintf("u%d@example.com", n) }

// A measured is what became of what was offered.
type measured struct {
	statuses  map[int]int // 0: no answer
	served    []time.Duration
	refused   []time.Duration
	curt      int // refusals that do not say why, or when to come again
	unstarted int // there were a thousand already
}

const header = "offered    200    503   none      p50      p99  longest refusal"

func (m measured) String() string {
	slices.Sort(m.served)
	all := m.unstarted
	for _, n := range m.statuses {
		all += n
	}
	at := func(q float64) string {
		if len(m.served) == 0 {
			return "-"
		}
		return ms(m.served[min(int(q*float64(len(m.served))), len(m.served)-1)])
	}
	longest := "-"
	if len(m.refused) > 0 {
		longest = ms(slices.Max(m.refused))
	}
	return fmt.Sprintf("%7d %6d %6d %6d %8s %8s %16s", all, m.statuses[200]+m.statuses[401], m.statuses[503]+m.statuses[429], m.statuses[0]+m.unstarted, at(.5), at(.99), longest)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// offer sends requests at a rate, whether or not those before were answered, on a
// thousand connections at most.
func offer(request func() (*http.Request, error), rate float64, lasts time.Duration) measured {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1000, MaxConnsPerHost: 1000}}
	defer client.CloseIdleConnections()
	m := measured{statuses: map[int]int{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	room := make(chan struct{}, 1000)
	for began, n := time.Now(), 0; time.Since(began) < lasts; n++ {
		time.Sleep(time.Until(began.Add(time.Duration(float64(n) / rate * float64(time.Second)))))
		select {
		case room <- struct{}{}:
		default:
			m.unstarted++
			continue
		}
		group.Go(func() {
			defer func() { <-room }()
			began := time.Now()
			status, honest := 0, false
			if r, err := request(); err == nil {
				if response, err := client.Do(r); err == nil {
					body, _ := io.ReadAll(response.Body)
					response.Body.Close()
					status = response.StatusCode
					honest = response.Header.Get("Retry-After") != "" && strings.HasPrefix(string(body), `{"errors":[{"message":"`)
				}
			}
			took := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			m.statuses[status]++
			switch status {
			case http.StatusOK, http.StatusUnauthorized:
				m.served = append(m.served, took)
			case http.StatusServiceUnavailable, http.StatusTooManyRequests:
				m.refused = append(m.refused, took)
				if !honest {
					m.curt++
				}
			}
		})
	}
	group.Wait()
	return m
}

func asking(url, token string) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodGet, url+"/api/users/currentuser", nil)
	if err == nil {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r, err
}

func signingIn(url, email string) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodPost, url+"/api/users/signin", strings.NewReader(credentials(email)))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// trickle opens connections and sends a byte on each every half second, of headers
// on some and of a body on the others. It returns how long the last was suffered.
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
