// Package introspect is the function that returns to other services whether an access token is valid
// now: its session has not ended (RFC 7662). Services verify most tokens by themselves, and ask
// only where an answer of up to seconds ago is not enough.
package introspect

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

// Function serves POST /api/users/introspect.
var Function = endpoint.Function{
	Name:  "introspect",
	Needs: []endpoint.Need{accesstoken.Verifying, identity.Clients, user.Storing(endpoint.Find)},
	Endpoints: []endpoint.Endpoint{endpoint.Define(endpoint.Spec{
		Method:   http.MethodPost,
		Path:     "/api/users/introspect",
		Access:   endpoint.Service,
		Success:  http.StatusOK,
		Summary:  "Return whether an access token is valid now, for another service (RFC 7662).",
		Refuses:  []apierror.Kind{apierror.Unauthenticated},
		Internal: true,
	}, newHandler, introspect.handle)},
}

// Input is a token, in a form as RFC 7662 section 2.1 requires.
type Input struct {
	identity.Service
	Token string  `form:"token"`
	Hint  *string `form:"token_type_hint"` // ignored: only access tokens are introspected
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{
		{Name: "token", Opaque: true, About: "The access token."},
		{Name: "token_type_hint", About: "Ignored. A refresh token is never active here."},
	}
}

// Output is the state of the token. Without Active it has no other member (RFC 7662 section 2.2).
type Output struct {
	Active        bool     `json:"active"`
	Type          string   `json:"token_type,omitzero"`
	Issuer        string   `json:"iss,omitzero"`
	Audience      string   `json:"aud,omitzero"`
	Subject       string   `json:"sub,omitzero"`
	Session       string   `json:"sid,omitzero"`
	ID            string   `json:"jti,omitzero"`
	ClientID      string   `json:"client_id,omitzero"`
	IssuedAt      int64    `json:"iat,omitzero"`
	ExpiresAt     int64    `json:"exp,omitzero"`
	AuthTime      int64    `json:"auth_time,omitzero"`
	AMR           []string `json:"amr,omitempty"`
	ACR           string   `json:"acr,omitzero"`
	Email         string   `json:"email,omitzero"`
	EmailVerified *bool    `json:"email_verified,omitzero"`
	Roles         []string `json:"roles,omitempty"`
}

// Members implements reference.Described.
func (Output) Members() []reference.Member {
	return []reference.Member{
		{Name: "active", About: "True if the token is authentic, has not expired, and its session has not ended. If false, there are no other members."},
		{Name: "token_type", About: "Always Bearer."},
		{Name: "sub", Opaque: true, About: "The id of the user."},
		{Name: "sid", Opaque: true, About: "The id of the session."},
		{Name: "jti", Opaque: true},
		{Name: "iat", Format: "unix-time", About: "In seconds since 1970, as exp and auth_time."},
		{Name: "exp", Format: "unix-time"},
		{Name: "auth_time", Format: "unix-time"},
	}
}

type introspect struct {
	tokens           *token.Verifier
	issuer, audience string
	users            *user.Store
	now              func() time.Time
}

func newHandler(cfg *config.Config) introspect {
	issuer, audience := accesstoken.Names(cfg)
	return introspect{accesstoken.VerifierFromConfig(cfg), issuer, audience, user.FromConfig(cfg, nil), cfg.Now()}
}

// handle reads the session once. A service cannot tell a forged token from an expired or a
// revoked one: RFC 7662 section 2.2 allows no reason.
func (i introspect) handle(ctx context.Context, in Input) (Output, error) {
	c, err := i.tokens.Verify(ctx, in.Token)
	if errors.Is(err, token.ErrInvalid) {
		return Output{}, nil
	}
	if err != nil {
		return Output{}, err
	}
	_, err = i.users.Session(ctx, c.Subject, c.Session, i.now())
	if errors.Is(err, user.ErrSessionEnded) {
		return Output{}, nil
	}
	if err != nil {
		return Output{}, err
	}
	out := Output{
		Active: true, Type: "Bearer", Issuer: i.issuer, Audience: i.audience, Subject: c.Subject, Session: c.Session, ID: c.ID,
		ClientID: c.ClientID, IssuedAt: c.IssuedAt.Unix(), ExpiresAt: c.ExpiresAt.Unix(), AMR: c.AMR, ACR: c.ACR,
		Email: c.Email, EmailVerified: &c.EmailVerified, Roles: c.Roles,
	}
	if !c.AuthTime.IsZero() {
		out.AuthTime = c.AuthTime.Unix()
	}
	return out, nil
}
