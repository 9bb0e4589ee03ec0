// Package catalog lists the functions of the system, one per line. All files that depend on the
// functions, their routes or their settings are generated from this list.
package catalog

import (
	"slices"

	"ticketing.com/auth/functions/account"
	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/functions/email"
	"ticketing.com/auth/functions/export"
	"ticketing.com/auth/functions/history"
	"ticketing.com/auth/functions/introspect"
	"ticketing.com/auth/functions/jwks"
	"ticketing.com/auth/functions/mail"
	"ticketing.com/auth/functions/password"
	"ticketing.com/auth/functions/recovery"
	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/functions/relay"
	"ticketing.com/auth/functions/revocations"
	"ticketing.com/auth/functions/sessions"
	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/functions/signout"
	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/functions/verification"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/inprocess"
	"ticketing.com/auth/shared/httpserver"
)

// Functions returns all functions. A user first calls them in this order.
func Functions() []endpoint.Function {
	return []endpoint.Function{
		signup.Function,
		signin.Function,
		signout.Function,
		currentuser.Function,
		refresh.Function,
		jwks.Function,
		account.Function,
		verification.Function,
		password.Function,
		recovery.Function,
		email.Function,
		sessions.Function,
		history.Function,
		export.Function,
		introspect.Function,
		revocations.Function,
		relay.Function,
		mail.Function,
	}
}

// Routes returns the endpoints of all functions.
func Routes() (all []endpoint.Endpoint) {
	for _, f := range Functions() {
		all = append(all, f.Endpoints...)
	}
	return all
}

// AllInOne returns the functions that a public process with all functions serves: those of Usable
// without internal endpoints.
func AllInOne(cfg *config.Config) []endpoint.Function {
	return slices.DeleteFunc(Usable(cfg), func(f endpoint.Function) bool { return len(f.Routed()) < len(f.Endpoints) })
}

// Usable returns the functions that can work in one process with this configuration. It omits
// those that only receive events if the process receives none for them, those that need a sink if it
// has none, and those whose optional secret is not set. Without K_SINK, the process delivers its
// events itself (see package inprocess).
func Usable(cfg *config.Config) []endpoint.Function { return usable(cfg, Functions()) }

func usable(cfg *config.Config, all []endpoint.Function) []endpoint.Function {
	all = slices.DeleteFunc(all, func(f endpoint.Function) bool {
		return slices.ContainsFunc(f.Needs, func(n endpoint.Need) bool {
			return n.Secret != nil && n.Secret.Optional && !isSet(cfg, n.Secret.Setting)
		})
	})
	events, sink := httpserver.EventsEnabled(cfg), cfg.Text("K_SINK", "") != ""
	types := map[string]bool{}
	if !sink {
		types = inprocess.Types(all)
	}
	return slices.DeleteFunc(all, func(f endpoint.Function) bool {
		needsSink := slices.ContainsFunc(f.Needs, func(n endpoint.Need) bool { return n.NeedsSink })
		return len(f.Endpoints) == 0 && !events && !inprocess.Takes(f, types) || needsSink && !sink && len(types) == 0
	})
}

func isSet(cfg *config.Config, setting string) bool {
	return cfg.Lines(setting) != "" || cfg.Text(setting+"_FILE", "") != ""
}
