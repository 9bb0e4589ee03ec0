// Package signin is the function that starts a session for a password. It is one
// of the three that hold the signing key.
package signin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/sink"
	"ticketing.com/auth/shared/throttle"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/signin.
var Endpoint = endpoint.Define(endpoint.Spec{
	Name:    "signin",
	Method:  http.MethodPost,
	Path:    "/api/users/signin",
	Success: http.StatusOK,
	Summary: "Start a session with an email and a password.",
	Refuses: []fault.Kind{fault.Unauthenticated},
}, wire)

// Input is an email and its password.
type Input struct {
	endpoint.Caller
	Email    string `json:"email"`
	Password string `json:"password"`

	address email.Address
}

// Validate implements the second half of decoding. Of the password it checks the
// size alone: what may be chosen is no matter once it was chosen.
func (in *Input) Validate(bad *fault.Fields) {
	var err error
	if in.address, err = email.Parse(in.Email); err != nil {
		bad.Add("email", err.Error())
	}
	if password.IsTooLong(in.Password) {
		bad.Add("password", password.TooLong)
	}
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{
		email.Member("email"),
		{Name: "password", Format: "password", MaxLength: password.MaxBytes, About: fmt.Sprintf("Normalised to NFC; then at most %d bytes.", password.MaxBytes)},
	}
}

type signin struct {
	users     *user.Store
	passwords *password.Hasher
	grants    *session.Granter
	throttle  *throttle.Throttle
	now       func() time.Time
	log       *slog.Logger
}

func wire(w *app.Wiring) endpoint.Handler[Input, session.Grant] {
	s := signin{user.Wire(w, sink.Wire(w)), password.Wire(w), session.Wire(w), throttle.Wire(w), w.Now(), w.Log()}
	return s.handle
}

// tries bounds how often a sign-in begins anew because the account's hash was
// replaced in the middle of it.
const tries = 3

func (s signin) handle(ctx context.Context, in Input) (session.Grant, error) {
	if err := s.passwords.Room(); err != nil {
		return session.Grant{}, err
	}
	try := s.throttle.Begin(ctx, in.Caller, string(in.address))
	defer try.End()
	if err := try.Full(); err != nil {
		return session.Grant{}, err
	}
	for range tries {
		account, rehash, err := s.verify(ctx, in, try)
		if err != nil {
			return session.Grant{}, err
		}
		try.Right()
		opened, refresh := session.Open(account.ID, s.now(), s.grants.Life())
		opened.Device = try.Device(account.ID)
		err = s.users.Open(ctx, account, opened, rehash)
		if errors.Is(err, user.ErrChanged) {
			continue
		}
		if errors.Is(err, user.ErrUnreadable) {
			return session.Grant{}, fault.Credentials(err)
		}
		if err != nil {
			return session.Grant{}, err
		}
		return s.grants.Grant(account.User, opened, refresh, opened.CreatedAt)
	}
	return session.Grant{}, fault.Busy(time.Second, user.ErrChanged)
}

// verify returns the account whose password is right, with a new hash where that is to
// replace the stored one.
//
// An unknown email, a wrong password, a disabled account, one that takes no password now and
// one that cannot be read are indistinguishable: each costs a find, a count and a hash, which
// is made and compared in any case. Only then does it matter whether it counts.
func (s signin) verify(ctx context.Context, in Input, try *throttle.Try) (account user.Account, rehash string, err error) {
	account, err = s.users.Account(ctx, string(in.address))
	unknown := errors.Is(err, user.ErrUnknown) || errors.Is(err, user.ErrUnreadable)
	if err != nil && !unknown {
		return account, "", err
	}
	if err := try.Admitted(); err != nil {
		return account, "", err
	}
	counted := try.Count(account.Knows(try.Device(account.ID), s.now()))
	right, stale, err := s.compare(ctx, account, unknown, in.Password)
	var cause error
	if _, broken := errors.AsType[*password.Unverifiable](err); broken {
		s.log.ErrorContext(ctx, "a sign-in is not possible", "user", account.ID, "error", err)
		cause, err = fmt.Errorf("user %s: %w", account.ID, err), nil
	}
	if over, ok := errors.AsType[*password.OverMemory](err); ok {
		s.log.ErrorContext(ctx, "a sign-in is not possible", "user", account.ID, "error", over)
	}
	if err != nil {
		return account, "", err
	}
	early := counted()
	if early != nil && !errors.Is(early, throttle.ErrEarly) {
		return account, "", early
	}
	if !right || early != nil || account.DisabledAt != nil {
		try.Wrong()
		return account, "", fault.Credentials(cmp.Or(cause, early))
	}
	if stale {
		rehash, _ = s.passwords.Hash(ctx, in.Password) // no room for it now: another sign-in will do
	}
	return account, rehash, nil
}

// compare does the work of one hash, whether there is an account or not.
func (s signin) compare(ctx context.Context, account user.Account, unknown bool, plain string) (right, stale bool, err error) {
	if unknown {
		return false, false, s.passwords.Decoy(ctx, plain)
	}
	return s.passwords.Verify(ctx, account.Password, plain)
}
