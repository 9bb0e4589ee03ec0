package ratelimit

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
)

// An Attempt is one check of a password. Begin starts to reserve it, while the caller reads the
// account. Allow waits for the reservation. Succeed and Fail start to settle the reservation,
// while the caller opens the session:
//
//	a, err := limiter.Begin(ctx, limit, client, email)
//	if err != nil { … }
//	defer a.Close(ctx)
//	… read the account …
//	err = a.Allow(ctx, known)
//	… check the password …
//	a.Fail(ctx), or a.Succeed(ctx), or neither if the password was not checked
type Attempt struct {
	limiter *Limiter
	email   string
	device  string // the device token that the client has presented

	begun    func() error
	passed   bool      // whether the address admits the attempt
	counters []counter // that have counted the attempt
	owner    counter   // the counter of the account or of the device
	settled  func() error
}

// Begin starts to reserve an attempt. For a client that presents a device token, Begin reserves
// it in the counter of that device. Only Allow receives whether the account knows the device.
//
// Begin returns an API error of kind TooMany if this process has found the address at its limit
// within rejectionTTL. It then does not query the database, so a flood of rejected requests costs
// the database almost nothing.
func (l *Limiter) Begin(ctx context.Context, limit Limit, c endpoint.Client, email string) (*Attempt, error) {
	telemetry.NoteNetwork(ctx, l.Network(c))
	if err := l.cached(ctx, l.addressCounters(limit, c, failureWeight)); err != nil {
		return nil, err
	}
	a := &Attempt{limiter: l, email: email, device: c.Device, owner: account(email)}
	if a.device != "" {
		a.owner.id = "device:" + digest(email, a.device)
	}
	a.begun = start(func() (err error) {
		if !l.accounts {
			return nil
		}
		var addresses int
		ctx, cancel := detach(ctx)
		defer cancel()
		a.counters, err = l.reserve(ctx, func() []counter {
			all := l.addressCounters(limit, c, failureWeight)
			addresses = len(all)
			return append(all, a.owner)
		})
		a.passed = err == nil || len(a.counters) == addresses && apierror.From(err).Kind() == apierror.TooMany
		return err
	})
	return a, nil
}

// detach returns a context with the deadline of a request that a disconnected client does not
// cancel. If a client could cancel a reservation, the process would not know whether the database
// has counted the attempt.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, limited := ctx.Deadline()
	if !limited {
		deadline = time.Now().Add(maxInFlight / 2)
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

func account(email string) counter {
	return counter{id: "account:" + digest(email), limit: accountLimit, weight: 1}
}

// Allow returns an API error of kind TooMany if the address or the account is at its limit. It
// returns one of kind Unavailable if the database does not answer. If known is false, the account
// does not know the device of the client, and the attempt counts for the account.
func (a *Attempt) Allow(ctx context.Context, known bool) error {
	err := a.begun()
	if a.device == "" || known || !a.passed {
		return err
	}
	a.device, a.owner = "", account(a.email)
	ctx, cancel := detach(ctx)
	defer cancel()
	more, err := a.limiter.reserve(ctx, func() []counter { return []counter{a.owner} })
	a.counters = append(a.counters, more...)
	return err
}

// Succeed starts to settle a successful attempt. The attempt then counts as one request of the
// address. Succeed resets the failures of the account or of the device, as NIST SP 800-63B-4
// section 3.2.2 recommends, unless other attempts are in flight.
func (a *Attempt) Succeed(ctx context.Context) { a.settle(ctx, true, true) }

// Fail starts to settle a failed attempt. Its reservation remains as a failure.
func (a *Attempt) Fail(ctx context.Context) { a.settle(ctx, false, false) }

// Close waits until the attempt is settled, at most for the time limit of the command. An attempt
// without Fail or Succeed counts as one request of the address, and does not count for the account
// or the device. An attempt that could not be settled counts as a failure, and is in flight until
// maxInFlight has passed since the last attempt.
func (a *Attempt) Close(ctx context.Context) {
	a.begun()
	a.settle(ctx, true, false)
	if err := a.settled(); err != nil {
		a.limiter.log.WarnContext(ctx, "an attempt was not settled", "error", err)
	}
}

// settle starts to settle the attempt in one command. Only its first call has an effect. If
// free is true, it subtracts the reservation; if reset is true, it sets the failures to 0.
func (a *Attempt) settle(ctx context.Context, free, reset bool) {
	if a.settled != nil {
		return
	}
	var models []mongo.WriteModel
	for _, c := range a.counters {
		owner := c.id == a.owner.id
		unknown := c.end.IsZero() && !owner // the counter of a device that the account does not know
		back := 0
		if free || unknown {
			back = c.refund()
		}
		update := bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: -back}, {Key: "pending", Value: -1}}}}
		if unknown {
			update = append(update, bson.E{Key: "$set", Value: bson.D{{Key: "expiresAt", Value: a.limiter.clock.now().Add(unknownTTL)}}})
		}
		models = append(models, mongo.NewUpdateOneModel().
			SetFilter(bson.D{{Key: "_id", Value: c.id}, {Key: "pending", Value: bson.D{{Key: "$gte", Value: 1}}}}).
			SetUpdate(update))
		if reset && owner {
			models = append(models, mongo.NewUpdateOneModel().
				SetFilter(bson.D{{Key: "_id", Value: c.id}, {Key: "pending", Value: 0}}).
				SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "n", Value: 0}}}}))
		}
	}
	a.settled = start(func() error {
		if len(models) == 0 {
			return nil
		}
		// A disconnected client does not cancel the command.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.limiter.settleTimeout(ctx))
		defer cancel()
		c, err := a.limiter.collection(ctx)
		if err == nil {
			_, err = c.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(true))
		}
		return mongodb.Translate("settle an attempt", err)
	})
}

// unknownTTL is the lifetime of the counter of an unknown device after its last attempt. An
// attacker can make up a device token for each attempt, so these counters must not remain for a day.
const unknownTTL = time.Minute

// refund returns the amount to subtract for an attempt that did not fail. It leaves one request
// in the counter of an address.
func (c counter) refund() int {
	if c.end.IsZero() {
		return c.weight
	}
	return c.weight - 1
}

// settleTimeout returns the time limit for settling an attempt. After the time limit of the
// request, it is the time for which the client still waits for the response.
func (l *Limiter) settleTimeout(ctx context.Context) time.Duration {
	deadline, limited := ctx.Deadline()
	if !limited {
		return l.timeout
	}
	return min(l.timeout, max(time.Until(deadline), 0)+overtime)
}

// overtime is the time after the time limit of a request for which a client still waits. A
// client may wait five seconds in all, including the transfer of the response.
const overtime = 250 * time.Millisecond
