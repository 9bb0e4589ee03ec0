package token

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"math/big"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// An Issuer signs tokens with the first key of a private set. It has no clock. Its signatures are
// deterministic, so the same claims always give the same token. So a repeated request can
// receive the same response again.
type Issuer struct {
	keys                       *SigningKeys
	issuer, audience, clientID string
	ttl                        time.Duration
}

// NewIssuer returns an issuer of tokens that expire ttl after their IssuedAt, and not after their
// ExpiresAt unless that is zero. The client id
// names the client that receives the tokens (RFC 9068 section 2.2).
func NewIssuer(keys *SigningKeys, issuer, audience, clientID string, ttl time.Duration) *Issuer {
	return &Issuer{keys, issuer, audience, clientID, ttl}
}

// TTL returns the lifetime of a token.
func (i *Issuer) TTL() time.Duration { return i.ttl }

// SecondsLeft returns the seconds until a token with these claims expires.
func (i *Issuer) SecondsLeft(c Claims, now time.Time) int { return int(i.expiry(c) - now.Unix()) }

// expiry returns the exp claim, in whole seconds since 1970.
func (i *Issuer) expiry(c Claims) int64 {
	at := c.IssuedAt.Add(i.ttl)
	if !c.ExpiresAt.IsZero() && c.ExpiresAt.Before(at) {
		at = c.ExpiresAt
	}
	return at.Unix()
}

// Issue returns the signed token. It fails on claims that no Verifier accepts: a missing claim,
// invalid UTF-8, or a token over MaxLength.
func (i *Issuer) Issue(c Claims) (string, error) {
	all := claims{
		Issuer:        i.issuer,
		Audience:      audience{i.audience},
		Subject:       c.Subject,
		Session:       c.Session,
		ID:            c.ID,
		IssuedAt:      float64(c.IssuedAt.Unix()),
		ExpiresAt:     float64(i.expiry(c)),
		Email:         c.Email,
		EmailVerified: c.EmailVerified,
		ClientID:      i.clientID,
		AMR:           c.AMR,
		ACR:           c.ACR,
		Roles:         c.Roles,
	}
	if !c.AuthTime.IsZero() {
		all.AuthTime = float64(c.AuthTime.Unix())
	}
	if !all.complete() {
		return "", errors.New("issue token: a claim is missing")
	}
	body, err := json.Marshal(all)
	if err != nil {
		return "", errors.New("issue token: a claim is not valid UTF-8")
	}
	signed, err := (&jwt.Token{
		Header: map[string]any{"alg": i.keys.algorithm, "typ": mediaType, "kid": i.keys.id},
		Claims: &payload{json: body},
		Method: method(i.keys.algorithm),
	}).SignedString(i.keys.key)
	if err != nil {
		return "", err
	}
	if len(signed) > MaxLength {
		return "", errors.New("issue token: the claims are too long")
	}
	return signed, nil
}

func method(algorithm string) jwt.SigningMethod {
	if algorithm == ES256 {
		return deterministicES256{}
	}
	return jwt.SigningMethodEdDSA
}

// deterministicES256 signs like ES256, but derives the nonce from the key and the message
// (RFC 6979). So the same claims give the same token, and a weak random source cannot reveal the
// key.
type deterministicES256 struct{}

func (deterministicES256) Alg() string { return ES256 }

func (deterministicES256) Verify(message string, signature []byte, key any) error {
	return jwt.SigningMethodES256.Verify(message, signature, key)
}

func (deterministicES256) Sign(message string, key any) ([]byte, error) {
	h := crypto.SHA256.New()
	h.Write([]byte(message))
	der, err := key.(*ecdsa.PrivateKey).Sign(nil, h.Sum(nil), crypto.SHA256) // without a random source: RFC 6979
	if err != nil {
		return nil, err
	}
	var s struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return nil, err
	}
	raw := make([]byte, 2*p256Size) // RFC 7518 section 3.4
	s.R.FillBytes(raw[:p256Size])
	s.S.FillBytes(raw[p256Size:])
	return raw, nil
}
