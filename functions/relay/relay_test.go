package relay_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"ticketing.com/auth/functions/relay"
	"ticketing.com/auth/shared/testing/endpointtest"
)

func runEvent() event.Event {
	return endpointtest.Event("tick", "com.ticketing.users.relay.requested.v1", `{}`)
}

// runRelay runs the relay when no delivery can be in flight.
func runRelay(t *testing.T, b *endpointtest.Fixture) {
	t.Helper()
	b.Clock.Advance(5 * time.Second)
	b.Deliver(t, endpointtest.Binary, runEvent()).Expect(t, http.StatusOK, "", "")
}

func unavailable(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }

// newRelay returns a relay and its sink. The sink was unavailable while some users signed up.
func newRelay(t *testing.T, users int, settings ...string) (*endpointtest.Fixture, *endpointtest.Sink) {
	t.Helper()
	sink := endpointtest.NewSink(t)
	sink.Answer(unavailable)
	b := endpointtest.New(t, relay.Function, append(settings, "EVENTS=on", sink.Setting())...)
	for i := range users {
		b.Clock.Advance(time.Second)
		b.Given(t, email(i), "a password")
	}
	return b, sink
}

func email(i int) string { return fmt.Sprintf("u%d@example.com", i) }

func TestRelay_DeliversOldestFirst(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 45)
	missed := sink.Received()
	sink.Answer(nil)
	runRelay(t, b)
	delivered := sink.Received()[len(missed):]
	if len(delivered) != 45 {
		t.Fatalf("got %d events, want 45", len(delivered))
	}
	for i, e := range delivered {
		if e.ID() != missed[i].ID() || !e.Time().Equal(missed[i].Time()) || string(e.Data()) != string(missed[i].Data()) {
			t.Errorf("event %d: got %v, want %v", i, e, missed[i])
		}
		b.OutboxIs(t, email(i), 0)
	}
	if !strings.Contains(b.Logs(), `"sent":45,"waiting":0`) {
		t.Errorf("the log does not have the expected counts: %s", b.Logs())
	}
	b.Deliver(t, endpointtest.Structured, runEvent()).Expect(t, http.StatusOK, "", "")
	if n := len(sink.Received()); n != len(missed)+45 {
		t.Errorf("a run with an empty outbox sent %d events, want 0", n-len(missed)-45)
	}
}

func TestRelay_PingSource(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 1)
	sink.Answer(nil)
	b.Clock.Advance(5 * time.Second) // no delivery is in flight
	b.Deliver(t, endpointtest.Binary, endpointtest.Event("p", "dev.knative.sources.ping", `{}`)).Expect(t, http.StatusOK, "", "")
	bare := event.New() // a PingSource without data
	bare.SetID("q")
	bare.SetSource("/ping")
	bare.SetType("dev.knative.sources.ping")
	b.Deliver(t, endpointtest.Binary, bare).Expect(t, http.StatusOK, "", "")
	b.OutboxIs(t, email(0), 0)
}

func TestRelay_SinkDown(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 30)
	before := len(sink.Received())
	runRelay(t, b)
	if tried := len(sink.Received()) - before; tried != 4 {
		t.Errorf("a run sent %d events to a sink that is down, want 4", tried)
	}
	for i := range 30 {
		b.OutboxIs(t, email(i), 1)
	}
	if !strings.Contains(b.Logs(), `"sent":0,"waiting":30`) {
		t.Errorf("the log does not have the expected counts: %s", b.Logs())
	}
}

// rejectEvents has the sink reject the events of some users with a status, and accept all others.
func rejectEvents(sink *endpointtest.Sink, status int, subjects map[string]bool) {
	sink.Answer(func(w http.ResponseWriter) {
		received := sink.Received()
		if subjects[received[len(received)-1].Subject()] {
			w.WriteHeader(status)
		}
	})
}

// subjects returns the ids of the first users.
func subjects(t *testing.T, b *endpointtest.Fixture, n int) map[string]bool {
	ids := map[string]bool{}
	for i := range n {
		ids[b.Stored(t, email(i)).ID] = true
	}
	return ids
}

func TestRelay_RejectedEventsDelayNoOthers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("stores many events")
	}
	b, sink := newRelay(t, 70)
	rejectEvents(sink, http.StatusBadRequest, subjects(t, b, 60))
	before := len(sink.Received())
	runRelay(t, b)
	for i := range 70 {
		b.OutboxIs(t, email(i), 0)
		if got, want := len(b.Stored(t, email(i)).Refused), map[bool]int{true: 1}[i < 60]; got != want {
			t.Errorf("user %d has %d rejected events, want %d", i, got, want)
		}
	}
	if !strings.Contains(b.Logs(), `"sent":10,"waiting":0,"refused":60`) {
		t.Errorf("the log does not have the expected counts: %s", b.Logs())
	}
	runRelay(t, b)
	if got := len(sink.Received()) - before; got != 70 {
		t.Errorf("%d events were sent by two runs, want 70: a rejected event is not retried at once", got)
	}
}

