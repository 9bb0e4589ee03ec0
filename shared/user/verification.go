package user

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
)

// ErrVerified reports that the user has already proved control of the email.
var ErrVerified = errors.New("the email is already verified")

// RequestVerification requests the mail that verifies the email of an account. It returns
// ErrSessionEnded, ErrVerified or TooManyMails.
func (s *Store) RequestVerification(ctx context.Context, id, sid string, now time.Time) error {
	err := s.change(ctx, id, func(a Account) (*change, error) {
		if err := a.signedIn(sid, now); err != nil {
			return nil, err
		}
		if a.VerifiedAt != nil {
			return nil, ErrVerified
		}
		c := &change{now: now, actor: sid}
		return c, s.ask(c, a, event.Verification, a.Email, verificationTTL)
	})
	return sessionEnded(err)
}

// sessionEnded replaces ErrNotFound by ErrSessionEnded.
func sessionEnded(err error) error {
	if errors.Is(err, ErrNotFound) {
		return ErrSessionEnded
	}
	return err
}

// ConfirmVerification records that the user controls the email. It returns ErrNotPending.
func (s *Store) ConfirmVerification(ctx context.Context, claim Claim, from Origin, now time.Time) error {
	return once(s.confirm(ctx, claim, now, func(a Account, c *change) error {
		if claim.Pending.Email != a.Email {
			return ErrNotPending
		}
		c.entry = Entry{Type: EntryVerified, At: now}.from(from)
		c.verify(a)
		return nil
	}))
}

// verify records that the user controls the email of the account, unless that is recorded.
func (c *change) verify(a Account) {
	if a.VerifiedAt == nil {
		c.set = append(c.set, bson.E{Key: "verifiedAt", Value: c.now})
		c.publish(event.Verified, event.UserVerified{UserID: a.ID, Email: cmp.Or(c.email, a.Email)})
	}
}
