// Package signin is the function that checks a password and starts a session. It is one of the
// three functions that hold the signing key.
package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/user"
)

// Function serves POST /api/users/signin.
var Function = endpoint.Function{
	Name: "signin",
	Needs: []endpoint.Need{
		accesstoken.Signing, session.Lifetime, password.Hashing, sender.Publishing(event.SignedIn, event.SignedOut, event.MailRequested),
		user.Storing(endpoint.Find, endpoint.Update),
		ratelimit.Counting("RATE_LIMIT_SIGNIN"),
	},
	Endpoints: []endpoint.Endpoint{endpoint.LimitInvalid(endpoint.Define(endpoint.Spec{
		Method:  http.MethodPost,
		Path:    "/api/users/signin",
		Access:  endpoint.Public,
		Success: http.StatusOK,
		Summary: "Start a session with an email and a password.",
		Refuses: []apierror.Kind{apierror.Unauthenticated, apierror.Forbidden},
	}, newHandler, signin.handle), ratelimit.Addresses("signin", ratelimit.Signin))},
}

// Input is an email and its password.
type Input struct {
	endpoint.Client
	origin.Origin
	Email    string `json:"email"`
	Password string `json:"password"`
}

// Validate checks the email and the length of the password. The password policy applies when a
// user chooses a password, not when the user signs in.
func (in *Input) Validate(bad *apierror.Fields) {
	if _, err := email.Parse(in.Email); err != nil {
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
	users       *user.Store
	credentials *credentials.Checker
	grants      *session.Granter
	now         func() time.Time
}

func newHandler(cfg *config.Config) signin {
	return signin{user.FromConfig(cfg, sender.FromConfig(cfg)), credentials.FromConfig(cfg), session.FromConfig(cfg), cfg.Now()}
}

// handle returns the same error for an unknown email, a wrong password, a disabled account and
// an account that cannot be read.
func (s signin) handle(ctx context.Context, in Input) (session.Grant, error) {
	var grant session.Grant
	address, _ := email.Parse(in.Email) // Validate has accepted it
	err := s.credentials.Check(ctx, credentials.Claim{
		Client:   in.Client,
		Email:    string(address),
		Password: in.Password,
		Find:     func(ctx context.Context) (user.Account, error) { return s.users.Account(ctx, string(address)) },
		Rehash:   true,
	}, func(ctx context.Context, p credentials.Proof) (err error) {
		if err := deletion(p.Account, s.now()); err != nil {
			return err
		}
		opened, refresh := session.Open(p.Account.ID, s.now(), s.grants.TTL())
		opened.Origin = in.From
		if err := s.users.Open(ctx, p.Account, opened, credentials.Digest(p.Device), p.Rehash); err != nil {
			return err
		}
		grant, err = s.grants.Grant(p.Account.Profile, opened, refresh, opened.CreatedAt)
		grant.Device = p.Device
		return err
	})
	switch {
	case err == credentials.ErrWrong: // without a cause there is nothing to log
		err = apierror.Credentials(nil)
	case errors.Is(err, credentials.ErrWrong), errors.Is(err, user.ErrUnreadable):
		err = apierror.Credentials(err)
	}
	return grant, err
}

// deletion returns the error for an account whose deletion was requested. Only a client with the right
// password receives it. After the grace period, the account does not exist for the client.
func deletion(a user.Account, now time.Time) error {
	switch {
	case a.DeletesAt == nil:
		return nil
	case a.DeletesAt.After(now):
		return apierror.New(apierror.Forbidden, "This account will be deleted. Restore it to sign in.")
	}
	return credentials.ErrWrong
}
