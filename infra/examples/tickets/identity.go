package main

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"ticketing.com/auth/shared/bearer/token"
)

// An identity verifies the access tokens of the auth system: the signature by a known key, the
// algorithm, the type at+jwt, the issuer, the audience and the expiry.
//
// It sends no request to the auth system. So it accepts the token of a session that has ended
// until the token expires, by default for at most 15 minutes.
type identity struct{ verifier *token.Verifier }

// newIdentity returns an identity that trusts the keys of a public JWK Set.
func newIdentity(keys []byte, issuer, audience string, now func() time.Time) (*identity, error) {
	parsed, err := token.ParsePublic(keys)
	if err != nil {
		return nil, errors.New("VERIFYING_KEYS or VERIFYING_KEYS_FILE is not set to a public JWK Set")
	}
	return &identity{token.NewVerifier(parsed, issuer, audience, now, 1024)}, nil
}

// required passes the id of the user to next, or rejects the request (RFC 6750 section 3). So
// next cannot forget the check.
func (i *identity) required(next func(w http.ResponseWriter, r *http.Request, user string) (int, any, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) (int, any, error) {
		fields := append(r.Header.Values("Authorization"), "")
		scheme, raw, _ := strings.Cut(fields[0], " ")
		if !strings.EqualFold(scheme, "Bearer") {
			w.Header().Set("WWW-Authenticate", "Bearer")
			return 0, nil, refuse(http.StatusUnauthorized, "A bearer token is needed.")
		}
		claims, err := i.verifier.Verify(r.Context(), strings.TrimLeft(raw, " "))
		if err != nil || len(fields) > 2 { // the field must be there once
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			return 0, nil, refuse(http.StatusUnauthorized, "The token is not valid.")
		}
		return next(w, r, claims.Subject)
	}
}
