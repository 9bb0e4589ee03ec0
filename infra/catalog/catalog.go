// Package catalog is THE list: every function of the system, one line each.
// Whatever must agree on which functions there are and where they are reached is
// made from it.
package catalog

import (
	"slices"

	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/functions/jwks"
	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/functions/relay"
	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/functions/signout"
	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

// Functions returns all functions, in the order in which a person meets them.
func Functions() []endpoint.Endpoint {
	return []endpoint.Endpoint{
		signup.Endpoint,
		signin.Endpoint,
		signout.Endpoint,
		currentuser.Endpoint,
		refresh.Endpoint,
		jwks.Endpoint,
		relay.Endpoint,
	}
}

// Together returns those that one process serves if it serves all: one without a
// route only takes events, and only passes on what a sink did not take.
func Together(cfg *config.Config) []endpoint.Endpoint {
	relayed := httpserver.EventsEnabled(cfg) && cfg.Text("K_SINK", "") != ""
	return slices.DeleteFunc(Functions(), func(e endpoint.Endpoint) bool { return e.Path == "" && !relayed })
}
