// Package password is the function that changes the password of a signed-in user.
package password

import (
	"context"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/password/policy"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

// Function serves POST /api/users/password.
var Function = endpoint.Function{
	Name: "password",
	Needs: []endpoint.Need{
		accesstoken.Verifying, password.Hashing, policy.Checking, origin.Reading,
		sender.Publishing(event.PasswordChanged, event.SignedOut, event.MailRequested),
		user.Storing(endpoint.Find, endpoint.Update),
		ratelimit.Counting("RATE_LIMIT_SIGNIN"),
	},
	Endpoints: []endpoint.Endpoint{endpoint.LimitInvalid(endpoint.Define(endpoint.Spec{
		Method:  http.MethodPost,
		Path:    "/api/users/password",
		Access:  endpoint.Required,
		Success: http.StatusOK,
		Summary: "Change the password of the user and end all other sessions.",
	}, newHandler, changer.handle), ratelimit.Addresses("signin", ratelimit.Signin))},
}

// Input is the current password and a new one.
type Input struct {
	identity.Required
	endpoint.Client
	origin.Origin
	CurrentPassword string `json:"currentPassword"`
	NewPassword     string `json:"newPassword"`

	policy policy.Policy
}

// Configure gives Validate the password policy.
func (in *Input) Configure(cfg *config.Config) { in.policy = policy.FromConfig(cfg) }

// Validate applies the password policy to the new password. It must differ from the current one in the
// form in which passwords are compared.
func (in *Input) Validate(bad *apierror.Fields) {
	if password.IsTooLong(in.CurrentPassword) {
		bad.Add("currentPassword", password.TooLong)
	}
	if err := in.policy.Check(in.NewPassword, in.Identity.Email); err != nil {
		bad.Add("newPassword", err.Error())
		return
	}
	if password.Normalize(in.NewPassword) == password.Normalize(in.CurrentPassword) {
		bad.Add("newPassword", "The new password must differ from the current one.")
	}
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{
		credentials.CurrentMember,
		policy.Member("newPassword"),
	}
}

// Output is the number of sessions that have ended.
type Output struct {
	Ended int `json:"ended"`
}

// Members implements reference.Described.
func (Output) Members() []reference.Member {
	return []reference.Member{{Name: "ended", About: "The number of other sessions that have ended."}}
}

type changer struct {
	users       *user.Store
	passwords   *password.Hasher
	credentials *credentials.Checker
	policy      policy.Policy
	now         func() time.Time
}

func newHandler(cfg *config.Config) changer {
	return changer{user.FromConfig(cfg, sender.FromConfig(cfg)), password.FromConfig(cfg), credentials.FromConfig(cfg), policy.FromConfig(cfg), cfg.Now()}
}

func (c changer) handle(ctx context.Context, in Input) (out Output, err error) {
	err = c.credentials.Current(ctx, c.users, in.Identity, in.Client, in.CurrentPassword, func(ctx context.Context, a user.Account) error {
		if err := c.policy.Check(in.NewPassword, a.Email); err != nil { // the token may have an earlier email
			return apierror.Field("newPassword", err.Error())
		}
		hash, err := c.passwords.Hash(ctx, in.NewPassword)
		if err != nil {
			return err
		}
		out.Ended, err = c.users.ChangePassword(ctx, a, in.Identity.Session, credentials.Digest(in.Client.Device), hash, in.From, c.now())
		return err
	})
	return out, err
}
