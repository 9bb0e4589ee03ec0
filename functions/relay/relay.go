// Package relay is the function that delivers the events that remain in the outbox: the sink
// was down, or the function stopped before it sent them. It also erases the accounts whose grace
// period has ended. A PingSource triggers it at an interval. In a process that delivers its events
// itself, a request triggers it (see package inprocess). It has no public route.
package relay

import (
	"cmp"
	"context"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/user"
)

// Function receives the event that starts a run of the relay. A PingSource cannot choose the
// type of its events, so the relay accepts that type besides its own.
var Function = endpoint.Function{
	Name:  "relay",
	Needs: []endpoint.Need{sender.Publishing(user.Published...), {NeedsSink: true}, user.Storing(endpoint.Find, endpoint.Update)},
	Receivers: []endpoint.Receiver{receiver.On(endpoint.Receiver{
		Types:   []*event.Type{requested, event.Ping},
		Summary: "Erase the accounts that are due, and deliver the events that the sink has not accepted yet.",
		Budget:  outbox.RelayBudget,
	}, newHandler, relay.handle)},
}

var requested = event.Untyped("com.ticketing.users.relay.requested.v1", "A service requests a run of the relay. The data is ignored.")

type relay struct {
	users *user.Store
	now   func() time.Time
}

func newHandler(cfg *config.Config) relay {
	sink := sender.FromConfig(cfg)
	if sink == nil { // there is nothing to deliver to
		cfg.Required("K_SINK")
	}
	return relay{user.FromConfig(cfg, sink), cfg.Now()}
}

// handle erases first, because a slow sink can use up the time of a run. Both parts run even if the other
// fails.
func (r relay) handle(ctx context.Context, _ endpoint.None) (endpoint.None, error) {
	erasure := r.users.EraseDue(ctx, r.now())
	return endpoint.None{}, cmp.Or(r.users.Outbox().Relay(ctx), erasure)
}
