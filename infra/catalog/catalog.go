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
// those that only receive events if the process accepts none, those that need a sink if it has
// none, and those whose optional secret is not set.
func Usable(cfg *config.Config) []endpoint.Function {
	events, sink := httpserver.EventsEnabled(cfg), cfg.Text("K_SINK", "") != ""
	return slices.DeleteFunc(Functions(), func(f endpoint.Function) bool {
		return len(f.Endpoints) == 0 && !events || slices.ContainsFunc(f.Needs, func(n endpoint.Need) bool {
			return n.NeedsSink && !sink || n.Secret != nil && n.Secret.Optional && !isSet(cfg, n.Secret.Setting)
		})
	})
}

func isSet(cfg *config.Config, setting string) bool {
	return cfg.Lines(setting) != "" || cfg.Text(setting+"_FILE", "") != ""
}
