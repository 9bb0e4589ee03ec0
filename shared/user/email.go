package user

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
)

// An Undo restores an earlier email. Its mail goes to that email.
type Undo struct {
	Email      string     `bson:"email"`
	VerifiedAt *time.Time `bson:"verifiedAt,omitempty"`
	At         time.Time  `bson:"at"` // of the change
	ExpiresAt  time.Time  `bson:"expiresAt"`
}

// UndoLimit bounds the stored Undos of an account. None is dropped before it expires: otherwise an
// attacker could make many changes to remove the undo of the first one.
const UndoLimit = 5

// ErrTooManyChanges reports that the email has changed too often.
var ErrTooManyChanges = errors.New("the email has changed too often")

// ErrSame reports that the account has the requested email.
var ErrSame = errors.New("the account has this email")

// LockedPassword is the stored password of an account whose owner must reset it. No password has this
// hash.
const LockedPassword = "locked"

// RequestEmailChange requests the mail that confirms a new email, after the current password was
// checked. It returns ErrSame if the account has that email, ErrChanged, ErrSessionEnded,
// TooManyMails or ErrTooManyChanges.
//
// It does not check whether another account has the new email. Only the reader of that mailbox learns
// this, by ConfirmEmail.
func (s *Store) RequestEmailChange(ctx context.Context, checked Account, sid, to string, from Origin, now time.Time) error {
	err := s.change(ctx, checked.ID, func(a Account) (*change, error) {
		if err := a.checked(checked, sid, now); err != nil {
			return nil, err
		}
		if a.Email == to {
			return nil, ErrSame
		}
		if len(a.undos(now)) >= UndoLimit {
			return nil, ErrTooManyChanges
		}
		c := &change{now: now, actor: sid, entry: Entry{Type: EntryEmailRequested, At: now, Session: sid}.from(from)}
		return c, s.ask(c, a, event.EmailChange, to, emailTTL)
	})
	return sessionEnded(err)
}

// undos returns the keys of the Undos that have not expired, the oldest first.
func (a Account) undos(now time.Time) (valid []string) {
	for _, nonce := range oldestFirst(a.Undo, func(u Undo) time.Time { return u.At }) {
		if a.Undo[nonce].ExpiresAt.After(now) {
			valid = append(valid, nonce)
		}
	}
	return valid
}

// ConfirmEmail replaces the email of an account and ends all its other pending confirmations. The
// earlier email receives a notice with an undo. ConfirmEmail returns ErrNotPending, or ErrDuplicate if
// another account has the email: the unique index decides.
func (s *Store) ConfirmEmail(ctx context.Context, claim Claim, from Origin, now time.Time) error {
	return once(s.confirm(ctx, claim, now, func(a Account, c *change) error {
		c.email = claim.Pending.Email
		c.clear("pending")
		c.entry = Entry{Type: EntryEmailChanged, At: now}.from(from)
		c.set = append(c.set, bson.E{Key: "verifiedAt", Value: now})
		c.publish(event.EmailChanged, event.UserEmailChanged{UserID: a.ID, Email: c.email, Before: a.Email})
		valid := a.undos(now)
		for nonce := range a.Undo {
			if !slices.Contains(valid, nonce) {
				c.clear("undo." + nonce)
			}
		}
		p := newPending(a.Email, now, UndoTTL)
		c.set = append(c.set, bson.E{Key: "undo." + p.Nonce, Value: Undo{a.Email, a.VerifiedAt, now, p.ExpiresAt}})
		err := c.mail(a, event.RequestedMail{To: a.Email, Purpose: event.EmailUndo, Nonce: p.Nonce, ExpiresAt: p.ExpiresAt, Agent: from.Agent, Place: from.Place})
		if _, limited := errors.AsType[TooManyMails](err); limited {
			err = ErrTooManyChanges // without the undo, the change must not happen
		}
		return err
	}))
}

// UndoEmail restores an earlier email with the proof of its mail. It ends all sessions, all pending
// confirmations, all device tokens and the undos of later changes. An attacker that has changed the
// email knows the password, so the owner must reset that (see LockedPassword). UndoEmail returns
// ErrNotPending, or ErrDuplicate if another account has the email and has verified it.
//
// The token proves control of the mailbox. So an account that has taken the email without verifying it
// loses it: otherwise an attacker could prevent the undo by a sign-up with the email.
func (s *Store) UndoEmail(ctx context.Context, id, nonce string, proof Proof, from Origin, now time.Time) error {
	var email string
	undo := func() error { return s.undoEmail(ctx, id, nonce, proof, from, now, &email) }
	err := undo()
	if errors.Is(err, ErrDuplicate) {
		if err = s.displace(ctx, email, now); err == nil {
			err = undo()
		}
	}
	return err
}

// displace takes an email from an account that has not verified it. The account gets a placeholder, ends
// its sessions and is disabled, so that an operator can decide about it. displace returns ErrDuplicate if
// the account has verified the email.
func (s *Store) displace(ctx context.Context, email string, now time.Time) error {
	found, err := s.Account(ctx, email)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = s.change(ctx, found.ID, func(a Account) (*change, error) {
		if a.Email != email {
			return nil, nil
		}
		if a.VerifiedAt != nil {
			return nil, ErrDuplicate
		}
		c := &change{now: now, email: "displaced:" + a.ID, end: a.validSessions("", now), reason: event.Disabled,
			set: bson.D{{Key: "disabledAt", Value: now}}}
		c.clear("pending")
		return c, nil
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return err
}

func (s *Store) undoEmail(ctx context.Context, id, nonce string, proof Proof, from Origin, now time.Time, email *string) error {
	err := s.change(ctx, id, func(a Account) (*change, error) {
		if done, exists := a.Confirmed[event.EmailUndo]; exists && done.Nonce == nonce && now.Sub(done.At) <= ReplayWindow && proof(done.Pending) {
			return nil, nil
		}
		u, exists := a.Undo[nonce]
		p := Pending{Nonce: nonce, Email: u.Email, ExpiresAt: u.ExpiresAt}
		if !exists || !u.ExpiresAt.After(now) || a.DisabledAt != nil || a.Deletes(now) || !proof(p) {
			return nil, ErrNotPending
		}
		*email = u.Email
		c := &change{now: now, enabled: true, email: u.Email, end: a.validSessions("", now), reason: event.Recovered,
			set: bson.D{
				{Key: "password", Value: LockedPassword},
				{Key: "confirmed." + string(event.EmailUndo), Value: confirmed{p, now}},
			},
			entry: Entry{Type: EntryEmailUndone, At: now}.from(from),
		}
		c.clear("pending", "devices", "deletesAt", "mailed."+string(event.Recovery)) // of the attacker
		if u.VerifiedAt != nil {
			c.set = append(c.set, bson.E{Key: "verifiedAt", Value: *u.VerifiedAt})
		} else { // the token proves control of the email
			a.VerifiedAt = nil
			c.verify(a)
		}
		for other, later := range a.Undo {
			if !later.At.Before(u.At) {
				c.clear("undo." + other)
			}
		}
		c.publish(event.EmailChanged, event.UserEmailChanged{UserID: a.ID, Email: u.Email, Before: a.Email})
		return c, nil
	})
	if errors.Is(err, ErrNotFound) {
		err = ErrNotPending
	}
	return err
}