// Accounts have the same time in the queue if their events occur in the same millisecond.
func TestRelay_EventsInSameMillisecond(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 0)
	for i := range 45 {
		b.Given(t, email(i), "a password")
	}
	sink.Answer(nil)
	runRelay(t, b)
	for i := range 45 {
		b.OutboxIs(t, email(i), 0)
	}
}

func TestRelay_RetryBackoff(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 1)
	rejectEvents(sink, http.StatusBadRequest, subjects(t, b, 1))
	run := func() int {
		before := len(sink.Received())
		b.Deliver(t, endpointtest.Binary, runEvent()).Expect(t, http.StatusOK, "", "")
		return len(sink.Received()) - before
	}
	b.Clock.Advance(5 * time.Second) // no delivery is in flight
	if got := run(); got != 1 {
		t.Fatalf("the first run sent %d events, want 1", got)
	}
	for _, pause := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute} {
		b.Clock.Advance(pause - time.Second)
		if got := run(); got != 0 {
			t.Fatalf("%d events were sent before the pause of %v ended, want 0", got, pause)
		}
		b.Clock.Advance(time.Second)
		if got := run(); got != 1 {
			t.Fatalf("%d events were sent after the pause of %v, want 1", got, pause)
		}
	}
	sink.Answer(nil)
	b.Clock.Advance(24 * time.Hour)
	if got := run(); got != 1 {
		t.Errorf("%d events were sent to a sink that accepts them, want 1", got)
	}
	if a := b.Stored(t, email(0)); len(a.Refused) != 0 || !a.RetryAt.IsZero() {
		t.Errorf("got the rejected events %v and retryAt %v, want none", a.Refused, a.RetryAt)
	}
	if !strings.Contains(b.Logs(), `"sent":1,"waiting":0,"refused":0`) {
		t.Errorf("the log does not have the expected counts: %s", b.Logs())
	}
}

// A sink may fail on the events of some accounts and accept all others.
func TestRelay_FailingEventsDelayNoOthers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("stores many events")
	}
	const users = 50 // more than two pages
	for name, fails := range map[string]func(i int) bool{
		"the oldest":                        func(i int) bool { return i < 45 },
		"the newest":                        func(i int) bool { return i >= 5 },
		"some, and the newest":              func(i int) bool { return i < 10 || i == users-1 },
		"those in the middle":               func(i int) bool { return 10 <= i && i < 40 },
		"every second":                      func(i int) bool { return i%2 == 0 },
		"two of three, but neither end":     func(i int) bool { return i%3 != 0 && i != users-1 },
		"one":                               func(i int) bool { return i == 0 },
		"all of the first and second pages": func(i int) bool { return i < 40 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, sink := newRelay(t, users)
			failing := map[string]bool{}
			for i := range users {
				if fails(i) {
					failing[b.Stored(t, email(i)).ID] = true
				}
			}
			rejectEvents(sink, http.StatusInternalServerError, failing)
			before := len(sink.Received())
			runRelay(t, b)
			for i := range users {
				b.OutboxIs(t, email(i), map[bool]int{true: 1}[fails(i)])
			}
			sent := map[string]int{}
			for _, e := range sink.Received()[before:] {
				if sent[e.ID()]++; sent[e.ID()] > 1 {
					t.Errorf("event %s was sent %d times in one run", e.ID(), sent[e.ID()])
				}
			}
		})
	}
}

// Events that the sink fails on do not delay a rejected event that it now accepts.
func TestRelay_FailingEventsDelayNoRetry(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 10)
	rejectEvents(sink, http.StatusBadRequest, map[string]bool{b.Stored(t, email(9)).ID: true})
	runRelay(t, b)
	sink.Answer(unavailable)
	for i := range 9 {
		b.OpenSession(t, email(i))
	}
	rejectEvents(sink, http.StatusInternalServerError, subjects(t, b, 9))
	b.Clock.Advance(time.Minute)
	runRelay(t, b)
	if a := b.Stored(t, email(9)); len(a.Refused) != 0 {
		t.Errorf("%d rejected events are stored, want 0", len(a.Refused))
	}
}

// Events that fail at both ends of the queue are eventually moved out of it.
func TestRelay_FailingEventsAtBothEnds(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 5)
	failing := subjects(t, b, 5)
	delete(failing, b.Stored(t, email(2)).ID)
	rejectEvents(sink, http.StatusInternalServerError, failing)
	for range 11 {
		runRelay(t, b)
	}
	b.OutboxIs(t, email(2), 0)
}

