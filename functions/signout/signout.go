// Package signout is the function that ends a session: its access token and its
// refresh token are dead at once at every function.
package signout

import (
	"context"
	"net/http"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/token"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/signout.
var Endpoint = endpoint.Define(endpoint.Spec{
	Name:    "signout",
	Method:  http.MethodPost,
	Path:    "/api/users/signout",
	Success: http.StatusOK,
	Summary: "End the session of the bearer token.",
}, wire)

// Output tells a person that it is done.
type Output struct {
	Message string `json:"message"`
}

type signout struct {
	tokens *token.Verifier
	users  *user.Store
}

func wire(w *app.Wiring) endpoint.Handler[endpoint.Bearer, Output] {
	s := signout{w.Verifier(), w.Users()}
	return s.handle
}

// handle asks of the token that it is authentic and not expired. Whether the
// session still lives is no question: a sign-out whose answer was lost may be
// sent again.
func (s signout) handle(ctx context.Context, in endpoint.Bearer) (Output, error) {
	claims, err := s.tokens.Verify(in.Token)
	if err != nil {
		return Output{}, fault.InvalidToken(err)
	}
	if err := s.users.End(ctx, claims.Subject, claims.Session); err != nil {
		return Output{}, err
	}
	return Output{Message: "Signed out."}, nil
}
