// Package relay is the function that delivers the events that remain in the outbox: the sink
// was down, or the function stopped before it sent them. A PingSource triggers it at an
// interval. In a process that delivers its events itself, a request triggers it (see package
// inprocess). It has no public route.
package relay

import (
	"context"

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
	Needs: []endpoint.Need{sender.Publishing(event.SignedUp, event.SignedIn, event.SignedOut), {NeedsSink: true}, user.Storing(endpoint.Find, endpoint.Update)},
	Receivers: []endpoint.Receiver{receiver.On(endpoint.Receiver{
		Types:   []*event.Type{requested, event.Ping},
		Summary: "Deliver the events that the sink has not accepted yet.",
		Budget:  outbox.RelayBudget,
	}, newHandler, handle)},
}

var requested = event.Untyped("com.ticketing.users.relay.requested.v1", "A service requests a run of the relay. The data is ignored.")

func newHandler(cfg *config.Config) *outbox.Outbox {
	sink := sender.FromConfig(cfg)
	if sink == nil { // there is nothing to deliver to
		cfg.Required("K_SINK")
	}
	return user.FromConfig(cfg, sink).Outbox()
}

func handle(o *outbox.Outbox, ctx context.Context, _ endpoint.None) (endpoint.None, error) {
	return endpoint.None{}, o.Relay(ctx)
}
