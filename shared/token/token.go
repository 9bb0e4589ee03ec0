// Package token issues and verifies access tokens. They are compact JWS (RFC 7515) of type at+jwt
// (RFC 9068), signed with EdDSA over Ed25519 (RFC 8037). Their kid is the thumbprint of the key
// (RFC 7638).
//
// Signup, signin and refresh hold an Issuer and the private keys. Functions that read the
// Authorization header hold a Verifier and public keys only. The jwks function publishes the
// public keys.
//
// A verified token proves the user, the session and the time of issue. It does not prove that
// the session is still valid: that state is in the user's document. Refresh tokens are opaque
// and belong to package session.
//
// The verifier follows the checks of RFC 8725. golang-jwt processes the JWS: segments, strict
// base64url, the pinned algorithm, the signature. This package does all other checks, and reads
// the claims only after the signature is verified.
package token

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// MaxLength bounds a token, in bytes. Issued tokens take about 500.
	MaxLength = 8 << 10

	// Leeway is the limit by which the clock of an issuer may be ahead of the clock of a
	// verifier. It does not apply to exp: that would only extend the use of a stolen
	// token.
	Leeway = 30 * time.Second

	algorithm = "EdDSA"
	mediaType = "at+jwt" // RFC 9068 section 2.1

	// lastDate is the end of the year 9999 as a NumericDate. Converting a larger number to
	// a time.Time has no defined result.
	lastDate = 253402300799
)

// Claims are the claims of a token about its bearer.
type Claims struct {
	Subject  string    // the user's id
	Session  string    // the session's id
	ID       string    // the token's own id, unique for each one issued
	Email    string    // the user's email at that time
	IssuedAt time.Time // in whole seconds
}

// ErrInvalid is the only error of Verify. The error that wraps it gives the reason for the log.
// It never contains a part of the token.
var ErrInvalid = errors.New("the token is not valid")

// A refusal is a reason for ErrInvalid. It is always a constant, so the log contains no input
// of a client.
type refusal string

func (r refusal) Error() string { return ErrInvalid.Error() + ": " + string(r) }
func (r refusal) Unwrap() error { return ErrInvalid }

// header is the whole JOSE header of a token.
type header struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	KeyID     string `json:"kid"`
}

// claims is the payload of a token. The dates are NumericDates, seconds since
// 1970 (RFC 7519 section 2).
type claims struct {
	Issuer    string   `json:"iss"`
	Audience  audience `json:"aud"`
	Subject   string   `json:"sub"`
	Session   string   `json:"sid"`
	ID        string   `json:"jti"`
	IssuedAt  float64  `json:"iat"`
	ExpiresAt float64  `json:"exp"`
	NotBefore float64  `json:"nbf,omitzero"` // never issued, but verified (RFC 7519 section 4.1.5)
	Email     string   `json:"email"`
	ClientID  string   `json:"client_id,omitzero"` // optional: earlier versions issued tokens without it
}

// complete reports whether every required claim is present.
func (c *claims) complete() bool {
	return c.Issuer != "" && len(c.Audience) > 0 && c.Subject != "" && c.Session != "" && c.ID != "" && c.Email != "" &&
		date(c.IssuedAt) && date(c.ExpiresAt)
}

func date(seconds float64) bool { return 0 < seconds && seconds <= lastDate }

// An audience is one string or an array of strings (RFC 7519 section 4.1.3). An Issuer has one
// audience and writes a string.
type audience []string

func (a audience) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteToken(jsontext.String(a[0]))
}

func (a *audience) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != jsontext.KindString {
		return json.UnmarshalDecode(d, (*[]string)(a))
	}
	*a = make(audience, 1)
	return json.UnmarshalDecode(d, &(*a)[0])
}

// A payload passes the JSON of the claims through golang-jwt without parsing it. Otherwise
// golang-jwt parses it before it verifies the signature, and with encoding/json. That package
// accepts duplicate names and names in any case.
type payload struct {
	jwt.Claims // nil and never called: the Verifier checks the claims
	json       []byte
}

func (p *payload) MarshalJSON() ([]byte, error) { return p.json, nil }

func (p *payload) UnmarshalJSON(b []byte) error {
	p.json = append(p.json, b...)
	return nil
}
