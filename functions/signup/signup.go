// Package signup is the function that creates an account and starts its first
// session. It is one of the three that hold the signing key.
package signup

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/password/choice"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/signup.
var Endpoint = endpoint.Define(endpoint.Spec{
	Name:    "signup",
	Method:  http.MethodPost,
	Path:    "/api/users/signup",
	Success: http.StatusCreated,
	Summary: "Create an account and start its first session.",
}, wire)

// Input is an email and the password chosen for it.
type Input struct {
	Email    string `json:"email"`
	Password string `json:"password"`

	address email.Address
}

// Validate implements the second half of decoding: it normalises the email and
// refuses a password that is too easy to guess.
func (in *Input) Validate(bad *fault.Fields) {
	var err error
	if in.address, err = email.Parse(in.Email); err != nil {
		bad.Add("email", err.Error())
	}
	if err := choice.Check(in.Password, in.Email); err != nil {
		bad.Add("password", err.Error())
	}
}

type signup struct {
	users     *user.Store
	passwords *password.Hasher
	grants    *session.Granter
	life      time.Duration
	now       func() time.Time
}

func wire(w *app.Wiring) endpoint.Handler[Input, session.Grant] {
	s := signup{w.Users(), w.Passwords(), w.Grants(), w.SessionLife(), w.Now()}
	return s.handle
}

// handle hashes before it knows whether the email is free: looking first would
// decide nothing, since another may take it in between, and would answer faster
// for an email that is in use.
func (s signup) handle(ctx context.Context, in Input) (session.Grant, error) {
	hash, err := s.passwords.Hash(ctx, in.Password)
	if err != nil {
		return session.Grant{}, err
	}
	u := user.User{ID: session.NewID(), Email: string(in.address)}
	first, refresh := session.Open(u.ID, s.now(), s.life)
	err = s.users.Create(ctx, u, hash, first)
	if errors.Is(err, user.ErrEmailUsed) {
		return session.Grant{}, fault.Field("email", "This email is in use.")
	}
	if err != nil {
		return session.Grant{}, err
	}
	return s.grants.Grant(u, first, refresh)
}
