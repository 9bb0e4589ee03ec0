// Package relay is the function that delivers what the other functions could not:
// the events that are still written down because the sink was away, or the
// function that wrote them was. It is woken by a clock (a PingSource) and has no
// public route.
package relay

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/cloudevents"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/sink"
	"ticketing.com/auth/shared/user"
)

// Endpoint is the event that wakes the relay, by its own name or as a PingSource
// sends it, which cannot choose another.
var Endpoint = cloudevents.On(endpoint.Endpoint{Spec: endpoint.Spec{
	Name:    "relay",
	Summary: "Deliver the events that the sink has not taken yet.",
	Budget:  25 * time.Second, // below the 30 s after which Knative's sources give up
}}, endpoint.Trigger{
	Types: []string{"com.ticketing.users.relay.requested.v1", "dev.knative.sources.ping"},
}, wire)

const (
	// batch is how many accounts are read at once. Their events are at most a few
	// hundred kilobytes.
	batch = 20
	// enough is how many accounts in a row may get nothing sent before the sink is
	// taken for away.
	enough = 3
	// round is how long one run goes on; the rest of the budget is for the event it
	// is at, and to write down what was done. What is left has its turn in the next.
	round = 15 * time.Second
)

type relay struct {
	users *user.Store
	now   func() time.Time
	log   *slog.Logger
}

func wire(w *app.Wiring) endpoint.Handler[endpoint.None, endpoint.None] {
	w.Required("K_SINK") // there is nothing to do without
	r := relay{user.Wire(w, sink.Wire(w)), w.Now(), w.Log()}
	return r.handle
}

// handle sends the oldest first, until all is sent, the sink is away, or its time
// is over. Two of it at once are harmless: what both send has the same id.
func (r relay) handle(ctx context.Context, _ endpoint.None) (endpoint.None, error) {
	sent, err := r.deliver(ctx, r.now().Add(round))
	waiting, countErr := r.users.CountUndelivered(ctx)
	r.log.InfoContext(ctx, "relayed", "sent", sent, "waiting", waiting)
	return endpoint.None{}, cmp.Or(err, countErr)
}

func (r relay) deliver(ctx context.Context, until time.Time) (sent int, err error) {
	var since time.Time
	for failed, more := 0, true; more; {
		var accounts []user.Account
		if accounts, more, err = r.users.Undelivered(ctx, since, batch); err != nil {
			return sent, err
		}
		for _, a := range accounts {
			since = a.Undelivered
			n, away, err := r.users.Deliver(ctx, a)
			sent += n
			if err != nil {
				return sent, err
			}
			if failed++; n > 0 || !away {
				failed = 0
			}
			if failed == enough || r.now().After(until) {
				return sent, nil
			}
		}
		more = more && len(accounts) > 0 // since must move on
	}
	return sent, nil
}
