// Package currentuser is the function that says who the caller is. It only reads,
// and it is what every page of the platform asks first.
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
	Summary:   "Tell who the bearer of the token is; null without a token.",
	Anonymous: true,
}, newHandler)

// Output is the user, or null for somebody who sent no token.
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

// handle believes the signature and then asks the database, once: a session that
// was ended a moment ago has ended.
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
