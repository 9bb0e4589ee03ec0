package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// A KeySource returns the key with an id, or nil if no key has the id. Its error means that it
// could not find out.
type KeySource interface {
	Key(ctx context.Context, id string) (*Key, error)
}

// A Verifier accepts the tokens of one issuer for one audience. It is safe for
// concurrent use.
type Verifier struct {
	keys             KeySource
	issuer, audience string
	now              func() time.Time
	parser           *jwt.Parser
	cache            *cache
}

// NewVerifier returns a verifier that trusts the keys and reads the time from now. It caches the
// claims of up to the given number of tokens, so that a repeated token costs no signature check.
// Each request checks the other conditions: the key is still trusted, the issuer, the audience and
// the times.
func NewVerifier(keys KeySource, issuer, audience string, now func() time.Time, cached int) *Verifier {
	return &Verifier{keys, issuer, audience, now, jwt.NewParser(
		jwt.WithValidMethods([]string{EdDSA, ES256}), // RFC 8725 section 3.1
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(), // see Verifier.check
	), newCache(cached)}
}

// Verify returns the claims of a token that is authentic and valid now. Its error wraps
// ErrInvalid, or the error of the KeySource.
func (v *Verifier) Verify(ctx context.Context, raw string) (Claims, error) {
	return v.verify(ctx, raw, false)
}

// VerifyExpired returns the claims of an authentic token that may have expired. Only a sign-out
// uses it: such a token permits nothing except ending its session.
func (v *Verifier) VerifyExpired(ctx context.Context, raw string) (Claims, error) {
	return v.verify(ctx, raw, true)
}

func (v *Verifier) verify(ctx context.Context, raw string, expired bool) (Claims, error) {
	if len(raw) > MaxLength {
		return Claims{}, refusal("it is longer than 8 KiB")
	}
	found, err := v.authentic(ctx, raw)
	if err == nil {
		err = v.check(found, expired)
	}
	if err != nil {
		return Claims{}, err
	}
	return found.public(), nil
}

// authentic returns the claims of a token with a valid signature of a trusted key.
func (v *Verifier) authentic(ctx context.Context, raw string) (*claims, error) {
	digest := digest(raw)
	if e, ok := v.cache.get(digest); ok {
		// The kid is the thumbprint of the key, so a key with this id is the same key.
		key, err := v.keys.Key(ctx, e.keyID)
		switch {
		case err != nil:
			return nil, fmt.Errorf("find the key of a token: %w", err)
		case key == nil:
			return nil, refusal("its key is unknown")
		}
		return e.claims, nil
	}
	// Package base64 skips line breaks, even in strict mode. Each token must have one
	// encoding only.
	if strings.ContainsAny(raw, "\r\n") {
		return nil, refusal("it contains a line break")
	}
	var p payload
	var keyID string
	_, err := v.parser.ParseWithClaims(raw, &p, func(t *jwt.Token) (key any, err error) {
		keyID, key, err = v.key(ctx, t)
		return key, err
	})
	if err != nil {
		return nil, reason(err)
	}
	// The claims are parsed after the signature is verified. Unknown members are ignored
	// (RFC 7519 section 4).
	c := new(claims)
	if json.Unmarshal(p.json, c) != nil {
		return nil, refusal("its claims are not well formed")
	}
	v.cache.put(digest, entry{keyID, c})
	return c, nil
}

// key returns the key that the header names. The header may have only the members that an
// Issuer writes. So key rejects crit, b64, jku, jwk, x5c and x5u (RFC 8725 section 3.10), and
// every other member that would change the verification. It looks up the kid in the set only.
func (v *Verifier) key(ctx context.Context, t *jwt.Token) (id string, public any, err error) {
	segment, _, _ := strings.Cut(t.Raw, ".")
	b, err := v.parser.DecodeSegment(segment)
	if err != nil {
		return "", nil, err
	}
	var h header
	if json.Unmarshal(b, &h, json.RejectUnknownMembers(true)) != nil {
		return "", nil, refusal("its header has other members than an issued token")
	}
	if h.Type != mediaType { // RFC 8725 section 3.11
		return "", nil, refusal("its type is not " + mediaType)
	}
	key, err := v.keys.Key(ctx, h.KeyID)
	if err != nil {
		return "", nil, keyError{err}
	}
	if key == nil {
		return "", nil, refusal("its key is unknown")
	}
	if h.Algorithm != key.Algorithm { // RFC 8725 section 3.1: the key decides, not the header
		return "", nil, refusal("its algorithm is not the algorithm of its key")
	}
	return h.KeyID, key.Public, nil
}

// check checks the claims of an authentic token (RFC 8725 sections 3.8 and 3.9).
func (v *Verifier) check(c *claims, expired bool) error {
	now := float64(v.now().UnixMilli()) / 1e3
	switch {
	case !c.complete():
		return refusal("a claim is missing")
	case c.Issuer != v.issuer:
		return refusal("it has another issuer")
	case !slices.Contains(c.Audience, v.audience):
		return refusal("it has another audience")
	case !isHex(c.Session):
		return refusal("its session id is not hexadecimal")
	case now >= c.ExpiresAt && !expired:
		return refusal("it has expired")
	case c.IssuedAt > now+Leeway.Seconds(), c.NotBefore > now+Leeway.Seconds():
		return refusal("it is not valid yet")
	}
	return nil
}

// isHex reports whether a session id has the form of an issued one. Any other string belongs to
// no session, and might have a meaning in a database path.
func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// A keyError is the error of a KeySource.
type keyError struct{ error }

func (e keyError) Unwrap() error { return e.error }

// reason translates an error of golang-jwt. The text of that error may contain parts of the
// token.
func reason(err error) error {
	if e, ok := errors.AsType[keyError](err); ok {
		return fmt.Errorf("find the key of a token: %w", e.error)
	}
	if r, ok := errors.AsType[refusal](err); ok {
		return r
	}
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return refusal("its algorithm or its signature is wrong")
	}
	return refusal("it is not a signed token")
}
