// Package email is the function that changes the email of an account.
package email

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

const path = "/api/users/email"

// Function serves POST /api/users/email, its confirmation and its undo.
var Function = endpoint.Function{
	Name: "email",
	Needs: []endpoint.Need{
		accesstoken.Verifying, confirmation.Confirming, password.Hashing, origin.Reading,
		sender.Publishing(event.EmailChanged, event.SignedOut, event.MailRequested),
		user.Storing(endpoint.Find, endpoint.Update),
		ratelimit.Counting("RATE_LIMIT_SIGNIN", "RATE_LIMIT_CONFIRMATION"),
	},
	Endpoints: []endpoint.Endpoint{
		endpoint.LimitInvalid(endpoint.Define(endpoint.Spec{
			ID:      "email",
			Method:  http.MethodPost,
			Path:    path,
			Access:  endpoint.Required,
			Success: http.StatusAccepted,
			Summary: "Request the mail that confirms a new email.",
		}, newHandler, changer.request), ratelimit.Addresses("signin", ratelimit.Signin)),
		endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
			ID:      "confirmEmail",
			Method:  http.MethodPost,
			Path:    path + "/confirm",
			Access:  endpoint.Optional,
			Success: http.StatusOK,
			Summary: "Replace the email of the account with the token or the code of the mail.",
			Refuses: []apierror.Kind{apierror.Conflict},
		}, newHandler, changer.confirm), ratelimit.Addresses("confirmation", ratelimit.Confirmation)),
		endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
			ID:      "undoEmail",
			Method:  http.MethodPost,
			Path:    path + "/undo",
			Access:  endpoint.Public,
			Success: http.StatusOK,
			Summary: "Restore the earlier email with the token of the notice, end all sessions and lock the password.",
			Refuses: []apierror.Kind{apierror.Conflict},
		}, newHandler, changer.undo), ratelimit.Addresses("confirmation", ratelimit.Confirmation)),
	},
}

// Input is the new email and the current password.
type Input struct {
	identity.Required
	endpoint.Client
	origin.Origin
	Email           string `json:"email"`
	CurrentPassword string `json:"currentPassword"`
}

// Validate checks the form of the email and the length of the password.
func (in *Input) Validate(bad *apierror.Fields) {
	if _, err := email.Parse(in.Email); err != nil {
		bad.Add("email", err.Error())
	}
	if password.IsTooLong(in.CurrentPassword) {
		bad.Add("currentPassword", password.TooLong)
	}
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{
		email.Member("email"),
		credentials.CurrentMember,
	}
}

// Undo is the token of the notice to the earlier email.
type Undo struct {
	origin.Origin
	Token string `json:"token"`
}

// Members implements reference.Described.
func (Undo) Members() []reference.Member { return []reference.Member{confirmation.TokenMember} }

// Output confirms the request.
type Output struct {
	Message string `json:"message"`
}

type changer struct {
	users       *user.Store
	credentials *credentials.Checker
	limiter     *ratelimit.Limiter
	keys        *confirmation.Keys
	now         func() time.Time
}

func newHandler(cfg *config.Config) changer {
	return changer{user.FromConfig(cfg, sender.FromConfig(cfg)), credentials.FromConfig(cfg), ratelimit.FromConfig(cfg), confirmation.FromConfig(cfg), cfg.Now()}
}

// request answers the same for an email that another account has. Only the reader of that mailbox
// learns it.
func (c changer) request(ctx context.Context, in Input) (Output, error) {
	address, _ := email.Parse(in.Email) // Validate has accepted it
	err := c.credentials.Current(ctx, c.users, in.Identity, in.Client, in.CurrentPassword, func(ctx context.Context, a user.Account) error {
		return c.users.RequestEmailChange(ctx, a, in.Identity.Session, string(address), in.From, c.now())
	})
	if errors.Is(err, user.ErrSame) {
		err = apierror.Field("email", "This is already the email of the account.")
	}
	return Output{"A mail to the new email is on its way."}, confirmation.Limited(err)
}

func (c changer) confirm(ctx context.Context, in confirmation.Input) (Output, error) {
	claim, err := c.keys.ClaimInput(ctx, c.users, c.limiter, event.EmailChange, in, c.now())
	if err == nil {
		err = c.users.ConfirmEmail(ctx, claim, in.From, c.now())
	}
	return Output{"The email is changed."}, translate(err, in.Field())
}

func (c changer) undo(ctx context.Context, in Undo) (Output, error) {
	t, err := confirmation.Parse(in.Token)
	if err != nil || t.Purpose != event.EmailUndo {
		return Output{}, confirmation.Invalid("token")
	}
	err = c.users.UndoEmail(ctx, t.User, t.Nonce, c.keys.ByToken(t), in.From, c.now())
	return Output{"The earlier email is restored. Reset the password to sign in."}, translate(err, "token")
}

// translate returns the API error for a wrong token or code, which has the name of the field.
func translate(err error, field string) error {
	switch {
	case errors.Is(err, user.ErrNotPending):
		return confirmation.Invalid(field)
	case errors.Is(err, user.ErrDuplicate):
		return apierror.New(apierror.Conflict, "Another account has this email.")
	}
	return confirmation.Limited(err)
}
