package user

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
)

// ChangePassword replaces the hash of the password of an account, after the current password was
// checked. It ends all sessions but one, and returns their number. It also ends a pending recovery
// and a pending change of the email, and forgets all devices but the one with the digest. It returns
// ErrChanged if the password has changed since the check, or ErrSessionEnded.
func (s *Store) ChangePassword(ctx context.Context, checked Account, sid, device, hash string, from Origin, now time.Time) (ended int, err error) {
	err = s.change(ctx, checked.ID, func(a Account) (*change, error) {
		if err := a.checked(checked, sid, now); err != nil {
			return nil, err
		}
		c := &change{now: now, actor: sid, end: a.others(sid, now), reason: event.NewSecret,
			set:   bson.D{{Key: "password", Value: hash}},
			entry: Entry{Type: EntryPasswordChanged, At: now, Session: sid}.from(from)}
		ended = len(c.end)
		// a client that knew the earlier password may have requested or registered them
		c.clear("pending."+string(event.Recovery), "pending."+string(event.EmailChange))
		for d := range a.Devices {
			if d != device {
				c.clear("devices." + d)
			}
		}
		c.publish(event.PasswordChanged, event.UserPasswordChanged{UserID: a.ID, By: event.ByChange})
		c.notice(a, event.PasswordNotice, from)
		return c, nil
	})
	return ended, sessionEnded(err)
}

// checked returns nil if a session of the account is valid and its password is the one that was
// checked.
func (a Account) checked(before Account, sid string, now time.Time) error {
	if err := a.signedIn(sid, now); err != nil {
		return err
	}
	if a.Password != before.Password {
		return ErrChanged
	}
	return nil
}

// RequestRecovery requests the mail with which the owner of an email resets the password. It returns
// ErrNotFound or TooManyMails.
func (s *Store) RequestRecovery(ctx context.Context, email string, now time.Time) error {
	found, err := s.Account(ctx, email)
	if err != nil {
		return err
	}
	return s.change(ctx, found.ID, func(a Account) (*change, error) {
		if a.Email != email || a.DisabledAt != nil || a.Deletes(now) {
			return nil, ErrNotFound
		}
		c := &change{now: now, enabled: true}
		return c, s.ask(c, a, event.Recovery, email, recoveryTTL)
	})
}

// ConfirmRecovery replaces the hash of the password. It ends all sessions, every other pending
// confirmation and every device token: an attacker may have created them, also before the owner of
// the email used the system. The mail proves control of the email, so it is verified from now on. It
// returns ErrNotPending. If a concurrent request has given the confirmation, perhaps with another
// password, it returns ErrChanged.
//
// The undo of an earlier change of the email stays. Otherwise an attacker that has changed the email
// could use a recovery to take the undo from the owner.
func (s *Store) ConfirmRecovery(ctx context.Context, claim Claim, hash string, from Origin, now time.Time) error {
	err := s.confirm(ctx, claim, now, func(a Account, c *change) error {
		if claim.Pending.Email != a.Email || a.Deletes(now) {
			return ErrNotPending
		}
		c.end, c.reason = a.validSessions("", now), event.Recovered
		c.set = append(c.set, bson.E{Key: "password", Value: hash})
		c.clear("pending", "devices")
		c.entry = Entry{Type: EntryRecovered, At: now}.from(from)
		c.verify(a)
		c.publish(event.PasswordChanged, event.UserPasswordChanged{UserID: a.ID, By: event.ByReset})
		c.notice(a, event.PasswordNotice, from)
		return nil
	})
	if errors.Is(err, errConfirmed) {
		err = ErrChanged
	}
	return err
}
