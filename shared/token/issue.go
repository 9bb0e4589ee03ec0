package token

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// An Issuer signs tokens with the first key of a private set. It has no clock. Ed25519 is
// deterministic, so the same claims always give the same token. So a repeated request can
// receive the same response again.
type Issuer struct {
	keys                       *SigningKeys
	issuer, audience, clientID string
	ttl                        time.Duration
}

// NewIssuer returns an issuer of tokens that expire ttl after their IssuedAt. The client id
// names the client that receives the tokens (RFC 9068 section 2.2).
func NewIssuer(keys *SigningKeys, issuer, audience, clientID string, ttl time.Duration) *Issuer {
	return &Issuer{keys, issuer, audience, clientID, ttl}
}

// TTL returns the lifetime of a token.
func (i *Issuer) TTL() time.Duration { return i.ttl }

// SecondsLeft returns the seconds until a token with these claims expires.
func (i *Issuer) SecondsLeft(c Claims, now time.Time) int { return int(i.expiry(c) - now.Unix()) }

// expiry returns the exp claim, in whole seconds since 1970.
func (i *Issuer) expiry(c Claims) int64 { return c.IssuedAt.Add(i.ttl).Unix() }

// Issue returns the signed token. It fails on claims that no Verifier accepts: a missing claim,
// invalid UTF-8, or a token over MaxLength.
func (i *Issuer) Issue(c Claims) (string, error) {
	all := claims{
		Issuer:    i.issuer,
		Audience:  audience{i.audience},
		Subject:   c.Subject,
		Session:   c.Session,
		ID:        c.ID,
		IssuedAt:  float64(c.IssuedAt.Unix()),
		ExpiresAt: float64(i.expiry(c)),
		Email:     c.Email,
		ClientID:  i.clientID,
	}
	if !all.complete() {
		return "", errors.New("issue token: a claim is missing")
	}
	body, err := json.Marshal(all)
	if err != nil {
		return "", errors.New("issue token: a claim is not valid UTF-8")
	}
	signed, err := (&jwt.Token{
		Header: map[string]any{"alg": algorithm, "typ": mediaType, "kid": i.keys.id},
		Claims: &payload{json: body},
		Method: jwt.SigningMethodEdDSA,
	}).SignedString(i.keys.key)
	if err != nil {
		return "", err
	}
	if len(signed) > MaxLength {
		return "", errors.New("issue token: the claims are too long")
	}
	return signed, nil
}
