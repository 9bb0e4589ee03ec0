// Package relay is the function that delivers the events that remain in the outbox: the sink
// was down, or the function stopped before it sent them. A PingSource triggers it at an
// interval. It has no public route.
package relay

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
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
		Types:   []*event.Type{requested, ping},
		Summary: "Deliver the events that the sink has not accepted yet.",
		Budget:  25 * time.Second, // below the 30 s after which Knative's sources give up
	}, newHandler, relay.handle)},
}

var (
	requested = event.Untyped("com.ticketing.users.relay.requested.v1", "A service requests a run of the relay. The data is ignored.")
	ping      = event.Untyped("dev.knative.sources.ping", "A PingSource of Knative triggers a run of the relay. The data is ignored.")
)

const (
	// batch is the number of accounts that one query reads. Their events are at most a few
	// hundred kilobytes.
	batch = 20
	// maxFailures is the number of consecutive accounts with failing events, from both ends of a
	// queue. After these the relay considers the sink down.
	maxFailures = 4
	// maxRunTime is the time after which a run sends no further event. The next run sends the
	// remaining events. The rest of the budget is for the event that is in flight, at most 5 s,
	// and for the writes after it, at most 4 s.
	maxRunTime = 15 * time.Second
)

type relay struct {
	users *user.Store
	now   func() time.Time
	log   *slog.Logger
}

func newHandler(cfg *config.Config) relay {
	cfg.Required("K_SINK") // without a sink there is nothing to deliver to
	return relay{user.FromConfig(cfg, sender.FromConfig(cfg)), cfg.Now(), cfg.Log()}
}

// handle sends the oldest events first, then the rejected events that are due for a retry. It stops
// when all are sent, the sink is down, or maxRunTime has passed. Two relays may run at the same
// time: an event that both send has the same id.
func (r relay) handle(ctx context.Context, _ endpoint.None) (endpoint.None, error) {
	now := r.now()
	until := now.Add(maxRunTime)
	sent, err := r.run(until, func(after user.Position) ([]user.Account, user.Position, bool, error) {
		return r.users.Undelivered(ctx, after, batch)
	}, func(a user.Account) (int, bool, error) { return r.users.Deliver(ctx, a, until) })
	if err == nil {
		var retried int
		retried, err = r.run(until, func(after user.Position) ([]user.Account, user.Position, bool, error) {
			return r.users.DueForRetry(ctx, after, now, batch)
		}, func(a user.Account) (int, bool, error) { return r.users.Retry(ctx, a, until) })
		sent += retried
	}
	undelivered, rejected, countErr := r.users.CountPending(ctx)
	r.log.InfoContext(ctx, "relayed", "sent", sent, "waiting", undelivered, "refused", rejected)
	return endpoint.None{}, cmp.Or(err, countErr)
}

// run delivers the events of the accounts in a queue and returns the number of events sent. It begins at
// the oldest end and changes to the other end after each account that fails.
//
// A sink may fail on the events of some accounts only. These collect at the oldest end, but
// not at the newest. So they do not delay the others, even if each attempt ends by a timeout.
// If the sink is down, a run costs few requests.
func (r relay) run(until time.Time,
	page func(user.Position) (accounts []user.Account, next user.Position, more bool, err error),
	deliver func(user.Account) (sent int, failed bool, err error),
) (sent int, err error) {
	type end struct {
		next     user.Position
		accounts []user.Account
		last     bool // there is no further page
	}
	ends := [2]end{{}, {next: user.Newest()}}
	tried := map[string]bool{}
	for current, failures := 0, 0; failures < maxFailures && r.now().Before(until); {
		e := &ends[current]
		if len(e.accounts) == 0 {
			if e.last { // all accounts of the queue were tried
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
