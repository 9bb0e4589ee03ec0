package ratelimit

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/mongodb"
)

const (
	freeFailures = 10 // of an account, without a wait
	firstWait    = time.Second
	longestWait  = 15 * time.Minute
	// forgiveAfter is how long after the end of a wait the failures are forgiven, if no
	// attempt has succeeded. An attacker gains nothing from it: in that time 96 attempts have
	// waited 15 minutes each.
	forgiveAfter = 24 * time.Hour
	// expiryMargin is for members of a replica set whose clocks differ.
	expiryMargin = time.Hour
	// maxInFlight is twice the time limit of a request. An attempt that was not settled by
	// then was killed, and counts as a failure.
	maxInFlight = 9 * time.Second
)

// accountLimit is the limit that an account's response names.
var accountLimit = Limit{"account", freeFailures, longestWait}

// A state is a stored counter. N counts attempts that were let in and have not succeeded:
// failures, and the pending ones in flight.
type state struct {
	N       int       `bson:"n"`
	Pending int       `bson:"pending"`
	At      time.Time `bson:"at"` // of the last attempt of an account
}

// wait returns how long after the last attempt the next one is let in.
func (s state) wait() time.Duration {
	if s.N < freeFailures {
		return 0
	}
	return min(firstWait<<min(s.N-freeFailures, 30), longestWait)
}

// decide returns whether an account lets an attempt in, and otherwise how long the client
// must wait. If forgiven, the attempt is the first of a new count.
func (s state) decide(now time.Time) (after time.Duration, forgiven bool) {
	end := s.At.Add(s.wait())
	switch {
	case s.At.Sub(now) > longestWait: // the database's clock was ahead and has been corrected
	case !now.Before(end.Add(forgiveAfter)):
		return 0, true
	case s.N < freeFailures || !now.Before(end):
	case s.N-s.Pending < freeFailures && now.Sub(s.At) < maxInFlight:
		return undecidedWait, false
	default:
		return end.Sub(now), false
	}
	return 0, false
}

// accountTimes are the members of an account's counter that an attempt sets. The counter
// expires after the failures are forgiven.
func accountTimes(now time.Time, wait time.Duration) bson.D {
	now = now.Truncate(time.Millisecond) // the resolution of MongoDB
	return bson.D{{Key: "at", Value: now}, {Key: "expiresAt", Value: now.Add(wait + forgiveAfter + expiryMargin)}}
}

// compareAndSet lets an attempt in if its account's wait is over. It reports false if another
// attempt came first. An attempt that is rejected changes nothing, so it does not prolong a
// wait.
func (l *Limiter) compareAndSet(ctx context.Context, c *mongo.Collection, counter counter, s state, now time.Time) (bool, error) {
	after, forgiven := s.decide(now)
	if after > 0 {
		return false, apierror.Limited(counter.limit.Name, counter.limit.Quota, counter.limit.Window, after)
	}
	set := accountTimes(now, state{N: s.N + 1}.wait())
	update := bson.D{{Key: "$set", Value: set}, {Key: "$inc", Value: bson.D{{Key: "n", Value: 1}, {Key: "pending", Value: 1}}}}
	if forgiven {
		update = bson.D{{Key: "$set", Value: append(set, bson.E{Key: "n", Value: 1}, bson.E{Key: "pending", Value: 1})}}
	}
	result, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: counter.id}, {Key: "n", Value: s.N}, {Key: "at", Value: s.At}}, update)
	if err != nil {
		return false, mongodb.Translate("count an attempt", err)
	}
	return result.MatchedCount == 1, nil
}
