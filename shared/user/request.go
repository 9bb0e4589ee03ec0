package user

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
)

// handledLimit bounds the stored keys of requests of other services in a user's document. The
// newest are stored. A broker stops retrying a delivery within minutes, and no service makes so
// many requests for one user in that time.
const handledLimit = 20

// handled is the result of a request that was received as an event.
type handled struct {
	At    time.Time `bson:"at"`
	Ended int       `bson:"ended"`
}

// EndOnRequest ends one session of a user, or all sessions if sid is empty. Another service has
// requested this by an event. EndOnRequest returns the number of sessions that it ended.
//
// A repeated key returns the same number and changes nothing. So a redelivered event does not end
// the sessions of later sign-ins.
//
// One write ends the sessions and stores the result in the user's document, so both happen or
// neither does. For a user that does not exist, EndOnRequest stores nothing and returns 0.
func (s *Store) EndOnRequest(ctx context.Context, id, sid, key string, now time.Time) (ended int, err error) {
	err = s.change(ctx, id, func(a Account) (*change, error) {
		if before, done := a.Handled[key]; done {
			ended = before.Ended
			return nil, nil
		}
		c := &change{now: now, end: a.validSessions(sid, now), reason: event.OnRequest}
		if len(c.end) > 0 {
			c.entry = Entry{Type: EntrySessionsEnded, At: now, Reason: event.OnRequest}
		}
		ended = len(c.end)
		c.set = bson.D{{Key: "handled." + key, Value: handled{At: now, Ended: ended}}}
		for _, old := range a.oldestHandled() {
			c.unset = append(c.unset, bson.E{Key: "handled." + old, Value: ""})
		}
		return c, nil
	})
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return ended, err
}

// oldestHandled returns the keys of the oldest requests to remove before one more is stored.
func (a Account) oldestHandled() []string {
	keys := oldestFirst(a.Handled, func(h handled) time.Time { return h.At })
	return keys[:max(0, len(keys)-handledLimit+1)]
}
