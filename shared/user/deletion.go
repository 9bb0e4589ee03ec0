package user

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/outbox"
	"ticketing.com/auth/shared/mongodb"
)

// Deletes reports whether the grace period of the account has ended. From then on the account cannot
// be used, also before Erase has removed it.
func (a Account) Deletes(now time.Time) bool { return a.DeletesAt != nil && !a.DeletesAt.After(now) }

// ErrNotDeleting reports that no deletion of the account is pending.
var ErrNotDeleting = errors.New("no deletion of the account is pending")

// RequestDeletion ends all sessions of an account, after the current password was checked, and
// schedules its deletion after the grace period. It returns the time of the deletion. It returns
// ErrChanged or ErrSessionEnded.
func (s *Store) RequestDeletion(ctx context.Context, checked Account, sid string, grace time.Duration, from Origin, now time.Time) (at time.Time, err error) {
	at = now.Add(grace).UTC().Truncate(time.Millisecond)
	err = s.change(ctx, checked.ID, func(a Account) (*change, error) {
		if err := a.checked(checked, sid, now); err != nil {
			return nil, err
		}
		c := &change{now: now, actor: sid, end: a.validSessions("", now), reason: event.Deleted,
			set:   bson.D{{Key: "deletesAt", Value: at}},
			entry: Entry{Type: EntryDeletionRequested, At: now, Session: sid}.from(from)}
		c.clear("pending")
		c.publish(event.DeletionRequested, event.UserDeletionRequested{UserID: a.ID, DeletesAt: at})
		c.mail(a, event.RequestedMail{To: a.Email, Purpose: event.DeletionNotice, Agent: from.Agent, Place: from.Place, DeletesAt: at})
		return c, nil
	})
	return at, sessionEnded(err)
}

// Restore cancels the deletion of an account, after its password was checked. It returns ErrChanged
// if the password has changed since the check or the grace period has ended.
func (s *Store) Restore(ctx context.Context, checked Account, from Origin, now time.Time) error {
	return s.change(ctx, checked.ID, func(a Account) (*change, error) {
		if a.Password != checked.Password || a.DisabledAt != nil || a.Deletes(now) {
			return nil, ErrChanged
		}
		if a.DeletesAt == nil {
			if last := a.Entries()[:min(1, len(a.History))]; len(last) == 1 && last[0].Type == EntryRestored && now.Sub(last[0].At) <= ReplayWindow {
				return nil, nil // the response was lost
			}
			return nil, ErrNotDeleting
		}
		c := &change{now: now, entry: Entry{Type: EntryRestored, At: now}.from(from)}
		c.clear("deletesAt")
		return c, nil
	})
}

const (
	// tombstoneTTL is the time for which the id of an erased account stays stored. A repeated
	// request with the key of its sign-up cannot create the account again in this time.
	tombstoneTTL = 90 * 24 * time.Hour
	// eraseLimit bounds the accounts that one call of EraseDue tries to erase, and dueLimit the accounts
	// that it looks at.
	eraseLimit, dueLimit = 100, 1000
)

// erasedEmail returns the value of the member email of a tombstone. It is unique, and no address.
func erasedEmail(id string) string { return "erased:" + id }

// Erase removes everything of an account whose grace period has ended, and publishes that. It returns
// nil if the account was restored or erased before.
//
// One write replaces the document by a tombstone: the id, the events that no sink has acknowledged
// or refused, and the ended sessions. Its filter holds that no change was made since the read.
func (s *Store) Erase(ctx context.Context, id string, now time.Time) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	for range maxAttempts {
		a, err := s.AccountByID(ctx, id)
		if errors.Is(err, ErrNotFound) || err == nil && (a.ErasedAt != nil || !a.Deletes(now)) {
			return nil
		}
		if err != nil {
			return err
		}
		events := s.outbox.Events(ctx, id, event.UserDeleted, event.DeletedUser{UserID: id})
		tombstone := bson.D{{Key: "_id", Value: id}, {Key: "email", Value: erasedEmail(id)}, {Key: "erasedAt", Value: now}, {Key: "removeAt", Value: now.Add(tombstoneTTL)}, {Key: "changes", Value: a.Changes + 1}}
		if len(a.Ended) > 0 {
			tombstone = append(tombstone, bson.E{Key: "ended", Value: a.Ended})
		}
		if !a.EndedBefore.IsZero() {
			tombstone = append(tombstone, bson.E{Key: "endedBefore", Value: a.EndedBefore})
		}
		if !a.EndedAt.IsZero() {
			tombstone = append(tombstone, bson.E{Key: "endedAt", Value: a.EndedAt})
		}
		result, err := users.ReplaceOne(ctx,
			bson.D{{Key: "_id", Value: id}, {Key: "deletesAt", Value: a.DeletesAt}, unchanged("changes", a.Changes), unchanged("opened", a.Opened)},
			append(tombstone, events.With(a.Document)...))
		if err != nil {
			return mongodb.Translate("erase an account", err)
		}
		if result.MatchedCount == 1 {
			s.outbox.Deliver(ctx, &outbox.Window{}, events)
			return nil
		}
	}
	return apierror.Busy(time.Second, errors.New("erase an account: each attempt met a concurrent change"))
}

// EraseDue erases accounts whose grace period has ended. It tries 100 at most, so its time is bounded. It
// logs and skips accounts that cannot be read, among the first 1,000. It returns the first error of the
// others.
func (s *Store) EraseDue(ctx context.Context, now time.Time) error {
	users, err := s.users(ctx)
	if err != nil {
		return err
	}
	found, err := users.Find(ctx, bson.D{{Key: "deletesAt", Value: bson.D{{Key: "$lte", Value: now}}}},
		options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}).SetLimit(dueLimit))
	if err != nil {
		return mongodb.Translate("find accounts to erase", err)
	}
	var due []bson.Raw
	if err := found.All(ctx, &due); err != nil {
		return mongodb.Translate("find accounts to erase", err)
	}
	var first error
	tried := 0
	for _, d := range due {
		id, is := d.Lookup("_id").StringValueOK()
		if !is {
			s.outbox.Log.ErrorContext(ctx, "an account was not erased: its id is not a string", "user", idText(d))
			continue
		}
		err := s.Erase(ctx, id, now)
		if errors.Is(err, ErrUnreadable) {
			continue
		}
		first = cmp.Or(first, err)
		if tried++; tried == eraseLimit {
			break
		}
	}
	return first
}
