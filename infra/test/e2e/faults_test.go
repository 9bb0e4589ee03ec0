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

// faultDuration is the minimum duration of each fault. To run faults of one minute:
//
//	go test -run=TestFaults -timeout=1h ./infra/test/e2e -faults=1m
var faultDuration = flag.Duration("faults", 0, "the minimum duration of each fault; 0 means a few seconds")

// rateLimitsOn are the settings of functions under a workload: all rate limits are on.
var rateLimitsOn = []string{"RATE_LIMIT=on", "TRUSTED_PROXIES=1"}

// TestFaults_Database runs a workload during each fault of the database. Each response must be
// the usual one or a 429 or 503 with Retry-After, and must arrive in time. No acknowledged change
// may be lost.
func TestFaults_Database(t *testing.T) {
	// Not parallel: no request may exceed its time limit but for the fault.
	type fault struct {
		name     string
		duration time.Duration // for slow and stalled: longer than the time limit of a request
		want503  bool          // a retry does not help, so some requests must return 503
		begin    func(*faultProxy, *mongotest.Instance)
	}
	runParallel(t, map[string][]fault{
		"slow":    {{"slow", 6 * time.Second, false, func(proxy *faultProxy, _ *mongotest.Instance) { proxy.setFault(slow) }}},
		"stalled": {{"stalled", 5 * time.Second, true, func(proxy *faultProxy, _ *mongotest.Instance) { proxy.setFault(stalled) }}},
		"dropped": {{"dropped", 3 * time.Second, false, func(proxy *faultProxy, _ *mongotest.Instance) { proxy.setFault(dropping) }}},
		"unavailable": {
			{"resetting", time.Second, false, func(proxy *faultProxy, _ *mongotest.Instance) { proxy.setFault(resetting) }},
			{"refusing", 4 * time.Second, true, func(proxy *faultProxy, _ *mongotest.Instance) { proxy.setFault(refusing) }},
			{"killed and restarted", time.Second, false, func(_ *faultProxy, db *mongotest.Instance) { db.Kill() }},
		},
	}, func(t *testing.T, faults []fault) {
		db, sink := mongotest.Server(t), newSink(t)
		uri, err := url.Parse(db.URI())
		if err != nil {
			t.Fatal(err)
		}
		proxy := newFaultProxy(t, uri.Host)
		uri.Host = proxy.addr
		s := startWithEvents(t, uri.String(), sink, rateLimitsOn...)
		load := startWorkload(s, 6, 20*time.Millisecond, false)
		load.awaitCompleted(t, 6) // by now the users are at different steps
		for _, f := range faults {
			before := load.responses(http.StatusServiceUnavailable)
			f.begin(proxy, db)
			time.Sleep(max(f.duration, *faultDuration))
			hits := proxy.hits()
			db.Start() // if it was killed
			if err := proxy.setFault(healthy); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			load.awaitCompleted(t, 6) // the functions must recover without a restart
			unavailable := load.responses(http.StatusServiceUnavailable) - before
			if f.name == "dropped" && unavailable > 0 {
				t.Errorf("%s: got %d responses 503, want 0 because the database is healthy", f.name, unavailable)
			}
			if hits == 0 || f.want503 && unavailable == 0 {
				t.Errorf("%s: the fault affected %d messages and caused %d responses 503; want at least one message, and a 503: %v", f.name, hits, unavailable, f.want503)
			}
			t.Logf("%s: the fault affected %d messages and caused %d responses 503; six scenarios took %.1f s after it", f.name, hits, unavailable, time.Since(began).Seconds())
		}
		load.stopAndWait()
		load.checkInvariants(t, db.URI(), sink)
	})
}

// runParallel runs subtests at the same time, on any number of cores. They mostly wait.
func runParallel[Case any](t *testing.T, cases map[string]Case, run func(*testing.T, Case)) {
	var group sync.WaitGroup
	defer group.Wait()
	for name, c := range cases {
		group.Go(func() { t.Run(name, func(t *testing.T) { run(t, c) }) })
	}
}

// runConcurrently calls do n times at the same time.
func runConcurrently(n int, do func(i int)) {
	var group sync.WaitGroup
	defer group.Wait()
	for i := range n {
		group.Go(func() { do(i) })
	}
}

// TestFaults_EventSink runs a workload during each fault of the sink. A fault must not change a
// response.
func TestFaults_EventSink(t *testing.T) {
	// Not parallel: no request may exceed its time limit.
	uri, sink := mongotest.URI(t), newSink(t)
	proxy := newFaultProxy(t, strings.TrimPrefix(sink.URL, "http://"))
	sink.URL = "http://" + proxy.addr
	s := startWithEvents(t, uri, sink, rateLimitsOn...)
	load := startWorkload(s, 4, 5*time.Millisecond, false)
	for _, fault := range []networkFault{slow, stalled, resetting, refusing, healthy} {
		if err := proxy.setFault(fault); err != nil {
			t.Fatal(err)
		}
		time.Sleep(*faultDuration)
		load.awaitCompleted(t, 4)
		if fault != healthy && proxy.hits() == 0 {
			t.Errorf("%s: the fault affected no message, want at least one", fault)
		}
	}
	load.stopAndWait()
	if n := load.responses(http.StatusServiceUnavailable); n > 0 {
		t.Errorf("got %d responses 503, want 0 because the database is healthy", n)
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(accounts(t, uri))), func(a user.Account) bool { return len(a.Events) > 0 }) {
		t.Error("got no pending event after the faults, want at least one")
	}
	load.checkInvariants(t, uri, sink)
}

// TestFaults_Functions stops and kills each function that writes, again and again under a
// workload. Each stop follows a different number of database commands.
func TestFaults_Functions(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	proxy := newCommandProxy(t, mongotest.Server(t).URI())
	s := startWithEvents(t, proxy.uri, sink, rateLimitsOn...)
	load := startWorkload(s, 3, 5*time.Millisecond, true)
	functions := []string{"signup", "signin", "refresh", "signout"}
	for began, n := time.Now(), 0; n < 3*len(functions) || time.Since(began) < *faultDuration; n++ {
		function, signal := functions[n%len(functions)], os.Kill
		if n/len(functions)%2 == 0 {
			signal = syscall.SIGTERM
		}
		reached := make(chan struct{})
		proxy.interruptAfter(1+n/len(functions)%8, func() { close(reached) })
		select {
		case <-reached:
		case <-time.After(10 * time.Second):
			t.Fatal("got no database command in 10 s, want at least one")
		}
		if code := s.processes[function].Signal(signal); signal == syscall.SIGTERM && code != 0 {
			t.Errorf("%s: got exit code %d, want 0: %s", function, code, s.processes[function].Logs())
		}
		s.restart(t, function)
		load.awaitCompleted(t, 1)
	}
	load.stopAndWait()
	load.killsFunctions = false
	load.checkInvariants(t, proxy.uri, sink)
}
