// Package token issues and verifies access tokens. They are compact JWS (RFC 7515) of type at+jwt
// (RFC 9068), signed with EdDSA over Ed25519 (RFC 8037) or with ES256 (RFC 7518 section 3.4). Their
// kid is the thumbprint of the key (RFC 7638).
//
// Signup, signin and refresh hold an Issuer and the private keys. Functions and services that read
// the Authorization header hold a Verifier and public keys only. The jwks function publishes the
// public keys.
//
// A verified token proves the user, the session and the time of issue. It does not prove that
// the session is still valid: that state is in the user's document. Refresh tokens are opaque
// and do not belong to this package.
//
// The verifier follows the checks of RFC 8725. golang-jwt processes the JWS: segments, strict
// base64url, the signature. This package does all other checks, and reads the claims only after
// the signature is verified.
package token

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// MaxLength bounds a token, in bytes. Issued tokens take about 600.
	MaxLength = 8 << 10

	// Leeway is the limit by which the clock of an issuer may be ahead of the clock of a
	// verifier. It does not apply to exp: that would only extend the use of a stolen
	// token.
	Leeway = 30 * time.Second

	mediaType = "at+jwt" // RFC 9068 section 2.1

	// lastDate is the end of the year 9999 as a NumericDate. Converting a larger number to
	// a time.Time has no defined result.
	lastDate = 253402300799
)

// Claims are the claims of a token about its bearer. Tokens of earlier versions have none of the
// claims from ClientID on.
type Claims struct {
	Subject   string    // the user's id
	Session   string    // the session's id
	ID        string    // the token's own id, unique for each one issued
	Email     string    // the user's email at that time
	IssuedAt  time.Time // in whole seconds
	ExpiresAt time.Time // in whole seconds

	ClientID      string    // the client that received the token; set by the issuer
	EmailVerified bool      // the user has proved control of the email
	AuthTime      time.Time // the user's last authentication, in whole seconds; zero if unknown
	AMR           []string  // the methods of that authentication (RFC 8176), such as pwd
	ACR           string    // its assurance level: aal1, aal2 or phr
	Roles         []string
}

// Fresh reports whether the user has authenticated within a time. A time that is further ahead than Leeway
// is that of a wrong clock, and the next tokens of the session have it too.
func (c Claims) Fresh(within time.Duration, now time.Time) bool {
	age := now.Sub(c.AuthTime)
	return !c.AuthTime.IsZero() && -Leeway <= age && age <= within
}

// ErrInvalid is the error of Verify for a token that is not valid. The error that wraps it gives
// the reason for the log. It never contains a part of the token.
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
	Issuer        string   `json:"iss"`
	Audience      audience `json:"aud"`
	Subject       string   `json:"sub"`
	Session       string   `json:"sid"`
	ID            string   `json:"jti"`
	IssuedAt      float64  `json:"iat"`
	ExpiresAt     float64  `json:"exp"`
	NotBefore     float64  `json:"nbf,omitzero"` // never issued, but verified (RFC 7519 section 4.1.5)
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	ClientID      string   `json:"client_id,omitzero"`
	AuthTime      float64  `json:"auth_time,omitzero"`
	AMR           []string `json:"amr,omitempty"`
	ACR           string   `json:"acr,omitzero"`
	Roles         []string `json:"roles,omitempty"`
}

// complete reports whether every required claim is present. The issuers of a rolling deployment
// have different versions, so a new claim must stay optional.
func (c *claims) complete() bool {
	return c.Issuer != "" && len(c.Audience) > 0 && c.Subject != "" && c.Session != "" && c.ID != "" && c.Email != "" &&
		date(c.IssuedAt) && date(c.ExpiresAt) && (c.AuthTime == 0 || date(c.AuthTime))
}

func date(seconds float64) bool { return 0 < seconds && seconds <= lastDate }

// public returns the claims about the bearer.
func (c *claims) public() Claims {
	p := Claims{
		Subject:       c.Subject,
		Session:       c.Session,
		ID:            c.ID,
		Email:         c.Email,
		IssuedAt:      whole(c.IssuedAt),
		ExpiresAt:     whole(c.ExpiresAt),
		ClientID:      c.ClientID,
		EmailVerified: c.EmailVerified,
		AMR:           append([]string(nil), c.AMR...), // the cache shares the claims between requests
		ACR:           c.ACR,
		Roles:         append([]string(nil), c.Roles...),
	}
	if c.AuthTime != 0 {
		p.AuthTime = whole(c.AuthTime)
	}
	return p
}

func whole(seconds float64) time.Time { return time.Unix(int64(seconds), 0).UTC() }

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
