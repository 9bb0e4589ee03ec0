package knative

import (
	"testing"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

// The broker delivers an event for as long as the receiver must outlast an outage.
func TestDeliveryOf_Outage(t *testing.T) {
	hello, bye := event.Untyped("hello.v1", ""), event.Untyped("bye.v1", "")
	for _, c := range []struct {
		outage time.Duration
		want   delivery
	}{
		{0, delivery{10, 200 * time.Millisecond}},
		{3 * time.Minute, delivery{10, 200 * time.Millisecond}},
		{15 * time.Minute, delivery{10, time.Second}},
		{time.Hour, delivery{12, time.Second}},
		{24 * time.Hour, delivery{17, time.Second}},
	} {
		f := endpoint.Function{Receivers: []endpoint.Receiver{{Types: []*event.Type{hello}, Outage: c.outage}, {Types: []*event.Type{bye}}}}
		if got := deliveryOf(f, hello.Name); got != c.want || got.total() < c.outage {
			t.Errorf("%v: got %+v for %v, want %+v", c.outage, got, got.total(), c.want)
		}
		if got, want := deliveryOf(f, bye.Name), (delivery{10, 200 * time.Millisecond}); got != want {
			t.Errorf("the other type: got %+v, want %+v", got, want)
		}
	}
	for _, f := range catalog.Functions() {
		for _, r := range f.Receivers {
			for _, kind := range r.Types {
				if d := deliveryOf(f, kind.Name); d.total() < r.Outage {
					t.Errorf("%s: the broker delivers %s for %v, want %v", f.Name, kind.Name, d.total(), r.Outage)
				}
			}
		}
	}
}
