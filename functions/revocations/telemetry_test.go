package revocations_test

import (
	"fmt"
	"testing"
	"time"

	"ticketing.com/auth/functions/revocations"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/otlptest"
)

// The size of the feed and the age of the cursor are in the metrics.
func TestRevocations_Telemetry(t *testing.T) {
	t.Parallel()
	c := otlptest.New(t)
	f := endpointtest.New(t, revocations.Function, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL)
	g := f.Given(t, "ann@example.com", "a password")
	if err := f.Users.End(t.Context(), g.User.ID, f.Claims(t, g.Token).Session); err != nil {
		t.Fatal(err)
	}
	f.Do(t, endpointtest.Call{})
	f.Do(t, endpointtest.Call{Path: fmt.Sprint("/api/users/revocations?since=", f.Clock.Now().Add(-50*time.Second).UnixMilli())})
	f.Flush(t)
	for name, want := range map[string]float64{"auth.revocations.size": 1, "auth.revocations.age": 50} {
		if got := c.Sum(t, name, "")[""]; got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
