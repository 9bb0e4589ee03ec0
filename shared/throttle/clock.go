package throttle

import (
	"context"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/database"
)

// A clock tells the database's time. All processes count by that and none by its own:
// one whose clock is an hour off would find the failures of an account long past, and
// let everybody guess anew.
//
// It costs nothing: each count of an address brings the time along, so who comes to
// count for an account has just heard it.
type clock struct {
	own     func() time.Time
	instead func() time.Time // of a bench: what is counted by instead of the database's

	mu     sync.Mutex
	offset time.Duration // from own to the database's
	heard  time.Time     // when that was last heard of, by own
}

// now returns the database's time as far as it is known.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own().Add(c.offset)
}

// hear takes note of the time that an answer brought. The database read it at some
// moment after it was asked and before it was heard, so the offset is moved no
// further than that demands, and a slow answer spoils nothing that a fast one told.
func (c *clock) hear(at, asked time.Time) {
	heard := c.own().Round(0) // the clock's time, which may be put right in between, and not Go's count of it
	if c.instead != nil {
		at = c.instead()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset = max(at.Sub(heard), min(c.offset, at.Sub(asked.Round(0))))
	c.heard = heard
}

// lately is for how long a clock of our own goes as the database's does.
const lately = time.Minute

func (c *clock) heardLately() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.own().Round(0).Sub(c.heard).Abs() < lately
}

// By has everything be counted by another clock than the database's: a bench's, which
// moves when told to.
func (t *Throttle) By(now func() time.Time) { t.clock.instead = now }

// time returns the database's time. It asks for it where none was heard lately: the
// count of an address goes on without an answer, that of an account must not.
func (t *Throttle) time(ctx context.Context, c *mongo.Collection) (time.Time, error) {
	if !t.clock.heardLately() {
		asked := t.clock.own()
		var hello struct {
			LocalTime time.Time `bson:"localTime"`
		}
		if err := database.Read(c.Database().RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}), &hello); err != nil {
			return time.Time{}, database.Translate("ask for the time", err)
		}
		t.clock.hear(hello.LocalTime, asked)
	}
	return t.clock.now(), nil
}
