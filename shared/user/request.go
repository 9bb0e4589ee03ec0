package user

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/mongodb"
)

// handledLimit bounds the stored keys of requests of other services in a user's document. The
// newest are stored. A broker stops retrying a delivery within minutes, and no service makes so
// many requests for one user in that time.
const handledLimit = 20

// maxAttempts bounds the attempts of a compare-and-set while the account changes concurrently.
const maxAttempts = 16

// openedUnchanged matches an account that has no new session since it was read. An imported user
// has no member opened before the first sign-in.
func openedUnchanged(a Account) bson.E {
	if a.Opened == 0 {
		return bson.E{Key: "opened", Value: bson.D{{Key: "$in", Value: bson.A{nil, 0}}}}
	}
	return bson.E{Key: "opened", Value: a.Opened}
}

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
	users, err := s.users(ctx)
	if err != nil {
		return 0, err
	}
	for range maxAttempts {
		a, err := s.AccountByID(ctx, id)
		if errors.Is(err, ErrNotFound) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if before, done := a.Handled[key]; done {
			return before.Ended, nil
		}
		sids := a.validSessions(sid, now)
		update, events := s.ending(ctx, a, sids, key, now)
		// The filter holds all preconditions of the update: the sessions still exist, no
		// other session was opened, and the request is not handled yet.
		filter := bson.D{{Key: "_id", Value: id}, openedUnchanged(a), {Key: "handled." + key, Value: bson.D{{Key: "$exists", Value: false}}}}
		for _, sid := range sids {
			filter = append(filter, bson.E{Key: session(sid), Value: bson.D{{Key: "$exists", Value: true}}})
		}
		result, err := users.UpdateOne(ctx, filter, update)
		if err != nil {
			return 0, mongodb.Translate("end sessions on request", err)
		}
		if result.MatchedCount == 1 {
			s.outbox.Deliver(ctx, &outbox.Window{}, events)
			return len(sids), nil
		}
	}
	return 0, apierror.Busy(time.Second, errors.New("end sessions on request: each attempt met a concurrent change of the account"))
}

// validSessions returns the id sid if that session is valid, or the ids of all valid sessions if
// sid is empty.
func (a Account) validSessions(sid string, now time.Time) (sids []string) {
	for id, s := range a.Sessions {
		if s.ExpiresAt.After(now) && (sid == "" || sid == id) {
			sids = append(sids, id)
		}
	}
	slices.Sort(sids)
	return sids
}

// ending returns the update that ends sessions, and its events. It also removes expired sessions
// and the oldest handled requests.
func (s *Store) ending(ctx context.Context, a Account, sids []string, key string, now time.Time) (bson.D, *outbox.Events) {
	var unset bson.D
	var ended []any
	for _, sid := range sids {
		unset = append(unset, bson.E{Key: session(sid), Value: ""})
		ended = append(ended, event.UserSignedOut{UserID: a.ID, SessionID: sid, Reason: event.OnRequest})
	}
	for sid, open := range a.Sessions {
		if !open.ExpiresAt.After(now) {
			unset = append(unset, bson.E{Key: session(sid), Value: ""})
		}
	}
	for _, old := range a.oldestHandled() {
		unset = append(unset, bson.E{Key: "handled." + old, Value: ""})
	}
	events := s.outbox.Events(ctx, a.ID, event.SignedOut, ended...)
	var set, more bson.D
	if len(sids) > 0 {
		set, more = recorded(sids, now)
	}
	set = append(set, bson.E{Key: "handled." + key, Value: handled{At: now, Ended: len(sids)}})
	return events.Update(set, unset, more), events
}

// oldestHandled returns the keys of the oldest requests to remove before one more is stored.
func (a Account) oldestHandled() []string {
	keys := oldestFirst(a.Handled, func(h handled) time.Time { return h.At })
	return keys[:max(0, len(keys)-handledLimit+1)]
}
