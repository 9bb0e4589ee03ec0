package user

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/mongodb"
)

const (
	// EndedTTL is the time for which an ended session stays recorded. No access token lives
	// longer.
	EndedTTL = 25 * time.Hour

	// endedLimit bounds the recorded sessions of a user. A change over the limit replaces the
	// oldest records by endedBefore.
	endedLimit = 50

	// endedOverlap is the age up to which a recorded session can be invisible to a reader that
	// sees newer ones: the clocks of processes differ, by at most token.Leeway, and a write
	// takes up to 5 s after its process has read the clock.
	endedOverlap = 40 * time.Second
)

// Ended holds the sessions of a user that ended recently.
type Ended struct {
	User     string
	Sessions []string  // sorted
	Before   time.Time // zero, or the time of an end that has no record: tokens issued before may be of an ended session
}

// Ended returns the sessions that ended at the time since or later, ordered by user, and the time
// from which the next call must ask. A caller that always passes that time misses no session and
// can receive one twice.
//
// It is one read of an index. On the embedded server it reads every user.
func (s *Store) Ended(ctx context.Context, since time.Time) (all []Ended, next time.Time, err error) {
	users, err := s.users(ctx)
	if err != nil {
		return nil, since, err
	}
	// A time ahead of this process comes from a wrong clock. It must not hide the records of
	// others, which are older.
	latest := s.outbox.Now().Add(-endedOverlap)
	if since.After(latest) {
		since = latest
	}
	found, err := users.Find(ctx, bson.D{{Key: "endedAt", Value: bson.D{{Key: "$gte", Value: since}}}},
		options.Find().SetProjection(bson.D{{Key: "ended", Value: 1}, {Key: "endedBefore", Value: 1}, {Key: "endedAt", Value: 1}}))
	if err != nil {
		return nil, since, mongodb.Translate("find ended sessions", err)
	}
	defer found.Close(ctx)
	next = since
	for found.Next(ctx) {
		var d struct {
			ID          string               `bson:"_id"`
			Ended       map[string]time.Time `bson:"ended"`
			EndedBefore time.Time            `bson:"endedBefore"`
			EndedAt     time.Time            `bson:"endedAt"`
		}
		if err := found.Decode(&d); err != nil { // must not stop the feed for all other users
			s.outbox.Log.ErrorContext(ctx, "stored ended sessions cannot be read", "user", idText(found.Current), "error", "a member has an unexpected type")
			continue
		}
		e := Ended{User: d.ID}
		for sid, at := range d.Ended {
			if !at.Before(since) {
				e.Sessions = append(e.Sessions, sid)
			}
		}
		slices.Sort(e.Sessions)
		if !d.EndedBefore.Before(since) {
			e.Before = d.EndedBefore
		}
		all = append(all, e)
		at := d.EndedAt.Add(-endedOverlap)
		if at.After(latest) {
			at = latest
		}
		if at.After(next) {
			next = at
		}
	}
	if err := found.Err(); err != nil {
		return nil, since, mongodb.Translate("find ended sessions", err)
	}
	slices.SortFunc(all, func(x, y Ended) int { return cmp.Compare(x.User, y.User) })
	return all, next, nil
}

// recorded returns the members that an update sets to record ended sessions, and the operator that
// makes the record visible to Ended. Of many sessions it records only the time: endedBefore.
func recorded(sids []string, now time.Time) (set, more bson.D) {
	latest := bson.D{{Key: "endedAt", Value: now}}
	if len(sids) > endedLimit {
		latest = append(latest, bson.E{Key: "endedBefore", Value: now})
	} else {
		for _, sid := range sids {
			set = append(set, bson.E{Key: "ended." + sid, Value: now})
		}
	}
	return set, bson.D{{Key: "$max", Value: latest}}
}

// staleEnded returns the records to remove: the expired ones, and the oldest ones over the limit.
// before is the time of the newest of the latter, or zero.
func (a Account) staleEnded(now time.Time) (sids []string, before time.Time) {
	all := oldestFirst(a.Ended, func(at time.Time) time.Time { return at })
	for i, sid := range all {
		at := a.Ended[sid]
		switch {
		case now.Sub(at) >= EndedTTL:
		case len(all)-i > endedLimit:
			before = at
		default:
			return sids, before
		}
		sids = append(sids, sid)
	}
	return sids, before
}
