// Package signin is the function that starts a session for a password. It is one
// of the three that hold the signing key.
package signin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/sink"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/signin.
var Endpoint = endpoint.Define(endpoint.Spec{
	Name:    "signin",
	Method:  http.MethodPost,
	Path:    "/api/users/signin",
	Success: http.StatusOK,
	Summary: "Start a session with an email and a password.",
}, wire)

// Input is an email and its password.
type Input struct {
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
	if len(in.Password) > password.MaxBytes {
		bad.Add("password", password.TooLong)
	}
}

type signin struct {
	users     *user.Store
	passwords *password.Hasher
	grants    *session.Granter
	now       func() time.Time
}

func wire(w *app.Wiring) endpoint.Handler[Input, session.Grant] {
	s := signin{user.Wire(w, sink.Wire(w)), password.Wire(w), session.Wire(w), w.Now()}
	return s.handle
}

// tries bounds how often a sign-in begins anew because the account's hash was
// replaced in the middle of it.
const tries = 3

func (s signin) handle(ctx context.Context, in Input) (session.Grant, error) {
	for range tries {
		account, rehash, err := s.verify(ctx, in)
		if err != nil {
			return session.Grant{}, err
		}
		opened, refresh := session.Open(account.ID, s.now(), s.grants.Life())
		err = s.users.Open(ctx, account, opened, rehash)
		if errors.Is(err, user.ErrChanged) {
			continue
		}
		if err != nil {
			return session.Grant{}, err
		}
		return s.grants.Grant(account.User, opened, refresh)
	}
	return session.Grant{}, fault.Busy(time.Second, user.ErrChanged)
}

// verify returns the account whose password is right, with a new hash where the
// stored one is weaker than those made today. An email that nobody has costs a
// find and a hash, as a wrong password does, and so does a disabled account: the
// three cannot be told apart.
func (s signin) verify(ctx context.Context, in Input) (account user.Account, rehash string, err error) {
	account, err = s.users.Account(ctx, string(in.address))
	if errors.Is(err, user.ErrUnknown) {
		err = s.passwords.Decoy(ctx, in.Password)
		return account, "", cmp.Or(err, error(fault.Credentials(nil)))
	}
	if err != nil {
		return account, "", err
	}
	right, stale, err := s.passwords.Verify(ctx, account.Password, in.Password)
	if _, broken := errors.AsType[*password.Unverifiable](err); broken {
		return account, "", fault.Credentials(fmt.Errorf("user %s: %w", account.ID, err))
	}
	switch {
	case err != nil:
		return account, "", err
	case !right || account.DisabledAt != nil:
		return account, "", fault.Credentials(nil)
	case stale:
		rehash, _ = s.passwords.Hash(ctx, in.Password) // no room for it now: another sign-in will do
	}
	return account, rehash, nil
}
