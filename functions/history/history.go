// Package history is the function that returns the last events of an account to its owner.
package history

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/user"
)

// Function serves GET /api/users/history.
var Function = endpoint.Function{
	Name:  "history",
	Needs: []endpoint.Need{accesstoken.Verifying, user.Storing(endpoint.Find)},
	Endpoints: []endpoint.Endpoint{endpoint.Define(endpoint.Spec{
		Method:  http.MethodGet,
		Path:    "/api/users/history",
		Access:  endpoint.Required,
		Success: http.StatusOK,
		Summary: "List the last 50 events of the account, the newest first.",
	}, newHandler, history.handle)},
}

// Input is the identity of the user.
type Input struct{ identity.Required }

// Output lists events of an account.
type Output struct {
	Events []user.Entry `json:"events"`
}

type history struct {
	users *user.Store
	now   func() time.Time
}

func newHandler(cfg *config.Config) history { return history{user.FromConfig(cfg, nil), cfg.Now()} }

func (h history) handle(ctx context.Context, in Input) (Output, error) {
	a, err := h.users.SignedIn(ctx, in.Identity.Subject, in.Identity.Session, h.now())
	if errors.Is(err, user.ErrSessionEnded) {
		return Output{}, apierror.InvalidToken(err)
	}
	return Output{a.Entries()}, err
}
