package ratelimit

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/mongodb"
)

// A clock estimates the database's time from the clock of the process and an offset. If the
// clock of a process were an hour wrong, the process alone would treat failures as expired. The
// alternative, $$NOW, needs an update pipeline; the embedded server does not support it.
type clock struct {
	own  func() time.Time
	test func() time.Time // replaces the database's clock in a test

	mu     sync.Mutex
	offset time.Duration // of the database relative to own
	read   time.Time     // last update of offset, by own
}

// now returns the estimated time of the database.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own().Add(c.offset)
}

// set updates the offset from the database's time in the reply to a command. The database read
// its clock between sent and the receipt of the reply. set changes the offset no further than
// that interval requires. So a slow reply does not impair the offset of a fast one.
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

// clockMaxAge is the time after which an offset is read again.
const clockMaxAge = time.Minute

func (c *clock) fresh() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own().Round(0).Sub(c.read).Abs() < clockMaxAge
}

// SetClock replaces the database's clock in a test.
func (l *Limiter) SetClock(now func() time.Time) { l.clock.test = now }

// setClock reads the database's time, once per clockMaxAge.
func (l *Limiter) setClock(ctx context.Context, c *mongo.Collection) error {
	if l.clock.fresh() {
		return nil
	}
	sent := l.clock.own()
	var hello struct {
		LocalTime time.Time `bson:"localTime"`
	}
	if err := mongodb.Read(c.Database().RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}), &hello); err != nil {
		return mongodb.Translate("read the database's time", err)
	}
	l.clock.set(hello.LocalTime, sent)
	return nil
}
