// Package bearer verifies the access tokens of the platform in another team's service:
//
//	v, err := bearer.FromEnv(os.Getenv)
//	mux.Handle("GET /offers", v.Optional(offers))
//	mux.Handle("POST /orders", v.Require(order))
//	mux.Handle("POST /refunds", v.Require(refund, bearer.Roles("admin"), bearer.Fresh(5*time.Minute)))
//
// A handler reads the user from FromContext. Package grpcbearer, in a module of its own, does the
// same for gRPC. Package bearertest issues tokens in tests.
//
// A Verifier checks the token itself, without a request to the auth system, if the verifying keys
// are mounted. With REVOCATIONS_URL it also refuses the tokens of a session that has ended, at most
// 7 seconds after the sign-out.
//
// A Verifier has no background goroutine and no timer. It sends its requests to the auth system
// while it serves a request. So a service that is scaled to zero or frozen between requests loses
// nothing.
package bearer

import (
	"context"
	"errors"
	"time"

	"ticketing.com/auth/shared/bearer/token"
)

// Claims are the claims of a verified token.
type Claims = token.Claims

// cachedTokens bounds the verified tokens that a Verifier remembers, about 1.5 KiB each.
const cachedTokens = 1024

// A Verifier accepts the tokens of one issuer for one audience. It is safe for concurrent use.
type Verifier struct {
	tokens *token.Verifier
	feed   *feed // nil without REVOCATIONS_URL
	now    func() time.Time
}

// Verify returns the claims of the token in the values of the Authorization header, if the token
// is valid and the checks accept it. Otherwise its error is an *Error, and ErrNoToken if the
// request has no bearer token.
//
// Use Optional and Require with net/http. Verify serves other transports.
func (v *Verifier) Verify(ctx context.Context, authorization []string, checks ...Check) (Claims, error) {
	raw, err := parseAuthorization(authorization)
	if err != nil {
		return Claims{}, err
	}
	claims, err := v.tokens.Verify(ctx, raw)
	switch {
	case errors.Is(err, token.ErrInvalid):
		return Claims{}, invalidToken(err)
	case err != nil:
		return Claims{}, unavailable(err)
	}
	if v.feed != nil {
		if err := v.feed.check(ctx, raw, claims); err != nil {
			return Claims{}, err
		}
	}
	if err := evaluate(checks, claims, v.now()); err != nil {
		return Claims{}, err
	}
	return claims, nil
}

type contextKey struct{}

// NewContext returns a context with the claims of a verified token.
func NewContext(ctx context.Context, claims Claims) context.Context {
	return context.WithValue(ctx, contextKey{}, claims)
}

// FromContext returns the claims of the token of the request, and whether it has a token.
func FromContext(ctx context.Context) (Claims, bool) {
	claims, ok := ctx.Value(contextKey{}).(Claims)
	return claims, ok
}
