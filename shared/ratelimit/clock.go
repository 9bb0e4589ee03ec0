package ratelimit

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/mongodb"
)

// A clock holds the difference between the clock of the process and that of the database. A
// process that used its own clock, an hour off, would take failures for long expired.
// $$NOW needs an update pipeline, which the embedded server does not have.
type clock struct {
	own  func() time.Time
	test func() time.Time // replaces the database's clock in a test

	mu     sync.Mutex
	offset time.Duration // from own to the database's
	read   time.Time     // when the database's time was last read, by own
}

// now returns the database's time, as far as it is known.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own().Add(c.offset)
}

// set notes the database's time of a reply to a request that was sent at a time. The
// database read its clock between the request and the reply. The offset moves no further than
// that requires, so a slow reply does not spoil the offset of a fast one.
func (c *clock) set(at, sent time.Time) {
	received := c.own().Round(0) // wall clock: it may be corrected in between
	if c.test != nil {
		at = c.test()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = max(at.Sub(received), min(c.offset, at.Sub(sent.Round(0))))
	c.read = received
}

// clockMaxAge is how long an offset is used.
const clockMaxAge = time.Minute

func (c *clock) fresh() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own().Round(0).Sub(c.read).Abs() < clockMaxAge
}

// SetClock replaces the database's clock, for a test.
func (l *Limiter) SetClock(now func() time.Time) { l.clock.test = now }

// time returns the database's time. It asks the database once a minute.
func (l *Limiter) time(ctx context.Context, c *mongo.Collection) (time.Time, error) {
	if !l.clock.fresh() {
		sent := l.clock.own()
		var hello struct {
			LocalTime time.Time `bson:"localTime"`
		}
		if err := mongodb.Read(c.Database().RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}), &hello); err != nil {
			return time.Time{}, mongodb.Translate("read the database's time", err)
		}
		l.clock.set(hello.LocalTime, sent)
	}
	return l.clock.now(), nil
}
