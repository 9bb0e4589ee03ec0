package token

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// A Verifier accepts the tokens of one issuer for one audience. It is safe for
// concurrent use.
type Verifier struct {
	keys             *VerifyingKeys
	issuer, audience string
	now              func() time.Time
	parser           *jwt.Parser
}

// NewVerifier returns a verifier that trusts the keys and reads the time from now.
func NewVerifier(keys *VerifyingKeys, issuer, audience string, now func() time.Time) *Verifier {
	return &Verifier{keys, issuer, audience, now, jwt.NewParser(
		jwt.WithValidMethods([]string{algorithm}), // RFC 8725 section 3.1
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(), // see Verifier.claims
	)}
}

// Verify returns the claims of a token that is authentic and valid now. Each of its errors
// wraps ErrInvalid.
func (v *Verifier) Verify(raw string) (Claims, error) { return v.verify(raw, false) }

// VerifyExpired returns the claims of an authentic token that may have expired. Only a sign-out
// uses it: such a token permits nothing except ending its session.
func (v *Verifier) VerifyExpired(raw string) (Claims, error) { return v.verify(raw, true) }

func (v *Verifier) verify(raw string, expired bool) (Claims, error) {
	if len(raw) > MaxLength {
		return Claims{}, refusal("it is longer than 8 KiB")
	}
	// Package base64 skips line breaks, even in strict mode. Each token must have one
	// encoding only.
	if strings.ContainsAny(raw, "\r\n") {
		return Claims{}, refusal("it contains a line break")
	}
	var p payload
	if _, err := v.parser.ParseWithClaims(raw, &p, v.key); err != nil {
		return Claims{}, reason(err)
	}
	return v.claims(p.json, expired)
}

// key returns the key that the header names. The header may have only the members that an
// Issuer writes. So key rejects crit, b64, jku, jwk, x5c and x5u (RFC 8725 section 3.10), and
// every other member that would change the verification. It looks up the kid in the set only.
func (v *Verifier) key(t *jwt.Token) (any, error) {
	segment, _, _ := strings.Cut(t.Raw, ".")
	b, err := v.parser.DecodeSegment(segment)
	if err != nil {
		return nil, err
	}
	var h header
	if json.Unmarshal(b, &h, json.RejectUnknownMembers(true)) != nil {
		return nil, refusal("its header has other members than an issued token")
	}
	if h.Type != mediaType { // RFC 8725 section 3.11
		return nil, refusal("its type is not " + mediaType)
	}
	key, ok := v.keys.byID[h.KeyID]
	if !ok {
		return nil, refusal("its key is unknown")
	}
	return key, nil
}

// claims parses and checks the payload of a token with a valid signature (RFC 8725 sections 3.8
// and 3.9). Unknown members are ignored (RFC 7519 section 4).
func (v *Verifier) claims(b []byte, expired bool) (Claims, error) {
	var c claims
	if json.Unmarshal(b, &c) != nil {
		return Claims{}, refusal("its claims are not well formed")
	}
	now := float64(v.now().UnixMilli()) / 1e3
	switch {
	case !c.complete():
		return Claims{}, refusal("a claim is missing")
	case c.Issuer != v.issuer:
		return Claims{}, refusal("it has another issuer")
	case !slices.Contains(c.Audience, v.audience):
		return Claims{}, refusal("it has another audience")
	case !isHex(c.Session):
		return Claims{}, refusal("its session id is not hexadecimal")
	case now >= c.ExpiresAt && !expired:
		return Claims{}, refusal("it has expired")
	case c.IssuedAt > now+Leeway.Seconds(), c.NotBefore > now+Leeway.Seconds():
		return Claims{}, refusal("it is not valid yet")
	}
	return Claims{
		Subject:  c.Subject,
		Session:  c.Session,
		ID:       c.ID,
		Email:    c.Email,
		IssuedAt: time.Unix(int64(c.IssuedAt), 0).UTC(),
	}, nil
}

// isHex reports whether a session id has the form of an issued one. Any other string belongs to
// no session, and might have a meaning in a database path.
func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// reason translates an error of golang-jwt. The text of that error may contain parts of the
// token.
func reason(err error) error {
	if r, ok := errors.AsType[refusal](err); ok {
		return r
	}
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return refusal("its algorithm or its signature is wrong")
	}
	return refusal("it is not a signed token")
}
