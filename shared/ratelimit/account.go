package ratelimit

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/mongodb"
)

const (
	freeFailures = 10 // of an account, without a wait
	firstWait    = time.Second
	longestWait  = 15 * time.Minute
	// resetAfter is the time from the end of a wait to the reset of the failures, without a
	// successful attempt. An attacker gains nothing from it: with a wait of 15 minutes each, 96
	// attempts fit in that time.
	resetAfter = 24 * time.Hour
	// expiryMargin allows for replica set members with different clocks.
	expiryMargin = time.Hour
	// maxInFlight is twice the time limit of a request. If an attempt is not settled by then, its
	// process was killed or the reply of the database was lost. The attempt counts as a failure.
	maxInFlight = 9 * time.Second
)

// accountLimit is the limit that the response for a rejected account names.
var accountLimit = Limit{"account", freeFailures, longestWait}

// A state is a stored counter. N counts the admitted attempts without a success: failures and
// the Pending attempts in flight.
type state struct {
	N       int       `bson:"n"`
	Pending int       `bson:"pending"`
	At      time.Time `bson:"at"` // of the last attempt of an account
}

// wait returns the time from the last attempt to the next one that is admitted.
func (s state) wait() time.Duration {
	if s.N < freeFailures {
		return 0
	}
	return min(firstWait<<min(s.N-freeFailures, 30), longestWait)
}

// decide returns 0 if an account admits an attempt, otherwise the time that the client must
// wait. If reset is true, the attempt is the first of a new count.
func (s state) decide(now time.Time) (after time.Duration, reset bool) {
	end := s.At.Add(s.wait())
	switch {
	case s.At.Sub(now) > longestWait: // the database's clock was ahead and has been corrected
	case !now.Before(end.Add(resetAfter)):
		return 0, true
	case s.N < freeFailures || !now.Before(end):
	case s.N-s.Pending < freeFailures && now.Sub(s.At) < maxInFlight:
		return undecidedWait, false
	default:
		return end.Sub(now), false
	}
	return 0, false
}

// accountTimes returns the members of an account's counter that an attempt sets. The counter
// expires after the reset of its failures.
func accountTimes(now time.Time, wait time.Duration) bson.D {
	now = now.Truncate(time.Millisecond) // the resolution of MongoDB
	return bson.D{{Key: "at", Value: now}, {Key: "expiresAt", Value: now.Add(wait + resetAfter + expiryMargin)}}
}

// expiry returns the update that ends the attempts of an account or a device that were in flight
// for longer than maxInFlight. Each admitted attempt sets at. So if the last one is that old, all
// of them are. Without this update, no later success would reset the failures.
func (c counter) expiry(now time.Time) *mongo.UpdateOneModel {
	return mongo.NewUpdateOneModel().
		SetFilter(bson.D{{Key: "_id", Value: c.id}, {Key: "pending", Value: bson.D{{Key: "$gte", Value: 1}}}, {Key: "at", Value: bson.D{{Key: "$lte", Value: now.Add(-maxInFlight)}}}}).
		SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "pending", Value: 0}}}})
}

// compareAndSet admits and counts an attempt after the wait of its account. It reports false if
// another attempt came first. A rejected attempt changes nothing, so it does not prolong the
// wait.
func (l *Limiter) compareAndSet(ctx context.Context, c *mongo.Collection, counter counter, s state, now time.Time) (bool, error) {
	after, reset := s.decide(now)
	if after > 0 {
		return false, l.rejected(ctx, counter.limit, after)
	}
	set := accountTimes(now, state{N: s.N + 1}.wait())
	update := bson.D{{Key: "$set", Value: set}, {Key: "$inc", Value: bson.D{{Key: "n", Value: 1}, {Key: "pending", Value: 1}}}}
	if reset {
		update = bson.D{{Key: "$set", Value: append(set, bson.E{Key: "n", Value: 1}, bson.E{Key: "pending", Value: 1})}}
	}
	result, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: counter.id}, {Key: "n", Value: s.N}, {Key: "at", Value: s.At}}, update)
	if err != nil {
		return false, mongodb.Translate("count an attempt", err)
	}
	return result.MatchedCount == 1, nil
}
