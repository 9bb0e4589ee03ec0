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
	// roundTime is how long one run sends. The rest of the budget is for the event that is
	// in flight and for the writes after it. The next run sends the rest.
	roundTime = 15 * time.Second
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

// handle sends the oldest events first, then the refused ones whose pause is over, until all
// are sent, the sink is away, or the round is over. Two relays at the same time do no harm:
// an event that both send has the same id.
func (r relay) handle(ctx context.Context, _ endpoint.None) (endpoint.None, error) {
	now := r.now()
	run := round{until: now.Add(roundTime), now: r.now}
	err := run.through(ctx, func(after user.Position) ([]user.Account, user.Position, bool, error) {
		return r.users.Undelivered(ctx, after, batch)
	}, r.users.Deliver)
	if err == nil {
		err = run.through(ctx, func(after user.Position) ([]user.Account, user.Position, bool, error) {
			return r.users.DueForRetry(ctx, after, now, batch)
		}, r.users.Retry)
	}
	undelivered, refused, countErr := r.users.Waiting(ctx)
	r.log.InfoContext(ctx, "relayed", "sent", run.sent, "waiting", undelivered, "refused", refused)
	return endpoint.None{}, cmp.Or(err, countErr)
}

// A round is one run of the relay.
type round struct {
	until  time.Time
	now    func() time.Time
	sent   int
	failed int // accounts in a row of which nothing was sent, because the sink is away
}

// through delivers the accounts of a queue, page by page.
func (r *round) through(ctx context.Context,
	page func(user.Position) ([]user.Account, user.Position, bool, error),
	deliver func(context.Context, user.Account) (sent int, away bool, err error),
) error {
	var after user.Position
	for more := true; more && r.now().Before(r.until); {
		var accounts []user.Account
		var err error
		if accounts, after, more, err = page(after); err != nil {
			return err
		}
		for _, a := range accounts {
			if r.failed == enough || r.now().After(r.until) {
				return nil
			}
			sent, away, err := deliver(ctx, a)
			r.sent += sent
			if err != nil {
				return err
			}
			if r.failed++; sent > 0 || !away {
				r.failed = 0
			}
		}
	}
	return nil
}
