package session

import (
	"fmt"
	"net/http"
	"time"

	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/token"
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
		{Name: "token", Opaque: true, About: "The access token, a JWT (RFC 9068) signed with Ed25519. Send it as a bearer token."},
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
// While an access token is valid, the same session and refresh token give the same access
// token, byte for byte. Its id and times come from the session, and an Ed25519 signature is
// deterministic (RFC 8032 section 5.1.6). After its expiry, Grant issues a new one.
func (g *Granter) Grant(u user.User, s user.Session, r Refresh, now time.Time) (Grant, error) {
	claims := token.Claims{
		Subject:  u.ID,
		Session:  s.ID,
		ID:       fmt.Sprintf("%s.%d", s.ID, s.Generation),
		Email:    u.Email,
		IssuedAt: s.RotatedAt,
	}
	left := g.tokens.SecondsLeft(claims, now)
	if left <= 0 {
		claims.IssuedAt = now
		claims.ID += fmt.Sprintf(".%d", now.Unix())
		left = g.tokens.SecondsLeft(claims, now)
	}
	access, err := g.tokens.Issue(claims)
	if err != nil {
		return Grant{}, fmt.Errorf("sign an access token: %w", err)
	}
	return Grant{User: u, Token: access, RefreshToken: r.String(), ExpiresIn: left}, nil
}
