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

func (v verification) confirm(ctx context.Context, in confirmation.Input) (Output, error) {
	claim, err := v.keys.ClaimInput(ctx, v.users, v.limiter, event.Verification, in, v.now())
	if err == nil {
		err = v.users.ConfirmVerification(ctx, claim, in.From, v.now())
	}
	if errors.Is(err, user.ErrNotPending) {
		err = confirmation.Invalid(in.Field())
	}
	return Output{"The email is verified."}, err
}
