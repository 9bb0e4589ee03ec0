package user

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/events/event"
)

// A Pending is a confirmation that the user has not given yet. The token and the code of its mail derive
// from it and from a key that the database does not hold (see package confirmation).
type Pending struct {
	Nonce     string    `bson:"nonce"`
	Email     string    `bson:"email"` // the recipient of the mail
	ExpiresAt time.Time `bson:"expiresAt"`
}

// A confirmed Pending lets a request succeed that is repeated within ReplayWindow. The next confirmation of
// the purpose replaces it.
type confirmed struct {
	Pending `bson:",inline"`
	At      time.Time `bson:"at"`
}

// The lifetimes of tokens and codes.
const (
	verificationTTL = 24 * time.Hour
	recoveryTTL     = time.Hour
	emailTTL        = time.Hour
	UndoTTL         = 7 * 24 * time.Hour
)

// The limits of the mails of an account, for each purpose. Function mail has the same limits for each
// recipient, which also count other accounts.
const mailsPerHour, mailsPerDay = 3, 10

var (
	// ErrNotPending reports that a token or a code is wrong, expired, or used.
	ErrNotPending = errors.New("the token or code is wrong, expired or used")
	// errConfirmed reports that a concurrent request has given the confirmation.
	errConfirmed = errors.New("the token or code was just used")
	// ErrNoMails reports that nothing takes the requests for mails.
	ErrNoMails = errors.New("the system sends no mails: K_SINK is not set, and the process has no function mail")
)

// A TooManyMails error reports that the account has requested Quota mails in a Window. The first of
// these leaves the window after Wait.
type TooManyMails struct {
	Quota        int
	Window, Wait time.Duration
}

// Error implements error.
func (e TooManyMails) Error() string { return "too many mails were requested for this account" }

// wait returns the limit that the times, the oldest first, have reached for the longest time, or nil.
func wait(times []time.Time, now time.Time) error {
	var longest TooManyMails
	for _, l := range []TooManyMails{{Quota: mailsPerHour, Window: time.Hour}, {Quota: mailsPerDay, Window: 24 * time.Hour}} {
		if first := len(times) - l.Quota; first >= 0 {
			l.Wait = times[first].Add(l.Window).Sub(now)
			if l.Wait > longest.Wait {
				longest = l
			}
		}
	}
	if longest.Wait == 0 {
		return nil
	}
	return longest
}

// mail returns the request for a mail, and records it in the change. It returns TooManyMails at the
// limit of mails with this purpose.
func (c *change) mail(a Account, m event.RequestedMail) error {
	var recent []time.Time
	for _, at := range a.Mailed[m.Purpose] {
		if c.now.Sub(at) < 24*time.Hour {
			recent = append(recent, at)
		}
	}
	if err := wait(recent, c.now); err != nil {
		return err
	}
	c.set = append(c.set, bson.E{Key: "mailed." + string(m.Purpose), Value: append(recent, c.now)})
	c.publish(event.MailRequested, a.mail(m, c.now))
	return nil
}

// mail returns the request for a mail of the account, of which the caller has set the recipient and the
// purpose.
func (a Account) mail(m event.RequestedMail, now time.Time) event.RequestedMail {
	m.UserID, m.Locale, m.Template, m.At = a.ID, a.Language, m.Purpose, now.UTC().Truncate(time.Millisecond)
	return m
}

// notice requests a mail without a token. At the limit it requests none: the history has the entry.
func (c *change) notice(a Account, purpose event.Purpose, from Origin) {
	c.mail(a, event.RequestedMail{To: a.Email, Purpose: purpose, Agent: from.Agent, Place: from.Place})
}

// ask requests the mail of a confirmation. A repeated request within the lifetime asks for the same
// confirmation: an attacker that repeats it cannot invalidate the mail that the user has received.
func (s *Store) ask(c *change, a Account, purpose event.Purpose, to string, ttl time.Duration) error {
	if !s.Mails() {
		return ErrNoMails
	}
	p, exists := a.Pending[purpose]
	if !exists || p.Email != to || !p.ExpiresAt.After(c.now.Add(ttl/2)) {
		p = newPending(to, c.now, ttl)
		c.set = append(c.set, bson.E{Key: "pending." + string(purpose), Value: p})
	}
	return c.mail(a, event.RequestedMail{To: to, Purpose: purpose, Nonce: p.Nonce, ExpiresAt: p.ExpiresAt})
}

