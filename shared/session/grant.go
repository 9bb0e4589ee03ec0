package session

import (
	"fmt"
	"time"

	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/token"
	"ticketing.com/auth/shared/user"
)

// A Grant is what the owner of a session gets: the answer of signup, signin and
// refresh.
type Grant struct {
	User         user.User `json:"user"`
	Token        string    `json:"token"`        // the access token, a JWT
	RefreshToken string    `json:"refreshToken"` // opaque
	ExpiresIn    int       `json:"expiresIn"`    // life of the access token, in seconds
}

// Members implements reference.Described.
func (Grant) Members() []reference.Member {
	return []reference.Member{
		{Name: "token", Opaque: true, About: "The access token, a JWT (RFC 9068) signed with Ed25519. It is sent as a bearer token."},
		{Name: "refreshToken", Opaque: true, About: "Good for one exchange at refresh."},
		{Name: "expiresIn", Minimum: 1, About: "Life of the access token, in seconds."},
	}
}

// A Granter makes grants. It holds the signing key.
type Granter struct {
	tokens *token.Issuer
	life   time.Duration
}

// Life is how long a session lives after its last refresh.
func (g *Granter) Life() time.Duration { return g.life }

// Grant hands a session to its owner. The same session and refresh token make
// the same grant, byte for byte: the access token's id and time are the
// session's, and an Ed25519 signature is deterministic (RFC 8032 §5.1.6).
func (g *Granter) Grant(u user.User, s user.Session, r Refresh) (Grant, error) {
	access, err := g.tokens.Issue(token.Claims{
		Subject:  u.ID,
		Session:  s.ID,
		ID:       fmt.Sprintf("%s.%d", s.ID, s.Generation),
		Email:    u.Email,
		IssuedAt: s.RotatedAt,
	})
	if err != nil {
		return Grant{}, fmt.Errorf("sign an access token: %w", err)
	}
	return Grant{User: u, Token: access, RefreshToken: r.String(), ExpiresIn: int(g.tokens.Life().Seconds())}, nil
}
