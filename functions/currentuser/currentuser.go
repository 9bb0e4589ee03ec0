// Package currentuser is the function that returns the user of an access token. It only
// reads, and every page of the platform calls it first.
package currentuser

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/token"
	"ticketing.com/auth/shared/user"
)

// Endpoint is GET /api/users/currentuser.
var Endpoint = endpoint.Define(endpoint.Spec{
	Name:      "currentuser",
	Method:    http.MethodGet,
	Path:      "/api/users/currentuser",
	Success:   http.StatusOK,
	Summary:   "Return the user of the bearer token, or null without a token.",
	Anonymous: true,
}, newHandler)

// Output is the user of the token, or null if the request has no token.
type Output struct {
	CurrentUser *user.User `json:"currentUser"`
}

type currentuser struct {
	tokens *token.Verifier
	users  *user.Store
	now    func() time.Time
}

func newHandler(cfg *config.Config) endpoint.Handler[endpoint.Bearer, Output] {
	c := currentuser{token.VerifierFromConfig(cfg), user.FromConfig(cfg, nil), cfg.Now()}
	return c.handle
}

// handle verifies the token and then reads its session from the database, once. So the
// token of a session stops working as soon as the session ends.
func (c currentuser) handle(ctx context.Context, in endpoint.Bearer) (Output, error) {
	if in.Token == "" {
		return Output{}, nil
	}
	claims, err := c.tokens.Verify(in.Token)
	if err != nil {
		return Output{}, apierror.InvalidToken(err)
	}
	u, err := c.users.Session(ctx, claims.Subject, claims.Session, c.now())
	if errors.Is(err, user.ErrSessionEnded) {
		return Output{}, apierror.InvalidToken(err)
	}
	return Output{CurrentUser: &u}, err
}