// newPending returns a Pending. Its expiry is in whole seconds, as in a token.
func newPending(to string, now time.Time, ttl time.Duration) Pending {
	return Pending{Nonce: rand.Text(), Email: to, ExpiresAt: now.Add(ttl).Truncate(time.Second).UTC()}
}

// A Proof reports whether a client has received the mail of a Pending.
type Proof func(Pending) bool

// A Claim is a Pending whose token or code a client has presented.
type Claim struct {
	Account Account
	Pending Pending
	Done    bool // it was confirmed within ReplayWindow
	purpose event.Purpose
}

// Claim returns the claim of a proof, or ErrNotPending. It confirms nothing. A client can guess a code,
// so the caller must limit the attempts (see ratelimit.Limiter.AllowCode).
func (s *Store) Claim(ctx context.Context, id string, purpose event.Purpose, proof Proof, now time.Time) (Claim, error) {
	a, err := s.AccountByID(ctx, id)
	if errors.Is(err, ErrNotFound) {
		err = ErrNotPending
	}
	if err != nil {
		return Claim{}, err
	}
	return a.claim(purpose, proof, now)
}

// ClaimByEmail is Claim for the account of an email. proof returns the proof for the id of the account. Its
// work is the same for an email without an account: one read of few members, and one comparison.
func (s *Store) ClaimByEmail(ctx context.Context, email string, purpose event.Purpose, proof func(id string) Proof, now time.Time) (Claim, error) {
	at := "." + string(purpose)
	a, err := s.account(ctx, bson.D{{Key: "email", Value: email}}, options.FindOne().SetProjection(bson.D{
		{Key: "email", Value: 1}, {Key: "password", Value: 1}, {Key: "disabledAt", Value: 1},
		{Key: "pending" + at, Value: 1}, {Key: "confirmed" + at, Value: 1}}))
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrUnreadable) {
		return Claim{}, err
	}
	if _, exists := a.Pending[purpose]; !exists {
		proof(a.ID)(Pending{Email: email})
	}
	return a.claim(purpose, proof(a.ID), now)
}

func (a Account) claim(purpose event.Purpose, proof Proof, now time.Time) (Claim, error) {
	if a.DisabledAt != nil {
		return Claim{}, ErrNotPending
	}
	if p, exists := a.Pending[purpose]; exists && p.ExpiresAt.After(now) && proof(p) {
		return Claim{Account: a, Pending: p, purpose: purpose}, nil
	}
	if done, exists := a.Confirmed[purpose]; exists && now.Sub(done.At) <= ReplayWindow && proof(done.Pending) {
		return Claim{Account: a, Pending: done.Pending, Done: true, purpose: purpose}, nil
	}
	return Claim{}, ErrNotPending
}

// confirm writes the change of a claim. If a concurrent request has confirmed it, confirm changes nothing
// and returns errConfirmed.
func (s *Store) confirm(ctx context.Context, claim Claim, now time.Time, apply func(Account, *change) error) error {
	if claim.Done {
		return errConfirmed
	}
	err := s.change(ctx, claim.Account.ID, func(a Account) (*change, error) {
		if done, exists := a.Confirmed[claim.purpose]; exists && done.Nonce == claim.Pending.Nonce && now.Sub(done.At) <= ReplayWindow {
			return nil, errConfirmed
		}
		p, exists := a.Pending[claim.purpose]
		if !exists || p.Nonce != claim.Pending.Nonce || p.Email != claim.Pending.Email || !p.ExpiresAt.After(now) || a.DisabledAt != nil {
			return nil, ErrNotPending
		}
		c := &change{now: now, enabled: true}
		if err := apply(a, c); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(c.unset, func(e bson.E) bool { return e.Key == "pending" }) {
			c.clear("pending." + string(claim.purpose))
		}
		c.set = append(c.set, bson.E{Key: "confirmed." + string(claim.purpose), Value: confirmed{p, now}})
		return c, nil
	})
	if errors.Is(err, ErrNotFound) {
		err = ErrNotPending
	}
	return err
}

// once replaces errConfirmed by nil: a repeated confirmation has the same result.
func once(err error) error {
	if errors.Is(err, errConfirmed) {
		return nil
	}
	return err
}
