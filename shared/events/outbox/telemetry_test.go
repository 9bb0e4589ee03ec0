package outbox

import (
	"maps"
	"testing"
	"time"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/testing/otlptest"
)

// The relay reports what it could not deliver, and nothing after the delivery.
func TestRelay_Telemetry(t *testing.T) {
	t.Parallel()
	o, to, now := open(t)
	c := otlptest.New(t)
	o.Telemetry = c.Telemetry(t)
	change(t, t.Context(), o)
	*now = now.Add(time.Minute)
	check := func(depth, age, sent float64) {
		t.Helper()
		if err := o.Relay(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.Telemetry.Flush(t.Context())
		if got, want := c.Sum(t, "auth.outbox.accounts", "auth.outbox.state"), map[string]float64{"undelivered": depth, "refused": 0}; !maps.Equal(got, want) {
			t.Errorf("got the accounts %v, want %v", got, want)
		}
		if got := c.Sum(t, "auth.outbox.age", "")[""]; got != age {
			t.Errorf("got the age %v s, want %v", got, age)
		}
		if got := c.Sum(t, "messaging.client.sent.messages", "messaging.destination.name")[changed.Name]; got != sent {
			t.Errorf("got %v sent events, want %v", got, sent)
		}
	}
	check(1, 60, 0)
	to.send = func(event.Event) error { return nil }
	check(0, 0, 1)
}
