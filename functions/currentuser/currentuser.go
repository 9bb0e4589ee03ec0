// Package currentuser is the function that returns the user of an access token. It only
// reads, and every page of the platform calls it first.
package currentuser

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

// Function serves GET /api/users/currentuser.
var Function = endpoint.Function{
	Name:  "currentuser",
	Needs: []endpoint.Need{accesstoken.Verifying, user.Storing(endpoint.Find)},
	Endpoints: []endpoint.Endpoint{endpoint.Define(endpoint.Spec{
		Method:  http.MethodGet,
		Path:    "/api/users/currentuser",
		Access:  endpoint.Optional,
		Success: http.StatusOK,
		Summary: "Return the user of the bearer token, or null without a token.",
	}, newHandler, currentuser.handle)},
}

// Input is the identity of the client, if it has a token.
type Input struct{ identity.Optional }

// Output is the user of the token, or null if the request has no token.
type Output struct {
	CurrentUser *user.User `json:"currentUser"`
}

type currentuser struct {
	users *user.Store
	now   func() time.Time
}

func newHandler(cfg *config.Config) currentuser {
	return currentuser{user.FromConfig(cfg, nil), cfg.Now()}
}

// handle reads the session of the token from the database, once. So the token of a session
// stops working as soon as the session ends.
func (c currentuser) handle(ctx context.Context, in Input) (Output, error) {
	if in.Identity == nil {
		return Output{}, nil
	}
	u, err := c.users.Session(ctx, in.Identity.Subject, in.Identity.Session, c.now())
	if errors.Is(err, user.ErrSessionEnded) {
		return Output{}, apierror.InvalidToken(err)
	}
	return Output{CurrentUser: &u}, err
}
