package signin_test

import (
	"net/http"
	"testing"
	"time"

	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestSignin_ColdStartConnections counts the connections that a process opens until it answers
// its first sign-in. One is for the driver's heartbeat. Two are for commands, because a
// sign-in has at most two commands in flight.
func TestSignin_ColdStartConnections(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for slow round trips")
	}
	uri := mongotest.URI(t)
	endpointtest.New(t, signin.Function, "MONGODB_URI="+uri).Given(t, "ann@example.com", secret)
	for _, roundTrip := range []time.Duration{0, 2 * time.Millisecond, 50 * time.Millisecond} {
		for _, hashing := range []string{"HASH_MEMORY_KIB=64", "HASH_MEMORY_KIB=65536"} {
			tap := mongotest.TapOf(t, uri)
			tap.RoundTrip(roundTrip)
			b := endpointtest.New(t, signin.Function, "MONGODB_URI="+tap.URI, hashing)
			before := tap.Accepted()
			began := time.Now()
			if a := b.Do(t, attempt(ownerAddress, "ann", secret)); a.Status != http.StatusServiceUnavailable { // a busy machine exceeds the budget
				a.Grant(t)
			}
			if n := tap.Accepted(); before > 0 || n > 1+2 {
				t.Errorf("round trip %v, %s: %d connections, and %d before the request, want at most 3 and 0", roundTrip, hashing, n, before)
			}
			t.Log(roundTrip, hashing, tap.Accepted(), time.Since(began))
		}
	}
}
