package user

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
)

// handledLimit bounds how many requests of other services a user's document
// remembers, the newest. A broker gives up on a delivery within minutes; nobody
// signs a person out so often in that time.
const handledLimit = 20

// tries bounds how often it begins anew because the account changed meanwhile.
const tries = 16

// unopened matches an account to which no session was added since it was read. A
// user that was brought along has no such member before the first sign-in.
func unopened(a Account) bson.E {
	if a.Opened == 0 {
		return bson.E{Key: "opened", Value: bson.D{{Key: "$in", Value: bson.A{nil, 0}}}}
	}
	return bson.E{Key: "opened", Value: a.Opened}
}

// handled is what was done on a request that came as an event.
type handled struct {
	At    time.Time `bson:"at"`
	Ended int       `bson:"ended"`
}

// EndOnRequest ends one session of a user, or all where sid is empty, because
// another service asked for it by an event, and returns how many it ended. The
// same key again returns the same number and changes nothing: a person who has
// signed in since stays signed in.
//
// What was done is remembered in the user's own document, by the write that does
// it, so there is no moment in which one is true without the other. A user that
// does not exist has nothing to end and nothing to remember.
func (s *Store) EndOnRequest(ctx context.Context, id, sid, key string, now time.Time) (ended int, err error) {
	users, err := s.users(ctx)
	if err != nil {
		return 0, err
	}
	for range tries {
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
		sids := a.live(sid, now)
		update, events := s.ending(ctx, a, sids, key, now)
		// the filter holds all that the update was made from: the sessions are
		// still there, no other was opened, and nobody handled the request
		filter := bson.D{{Key: "_id", Value: id}, unopened(a), {Key: "handled." + key, Value: bson.D{{Key: "$exists", Value: false}}}}
		for _, sid := range sids {
			filter = append(filter, bson.E{Key: session(sid), Value: bson.D{{Key: "$exists", Value: true}}})
		}
		result, err := users.UpdateOne(ctx, filter, update)
		if err != nil {
			return 0, mongodb.Translate("end sessions on request", err)
		}
		if result.MatchedCount == 1 {
			w := s.outbox.window(ctx)
			defer w.close()
			s.outbox.deliver(ctx, w, users, events)
			return len(sids), nil
		}
	}
	return 0, apierror.Busy(time.Second, errors.New("end sessions on request: the account keeps changing"))
}

// live returns the named session if it lives, or all that live where none is
// named.
func (a Account) live(sid string, now time.Time) (sids []string) {
	for id, s := range a.Sessions {
		if s.ExpiresAt.After(now) && (sid == "" || sid == id) {
			sids = append(sids, id)
		}
	}
	slices.Sort(sids)
	return sids
}

func (s *Store) ending(ctx context.Context, a Account, sids []string, key string, now time.Time) (bson.D, *events) {
	var unset bson.D
	var told []event.Data
	for _, sid := range sids {
		unset = append(unset, bson.E{Key: session(sid), Value: ""})
		told = append(told, event.Data{UserID: a.ID, SessionID: sid, Reason: event.OnRequest})
	}
	for sid, open := range a.Sessions {
		if !open.ExpiresAt.After(now) {
			unset = append(unset, bson.E{Key: session(sid), Value: ""})
		}
	}
	for _, old := range a.forgettable() {
		unset = append(unset, bson.E{Key: "handled." + old, Value: ""})
	}
	events := s.outbox.events(ctx, a.ID, event.SignedOut, told...)
	set := bson.D{{Key: "handled." + key, Value: handled{At: now, Ended: len(sids)}}}
	return update(set, unset, nil, events), events
}

// forgettable names the oldest requests that must be forgotten so that one more
// fits.
func (a Account) forgettable() []string {
	keys := make([]string, 0, len(a.Handled))
	for key := range a.Handled {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(x, y string) int {
		return cmp.Or(a.Handled[x].At.Compare(a.Handled[y].At), cmp.Compare(x, y))
	})
	return keys[:max(0, len(keys)-handledLimit+1)]
}