func TestRelay_RejectedEventsAreBounded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("stores many events")
	}
	b, sink := newRelay(t, 1, "SESSION_LIMIT=1000")
	rejectEvents(sink, http.StatusBadRequest, subjects(t, b, 1))
	for range 2 {
		for range 27 {
			b.Clock.Advance(time.Millisecond)
			b.OpenSession(t, email(0))
		}
		runRelay(t, b)
	}
	if got := len(b.Stored(t, email(0)).Refused); got != 50 {
		t.Errorf("%d rejected events are stored, want 50", got)
	}
	if n := strings.Count(b.Logs(), "event dropped: the sink refuses too many"); n != 5 {
		t.Errorf("%d dropped events are logged, want 5", n)
	}
}

func TestRelay_TwoAtTheSameTime(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 25)
	missed := map[string]bool{}
	for _, e := range sink.Received() {
		missed[e.ID()] = true
	}
	before := len(sink.Received())
	sink.Answer(nil)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() { runRelay(t, b) })
	}
	group.Wait()
	for _, e := range sink.Received()[before:] {
		delete(missed, e.ID())
	}
	if len(missed) > 0 {
		t.Errorf("%d events were not delivered, want 0", len(missed))
	}
	for i := range 25 {
		b.OutboxIs(t, email(i), 0)
	}
}

func TestRelay_OrderOfOneUser(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 1)
	for range 3 {
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	sink.Answer(nil)
	before := len(sink.Types())
	runRelay(t, b)
	if got := sink.Types()[before:]; !slices.Equal(got, []string{"signedup", "signedin", "signedin", "signedin"}) {
		t.Errorf("got the events %v, want signedup and three times signedin", got)
	}
}

func TestRelay_OutboxIsBounded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("stores many events")
	}
	b, sink := newRelay(t, 1)
	for range 40 { // each adds an event, and beyond 20 sessions a second one
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	if n := len(b.Stored(t, email(0)).Events); n > 51 { // 50, and one of an evicted session
		t.Errorf("%d events are pending, want at most 51", n)
	}
	if !strings.Contains(b.Logs(), "event dropped") {
		t.Error("the dropped events are not logged")
	}
	sink.Answer(nil)
	runRelay(t, b)
	b.OutboxIs(t, email(0), 0)
}

// A delivered event does not count toward the limit of the outbox.
func TestRelay_DeliveredEventDropsNone(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("stores many events")
	}
	b, sink := newRelay(t, 1, "SESSION_LIMIT=100")
	for range 49 { // with signedup, 50 events are pending
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	sink.Answer(nil)
	b.OpenSession(t, email(0))
	if strings.Contains(b.Logs(), "event dropped") {
		t.Error("an event was dropped")
	}
	runRelay(t, b)
	b.OutboxIs(t, email(0), 0)
}

// The limit of a run also applies within an account. The next run sends the remaining events.
func TestRelay_SlowSink(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 1)
	for range 19 {
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	b.Clock.Advance(time.Second)
	b.Given(t, email(1), "a password")
	missed := sink.Received()
	sink.Answer(func(http.ResponseWriter) { b.Clock.Advance(2 * time.Second) })
	run := func(want int) {
		t.Helper()
		before := len(sink.Received())
		runRelay(t, b)
		if got := len(sink.Received()) - before; got != want {
			t.Errorf("a run sent %d events, want %d", got, want)
		}
	}
	run(8) // maxRunTime is 15 s
	b.OutboxIs(t, email(0), 12)
	run(8)
	run(5)
	b.OutboxIs(t, email(0), 0)
	b.OutboxIs(t, email(1), 0)
	for i, e := range sink.Received()[len(missed):] {
		if i < len(missed) && e.ID() != missed[i].ID() {
			t.Errorf("event %d: got %v, want %v", i, e, missed[i])
		}
	}
}

func TestRelay_SlowRetries(t *testing.T) {
	t.Parallel()
	b, sink := newRelay(t, 1)
	for range 19 {
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	rejectEvents(sink, http.StatusBadRequest, subjects(t, b, 1))
	runRelay(t, b)
	b.Clock.Advance(time.Minute)
	sink.Answer(func(http.ResponseWriter) { b.Clock.Advance(2 * time.Second) })
	for _, want := range []int{12, 4, 0} {
		runRelay(t, b)
		if got := len(b.Stored(t, email(0)).Refused); got != want {
			t.Errorf("%d rejected events are stored, want %d", got, want)
		}
	}
}
