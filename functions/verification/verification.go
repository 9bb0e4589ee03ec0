// Package verification is the function with which a user proves control of the email of the account.
package verification

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

const path = "/api/users/verification"

// Function serves POST /api/users/verification and its confirmation.
var Function = endpoint.Function{
	Name: "verification",
	Needs: []endpoint.Need{
		accesstoken.Verifying, confirmation.Confirming, origin.Reading,
		sender.Publishing(event.Verified, event.MailRequested),
		user.Storing(endpoint.Find, endpoint.Update),
		ratelimit.Counting("RATE_LIMIT_CONFIRMATION"),
	},
	Endpoints: []endpoint.Endpoint{
		endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
			ID:      "verification",
			Method:  http.MethodPost,
			Path:    path,
			Access:  endpoint.Required,
			Success: http.StatusAccepted,
			Summary: "Request the mail that verifies the email of the user.",
			Refuses: []apierror.Kind{apierror.Conflict},
		}, newHandler, verification.request), ratelimit.Addresses("confirmation", ratelimit.Confirmation)),
		endpoint.LimitRequests(endpoint.Define(endpoint.Spec{
			ID:      "confirmVerification",
			Method:  http.MethodPost,
			Path:    path + "/confirm",
			Access:  endpoint.Optional,
			Success: http.StatusOK,
			Summary: "Verify the email with the token or the code of the mail.",
		}, newHandler, verification.confirm), ratelimit.Addresses("confirmation", ratelimit.Confirmation)),
	},
}

// Input is the identity of the user.
type Input struct{ identity.Required }

// Confirmation is the token of the mail, or its code and the identity of the user.
type Confirmation struct {
	identity.Optional
	origin.Origin
	Token *string `json:"token"`
	Code  *string `json:"code"`
}

// Validate requires either the token or the code.
func (in *Confirmation) Validate(bad *apierror.Fields) {
	if (in.Token == nil) == (in.Code == nil) {
		bad.Add("token", "Send either a token or a code.")
	}
}

// Members implements reference.Described.
func (Confirmation) Members() []reference.Member {
	return []reference.Member{
		confirmation.TokenMember,
		confirmation.CodeMember,
	}
}

// Output confirms the request.
type Output struct {
	Message string `json:"message"`
}

type verification struct {
	users   *user.Store
	limiter *ratelimit.Limiter
	keys    *confirmation.Keys
	now     func() time.Time
}

func newHandler(cfg *config.Config) verification {
	return verification{user.FromConfig(cfg, sender.FromConfig(cfg)), ratelimit.FromConfig(cfg), confirmation.FromConfig(cfg), cfg.Now()}
}

func (v verification) request(ctx context.Context, in Input) (Output, error) {
	err := v.users.RequestVerification(ctx, in.Identity.Subject, in.Identity.Session, v.now())
	switch {
	case errors.Is(err, user.ErrSessionEnded):
		return Output{}, apierror.InvalidToken(err)
	case errors.Is(err, user.ErrVerified):
		return Output{}, apierror.New(apierror.Conflict, "The email is already verified.")
	}
	return Output{"A mail is on its way."}, confirmation.Limited(err)
}

// confirm accepts a code only from the signed-in user: it has few digits, and the session names the
// account.
func (v verification) confirm(ctx context.Context, in Confirmation) (Output, error) {
	claim, err := v.claim(ctx, in)
	if err == nil {
		err = v.users.ConfirmVerification(ctx, claim, in.From, v.now())
	}
	if errors.Is(err, user.ErrNotPending) {
		err = confirmation.Invalid(map[bool]string{true: "code", false: "token"}[in.Code != nil])
	}
	return Output{"The email is verified."}, err
}

func (v verification) claim(ctx context.Context, in Confirmation) (user.Claim, error) {
	if in.Code == nil {
		return v.keys.Claim(ctx, v.users, event.Verification, *in.Token, v.now())
	}
	return v.keys.ClaimByCode(ctx, v.users, v.limiter, in.Identity, event.Verification, *in.Code, v.now())
}
