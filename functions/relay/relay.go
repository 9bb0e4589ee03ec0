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

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/user"
)

// Endpoint is the event that wakes the relay, by its own name or as a PingSource
// sends it, which cannot choose another.
var Endpoint = receiver.On(endpoint.Endpoint{Spec: endpoint.Spec{
	Name:    "relay",
	Summary: "Deliver the events that the sink has not taken yet.",
	Budget:  25 * time.Second, // below the 30 s after which Knative's sources give up
}}, endpoint.Trigger{
	Types: []string{"com.ticketing.users.relay.requested.v1", "dev.knative.sources.ping"},
}, newHandler)

const (
	// batch is how many accounts are read at once. Their events are at most a few
	// hundred kilobytes.
	batch = 20
	// enough is the number of accounts in a row, from both ends of a queue, whose events all
	// fail before the sink is taken for down.
	enough = 4
	// roundTime is how long one run sends. The rest of the budget is for the event that is
	// in flight and for the writes after it. The next run sends the rest.
	roundTime = 15 * time.Second
)

type relay struct {
	users *user.Store
	now   func() time.Time
	log   *slog.Logger
}

func newHandler(cfg *config.Config) endpoint.Handler[endpoint.None, endpoint.None] {
	cfg.Required("K_SINK") // there is nothing to do without
	r := relay{user.FromConfig(cfg, sender.FromConfig(cfg)), cfg.Now(), cfg.Log()}
	return r.handle
}

// handle sends the oldest events first, then the refused ones whose pause has ended, until
// all are sent, the sink is down, or the time of a run ends. Two relays at the same time do no
// harm: an event that both send has the same id.
func (r relay) handle(ctx context.Context, _ endpoint.None) (endpoint.None, error) {
	now := r.now()
	until := now.Add(roundTime)
	sent, err := r.run(until, func(after user.Position) ([]user.Account, user.Position, bool, error) {
		return r.users.Undelivered(ctx, after, batch)
	}, func(a user.Account) (int, bool, error) { return r.users.Deliver(ctx, a) })
	if err == nil {
		var again int
		again, err = r.run(until, func(after user.Position) ([]user.Account, user.Position, bool, error) {
			return r.users.DueForRetry(ctx, after, now, batch)
		}, func(a user.Account) (int, bool, error) { return r.users.Retry(ctx, a) })
		sent += again
	}
	undelivered, refused, countErr := r.users.CountPending(ctx)
	r.log.InfoContext(ctx, "relayed", "sent", sent, "waiting", undelivered, "refused", refused)
	return endpoint.None{}, cmp.Or(err, countErr)
}

// run delivers the accounts of a queue and returns how many events were sent. It begins at
// the oldest end and changes to the other end after each account that fails.
//
// A sink may fail on the events of some accounts only. These collect at the oldest end, but
// not at the newest, so they do not delay the others, even where each attempt ends by a
// timeout. If the sink is down, a run costs few requests.
func (r relay) run(until time.Time,
	page func(user.Position) (accounts []user.Account, next user.Position, more bool, err error),
	deliver func(user.Account) (sent int, failed bool, err error),
) (sent int, err error) {
	type end struct {
		next     user.Position
		accounts []user.Account
		last     bool // no page follows
	}
	ends := [2]end{{}, {next: user.Newest()}}
	tried := map[string]bool{}
	for current, failures := 0, 0; failures < enough && r.now().Before(until); {
		e := &ends[current]
		if len(e.accounts) == 0 {
			if e.last { // each account of the queue was tried
				return sent, nil
			}
			var more bool
			if e.accounts, e.next, more, err = page(e.next); err != nil {
				return sent, err
			}
			e.last = !more
			continue
		}
		a := e.accounts[0]
		e.accounts = e.accounts[1:]
		if tried[a.ID] {
			continue
		}
		tried[a.ID] = true
		n, failed, err := deliver(a)
		sent += n
		if err != nil {
			return sent, err
		}
		if n > 0 || !failed {
			failures = 0
			continue
		}
		failures++
		current = 1 - current
	}
	return sent, nil
}
