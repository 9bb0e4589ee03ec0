// Package token issues and verifies access tokens: compact JWS (RFC 7515) signed
// with EdDSA over Ed25519 (RFC 8037), of type at+jwt (RFC 9068), under a kid that
// is the thumbprint of the key (RFC 7638).
//
// Signup, signin and refresh hold an Issuer and the private keys. Whoever reads
// the bearer header holds a Verifier and public keys alone; jwks publishes those.
//
// A verified token says who it was made for and when. It does not say that the
// session still lives: that is in the user's document. Refresh tokens are opaque
// and are no business of this package.
//
// The check-list of the verifier is RFC 8725. golang-jwt does the JWS: segments,
// strict base64url, the pinned algorithm, the signature. What it has no opinion
// on is done here, and the claims are not read before the signature holds.
package token

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// MaxLength bounds a token, in bytes. Ours take about 500.
	MaxLength = 8 << 10

	// Leeway is how far the clock of an issuer may be ahead of a verifier's. The
	// other way needs none: a leeway on exp would only lengthen the life of a
	// stolen token.
	Leeway = 30 * time.Second

	algorithm = "EdDSA"
	mediaType = "at+jwt" // RFC 9068 §2.1

	// lastDate is the end of the year 9999 as a NumericDate. What lies beyond is
	// no date, and converting it to a time.Time has no defined result.
	lastDate = 253402300799
)

// Claims are what a token says of its bearer.
type Claims struct {
	Subject  string    // the user's id
	Session  string    // the session's id
	ID       string    // the token's own id, unique for each one issued
	Email    string    // the user's email at that time
	IssuedAt time.Time // in whole seconds
}

// ErrInvalid is the one answer to a token that does not count. The error around
// it says for the log what was wrong, and never holds any part of the token.
var ErrInvalid = errors.New("the token is not valid")

// A refusal is a reason for ErrInvalid. It is always a constant, so nothing that
// a stranger sent can get into the log by way of it.
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
// 1970 (RFC 7519 §2).
type claims struct {
	Issuer    string   `json:"iss"`
	Audience  audience `json:"aud"`
	Subject   string   `json:"sub"`
	Session   string   `json:"sid"`
	ID        string   `json:"jti"`
	IssuedAt  float64  `json:"iat"`
	ExpiresAt float64  `json:"exp"`
	NotBefore float64  `json:"nbf,omitzero"` // never issued, but obeyed (RFC 7519 §4.1.5)
	Email     string   `json:"email"`
	ClientID  string   `json:"client_id,omitzero"` // not required: issuers before it wrote none
}

// complete reports whether every required claim is there.
func (c *claims) complete() bool {
	return c.Issuer != "" && len(c.Audience) > 0 && c.Subject != "" && c.Session != "" && c.ID != "" && c.Email != "" &&
		date(c.IssuedAt) && date(c.ExpiresAt)
}

func date(seconds float64) bool { return 0 < seconds && seconds <= lastDate }

// An audience is one string or an array of them (RFC 7519 §4.1.3). An Issuer has
// one and writes it as a string.
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

// A payload carries the JSON of the claims through golang-jwt, which would read
// it before it verifies the signature, and with encoding/json, for which a name
// may come twice and in any case.
type payload struct {
	jwt.Claims // nil and never asked: the claims are checked here
	json       []byte
}

func (p *payload) MarshalJSON() ([]byte, error) { return p.json, nil }

func (p *payload) UnmarshalJSON(b []byte) error {
	p.json = append(p.json, b...)
	return nil
}
