package e2e_test

import (
	"flag"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

// long is for how long each fault lasts, where the short form, which runs with all
// tests, is not enough: go test -run=TestFaults ./infra/test/e2e -faults=1m
var faultDuration = flag.Duration("faults", 0, "how long each fault lasts; a few seconds if 0")

// limits are the settings of the crowd's functions: all rate limits are on.
var rateLimitsOn = []string{"RATE_LIMIT=on", "TRUSTED_PROXIES=1"}

// TestFaultsOfTheDatabase has the database fail in each way while people use the
// system: every answer is honest and comes in time, and nothing that was acknowledged
// is lost.
func TestFaultsOfTheDatabase(t *testing.T) {
	type fault struct {
		name  string
		lasts time.Duration // longer than the budget of a request, where it is about time
		tells bool          // it cannot be mended by a second try, so some are told 503
		begin func(*faultProxy, *mongotest.Instance)
	}
	runParallel(t, map[string][]fault{
		"slow":    {{"slow", 6 * time.Second, false, func(w *faultProxy, _ *mongotest.Instance) { w.setFault(slow) }}},
		"stalled": {{"stalled", 5 * time.Second, true, func(w *faultProxy, _ *mongotest.Instance) { w.setFault(stalled) }}},
		"dropped": {{"dropped", 3 * time.Second, false, func(w *faultProxy, _ *mongotest.Instance) { w.setFault(dropping) }}},
		"away": {
			{"cut", time.Second, false, func(w *faultProxy, _ *mongotest.Instance) { w.setFault(resetting) }},
			{"refusing", 4 * time.Second, true, func(w *faultProxy, _ *mongotest.Instance) { w.setFault(refusing) }},
			{"restarted in the middle", time.Second, false, func(_ *faultProxy, db *mongotest.Instance) { db.Kill() }},
		},
	}, func(t *testing.T, faults []fault) {
		db, sink := mongotest.Server(t), newSink(t)
		where, err := url.Parse(db.URI())
		if err != nil {
			t.Fatal(err)
		}
		w := newFaultProxy(t, where.Host)
		where.Host = w.addr
		s := startWithEvents(t, where.String(), sink, rateLimitsOn...)
		crowd := startWorkload(s, 6, 20*time.Millisecond, false)
		crowd.awaitCompleted(t, 6) // by now each is at another step
		for _, f := range faults {
			before := crowd.responses(http.StatusServiceUnavailable)
			f.begin(w, db)
			time.Sleep(max(f.lasts, *faultDuration))
			strikes := w.hits()
			db.Start() // where it was killed
			if err := w.setFault(healthy); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			crowd.awaitCompleted(t, 6) // no function is restarted
			refused := crowd.responses(http.StatusServiceUnavailable) - before
			if f.name == "dropped" && refused > 0 {
				t.Errorf("%s: %d were told 503, and the database is well", f.name, refused)
			}
			if strikes == 0 || f.tells && refused == 0 {
				t.Errorf("%s: it struck %d times, and %d were told so: that proves nothing", f.name, strikes, refused)
			}
			t.Logf("%s: struck %d times, %d were told 503; six lives later it is %.1f s", f.name, strikes, refused, time.Since(began).Seconds())
		}
		crowd.stopAndWait()
		crowd.checkInvariants(t, db.URI(), sink)
	})
}

// together runs subtests at the same time, however few cores there are: they mostly
// wait.
func runParallel[Case any](t *testing.T, cases map[string]Case, run func(*testing.T, Case)) {
	var group sync.WaitGroup
	defer group.Wait()
	for name, c := range cases {
		group.Go(func() { t.Run(name, func(t *testing.T) { run(t, c) }) })
	}
}

// atOnce calls do n times at the same time.
func runConcurrently(n int, do func(i int)) {
	var group sync.WaitGroup
	defer group.Wait()
	for i := range n {
		group.Go(func() { do(i) })
	}
}

// TestFaultsOfTheSink has the sink fail in each way. Nobody who calls notices more
// of it than the time that K_SINK_TIMEOUT allows.
func TestFaultsOfTheSink(t *testing.T) {
	uri, sink := mongotest.URI(t), newSink(t)
	w := newFaultProxy(t, strings.TrimPrefix(sink.URL, "http://"))
	sink.URL = "http://" + w.addr
	s := startWithEvents(t, uri, sink, append(rateLimitsOn, "K_SINK_TIMEOUT=100ms")...)
	crowd := startWorkload(s, 4, 5*time.Millisecond, false)
	for _, m := range []networkFault{slow, stalled, resetting, refusing, healthy} {
		if err := w.setFault(m); err != nil {
			t.Fatal(err)
		}
		time.Sleep(*faultDuration)
		crowd.awaitCompleted(t, 4)
		if m != healthy && w.hits() == 0 {
			t.Errorf("%s: it struck nobody: that proves nothing", m)
		}
	}
	crowd.stopAndWait()
	if n := crowd.responses(http.StatusServiceUnavailable); n > 0 {
		t.Errorf("503 × %d: that the sink is away is no reason", n)
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(accounts(t, uri))), func(a user.Account) bool { return len(a.Events) > 0 }) {
		t.Error("every event was taken at once: that proves nothing")
	}
	crowd.checkInvariants(t, uri, sink)
}

// TestFaultsOfTheFunctions has each function that writes be stopped and killed again
// and again under load, after one command of somebody's, or two, and so on.
func TestFaultsOfTheFunctions(t *testing.T) {
	sink := newSink(t)
	line := newCommandProxy(t, mongotest.Server(t).URI())
	s := startWithEvents(t, line.uri, sink, rateLimitsOn...)
	crowd := startWorkload(s, 3, 5*time.Millisecond, true)
	victims := []string{"signup", "signin", "refresh", "signout"}
	for began, n := time.Now(), 0; n < 3*len(victims) || time.Since(began) < *faultDuration; n++ {
		victim, signal := victims[n%len(victims)], os.Kill
		if n/len(victims)%2 == 0 {
			signal = syscall.SIGTERM
		}
		struck := make(chan struct{})
		line.interruptAfter(1+n/len(victims)%8, func() { close(struck) })
		select {
		case <-struck:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody asks the database for anything")
		}
		if code := s.processes[victim].Signal(signal); signal == syscall.SIGTERM && code != 0 {
			t.Errorf("%s: exit code %d: %s", victim, code, s.processes[victim].Logs())
		}
		s.restart(t, victim)
		crowd.awaitCompleted(t, 1)
	}
	crowd.stopAndWait()
	crowd.killsFunctions = false
	crowd.checkInvariants(t, line.uri, sink)
}
