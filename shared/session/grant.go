package session

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"

	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

// A Grant is the response of signup, signin and refresh to the owner of the session.
type Grant struct {
	User         user.User `json:"user"`
	Token        string    `json:"token"`        // the access token, a JWT
	RefreshToken string    `json:"refreshToken"` // opaque
	ExpiresIn    int       `json:"expiresIn"`    // seconds for which the access token is still valid

	Device string `json:"-"` // the device token, sent in headers; empty after a refresh
}

// Header returns the response headers. They hold the device token. Browsers receive it as a
// cookie that scripts cannot read.
func (g Grant) Header() http.Header {
	if g.Device == "" {
		return nil
	}
	cookie := http.Cookie{Name: "__Host-device", Value: g.Device, Path: "/", MaxAge: int(user.DeviceTTL.Seconds()),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	return http.Header{"Device-Token": {g.Device}, "Set-Cookie": {cookie.String()}}
}

// Members implements reference.Described.
func (Grant) Members() []reference.Member {
	return []reference.Member{
		{Name: "token", Opaque: true, About: "The access token, a signed JWT (RFC 9068). Send it as a bearer token."},
		{Name: "refreshToken", Opaque: true, About: "Valid for one exchange at refresh."},
		{Name: "expiresIn", Minimum: 1, About: "Number of seconds for which the access token is still valid."},
	}
}

// A Granter creates grants. It holds the signing key.
type Granter struct {
	tokens      *token.Issuer
	ttl, maxTTL time.Duration
}

// TTL returns the lifetime of a session after its last refresh.
func (g *Granter) TTL() time.Duration { return g.ttl }

// MaxTTL returns the lifetime of a session after its sign-in. A refresh does not extend it.
func (g *Granter) MaxTTL() time.Duration { return g.maxTTL }

// Grant returns the grant of a session at a time.
//
// While an access token is valid, the same session, refresh token and profile give the same access
// token, byte for byte: its id and its times come from them, and signatures are deterministic.
// After its expiry, Grant issues a new one.
func (g *Granter) Grant(p user.Profile, s user.Session, r Refresh, now time.Time) (Grant, error) {
	claims := token.Claims{
		Subject:       p.ID,
		Session:       s.ID,
		Email:         p.Email,
		EmailVerified: p.VerifiedAt != nil,
		Roles:         p.Roles,
		IssuedAt:      s.RotatedAt,
		ExpiresAt:     s.ExpiresAt, // a service that reads no database must not accept the token after the session
		AuthTime:      s.CreatedAt,
		AMR:           []string{"pwd"},
		ACR:           "aal1",
	}
	left := g.tokens.SecondsLeft(claims, now)
	if left <= 0 {
		claims.IssuedAt = now
		left = g.tokens.SecondsLeft(claims, now)
	}
	claims.ID = tokenID(claims, s.Generation)
	access, err := g.tokens.Issue(claims)
	if err != nil {
		return Grant{}, fmt.Errorf("sign an access token: %w", err)
	}
	return Grant{User: p.User, Token: access, RefreshToken: r.String(), ExpiresIn: left}, nil
}

// tokenID returns the jti of a token. A repeated answer can have other claims after a change of the
// profile, and then has another id (RFC 7519 section 4.1.7).
func tokenID(c token.Claims, generation int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q %t %q", c.IssuedAt.Unix(), c.Email, c.EmailVerified, c.Roles))
	return fmt.Sprintf("%s.%d.%x", c.Session, generation, sum[:8])
}
