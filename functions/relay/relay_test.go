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
	"ticketing.com/auth/shared/endpointtest"
)

func wake() event.Event {
	return endpointtest.Event("tick", "com.ticketing.users.relay.requested.v1", `{}`)
}

func away(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }

// bench returns a relay whose sink was away while so many users signed up.
func bench(t *testing.T, users int, settings ...string) (*endpointtest.Bench, *endpointtest.Sink) {
	t.Helper()
	sink := endpointtest.NewSink(t)
	sink.Answer(away)
	b := endpointtest.New(t, relay.Endpoint, append(settings, "EVENTS=on", sink.Setting())...)
	for i := range users {
		b.Clock.Advance(time.Second)
		b.Given(t, email(i), "a password")
	}
	return b, sink
}

func email(i int) string { return fmt.Sprintf("u%d@example.com", i) }

func TestTheRelayDeliversWhatTheSinkDidNotTakeOldestFirst(t *testing.T) {
	b, sink := bench(t, 45)
	missed := sink.Received()
	sink.Answer(nil)
	b.Deliver(t, endpointtest.Binary, wake()).Expect(t, http.StatusOK, "", "")
	delivered := sink.Received()[len(missed):]
	if len(delivered) != 45 {
		t.Fatalf("%d of 45 delivered", len(delivered))
	}
	for i, e := range delivered {
		if e.ID() != missed[i].ID() || !e.Time().Equal(missed[i].Time()) || string(e.Data()) != string(missed[i].Data()) {
			t.Errorf("event %d is %v, was %v", i, e, missed[i])
		}
		b.OutboxIs(t, email(i), 0)
	}
	if !strings.Contains(b.Logs(), `"sent":45,"waiting":0`) {
		t.Errorf("log: %s", b.Logs())
	}
	b.Deliver(t, endpointtest.Structured, wake()).Expect(t, http.StatusOK, "", "")
	if n := len(sink.Received()); n != len(missed)+45 {
		t.Errorf("%d more were sent by an empty relay", n-len(missed)-45)
	}
}

func TestTheRelayIsWokenByAPingSource(t *testing.T) {
	b, sink := bench(t, 1)
	sink.Answer(nil)
	b.Deliver(t, endpointtest.Binary, endpointtest.Event("p", "dev.knative.sources.ping", `{}`)).Expect(t, http.StatusOK, "", "")
	bare := event.New() // a PingSource without data
	bare.SetID("q")
	bare.SetSource("/ping")
	bare.SetType("dev.knative.sources.ping")
	b.Deliver(t, endpointtest.Binary, bare).Expect(t, http.StatusOK, "", "")
	b.OutboxIs(t, email(0), 0)
}

func TestARelayWhoseSinkIsAwayStopsSoonAndLosesNothing(t *testing.T) {
	b, sink := bench(t, 30)
	before := len(sink.Received())
	b.Deliver(t, endpointtest.Binary, wake()).Expect(t, http.StatusOK, "", "")
	if tried := len(sink.Received()) - before; tried != 3 {
		t.Errorf("%d tries", tried)
	}
	for i := range 30 {
		b.OutboxIs(t, email(i), 1)
	}
	if !strings.Contains(b.Logs(), `"sent":0,"waiting":30`) {
		t.Errorf("log: %s", b.Logs())
	}
}

// An event that a sink refuses for ever must not stand in the way of all others.
func TestAnEventThatIsNeverTakenHoldsUpNobody(t *testing.T) {
	b, sink := bench(t, 30)
	refusedID := sink.Received()[0].ID()
	sink.Answer(func(w http.ResponseWriter) {
		received := sink.Received()
		if received[len(received)-1].ID() == refusedID {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	b.Deliver(t, endpointtest.Binary, wake()).Expect(t, http.StatusOK, "", "")
	b.OutboxIs(t, email(0), 1)
	for i := 1; i < 30; i++ {
		b.OutboxIs(t, email(i), 0)
	}
}

func TestTwoRelaysAtOnceDeliverAllAndLoseNothing(t *testing.T) {
	b, sink := bench(t, 25)
	missed := map[string]bool{}
	for _, e := range sink.Received() {
		missed[e.ID()] = true
	}
	before := len(sink.Received())
	sink.Answer(nil)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() { b.Deliver(t, endpointtest.Binary, wake()).Expect(t, http.StatusOK, "", "") })
	}
	group.Wait()
	for _, e := range sink.Received()[before:] {
		delete(missed, e.ID())
	}
	if len(missed) > 0 {
		t.Errorf("%d events are lost", len(missed))
	}
	for i := range 25 {
		b.OutboxIs(t, email(i), 0)
	}
}

func TestTheEventsOfOneUserComeInTheirOrder(t *testing.T) {
	b, sink := bench(t, 1)
	for range 3 {
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	sink.Answer(nil)
	before := len(sink.Types())
	b.Deliver(t, endpointtest.Binary, wake())
	if got := sink.Types()[before:]; !slices.Equal(got, []string{"signedup", "signedin", "signedin", "signedin"}) {
		t.Errorf("told %v", got)
	}
}

func TestTheOutboxOfAUserIsBounded(t *testing.T) {
	b, sink := bench(t, 1)
	for range 60 {
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	a, err := b.Users.Account(t.Context(), email(0))
	if err != nil || len(a.Events) > 51 { // 50, and one of a displaced session
		t.Errorf("%d events wait, %v", len(a.Events), err)
	}
	if !strings.Contains(b.Logs(), "event dropped") {
		t.Error("what was dropped is not logged")
	}
	sink.Answer(nil)
	b.Deliver(t, endpointtest.Binary, wake())
	b.OutboxIs(t, email(0), 0)
}

// What the sink has just taken does not wait, and makes nothing give way.
func TestAnEventThatWasTakenMakesNoneGiveWay(t *testing.T) {
	b, sink := bench(t, 1, "SESSION_LIMIT=100")
	for range 49 { // and signedup: fifty wait
		b.Clock.Advance(time.Second)
		b.OpenSession(t, email(0))
	}
	sink.Answer(nil)
	b.OpenSession(t, email(0))
	if strings.Contains(b.Logs(), "event dropped") {
		t.Error("one is dropped")
	}
	b.Deliver(t, endpointtest.Binary, wake())
	b.OutboxIs(t, email(0), 0)
}
