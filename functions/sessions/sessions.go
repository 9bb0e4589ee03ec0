// Package sessions is the function with which a user sees and ends the sessions of the account.
package sessions

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/origin"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

const path = "/api/users/sessions"

// Function serves GET and DELETE /api/users/sessions, and DELETE /api/users/sessions/{id}.
var Function = endpoint.Function{
	Name: "sessions",
	Needs: []endpoint.Need{accesstoken.Verifying, origin.Reading, sender.Publishing(event.SignedOut),
		user.Storing(endpoint.Find, endpoint.Update)},
	Endpoints: []endpoint.Endpoint{
		endpoint.Define(endpoint.Spec{
			ID:      "sessions",
			Method:  http.MethodGet,
			Path:    path,
			Access:  endpoint.Required,
			Success: http.StatusOK,
			Summary: "List the sessions of the user, the newest first.",
		}, newHandler, sessions.list),
		endpoint.Define(endpoint.Spec{
			ID:      "endOtherSessions",
			Method:  http.MethodDelete,
			Path:    path,
			Access:  endpoint.Required,
			Success: http.StatusOK,
			Summary: "End all sessions of the user but that of the bearer token, within 15 minutes of its sign-in.",
		}, newHandler, sessions.endOthers),
		endpoint.Define(endpoint.Spec{
			ID:      "endSession",
			Method:  http.MethodDelete,
			Path:    path + "/{id}",
			Access:  endpoint.Required,
			Success: http.StatusNoContent,
			Summary: "End one session of the user. For another session than that of the bearer token, its sign-in must be at most 15 minutes ago.",
			Refuses: []apierror.Kind{apierror.NotFound},
		}, newHandler, sessions.end),
	},
}

// Input is the identity of the user.
type Input struct {
	identity.Required
	origin.Origin
}

// One is the id of a session.
type One struct {
	identity.Required
	origin.Origin
	ID string `path:"id"`
}

// Output lists sessions.
type Output struct {
	Sessions []Session `json:"sessions"`
}

// Session is a session as the user sees it.
type Session struct {
	ID        string    `json:"id"`
	Current   bool      `json:"current"`
	CreatedAt time.Time `json:"createdAt"`
	SeenAt    time.Time `json:"seenAt"`
	Agent     string    `json:"agent"`
	Place     string    `json:"place"`
	AMR       []string  `json:"amr"`
}

// Members implements reference.Described.
func (Session) Members() []reference.Member {
	return []reference.Member{
		{Name: "id", Opaque: true, About: "The claim sid of the tokens of the session."},
		{Name: "current", About: "Whether this is the session of the bearer token."},
		{Name: "createdAt", About: "The time of the sign-in."},
		{Name: "seenAt", About: "The time of the last refresh, or of the sign-in. An active client refreshes within the lifetime of an access token."},
		{Name: "agent", About: "The browser and the system at the sign-in, such as Chrome on macOS. The client can send a false one. Empty if unknown."},
		{Name: "place", About: "The network at the sign-in, a /24 of IPv4 or a /48 of IPv6. Empty if unknown."},
		{Name: "amr", About: "The methods of the sign-in (RFC 8176)."},
	}
}

// Ended is the number of sessions that have ended.
type Ended struct {
	Ended int `json:"ended"`
}

type sessions struct {
	users *user.Store
	now   func() time.Time
}

func newHandler(cfg *config.Config) sessions {
	return sessions{user.FromConfig(cfg, sender.FromConfig(cfg)), cfg.Now()}
}

func (s sessions) list(ctx context.Context, in Input) (Output, error) {
	now := s.now()
	a, err := s.users.SignedIn(ctx, in.Identity.Subject, in.Identity.Session, now)
	if err != nil {
		return Output{}, translate(err)
	}
	all := []Session{}
	for id, found := range a.Sessions {
		if found.ExpiresAt.After(now) {
			all = append(all, Session{id, id == in.Identity.Session, found.CreatedAt, found.RotatedAt, found.Agent, found.Place, []string{"pwd"}})
		}
	}
	slices.SortFunc(all, func(x, y Session) int {
		return cmp.Or(y.CreatedAt.Compare(x.CreatedAt), cmp.Compare(x.ID, y.ID))
	})
	return Output{all}, nil
}

// freshness is the time for which a sign-in permits a client to end other sessions.
const freshness = 15 * time.Minute

// fresh returns an API error unless the user has signed in recently. Otherwise a stolen token could end the
// sessions of the owner (OWASP ASVS 5.0.0 requirement 7.5.2).
func (s sessions) fresh(c token.Claims) error {
	if !c.Fresh(freshness, s.now()) {
		return apierror.Reauthenticate("", freshness)
	}
	return nil
}

func (s sessions) endOthers(ctx context.Context, in Input) (Ended, error) {
	if err := s.fresh(in.Identity); err != nil {
		return Ended{}, err
	}
	ended, err := s.users.EndOthers(ctx, in.Identity.Subject, in.Identity.Session, in.From, s.now())
	return Ended{ended}, translate(err)
}

func (s sessions) end(ctx context.Context, in One) (endpoint.None, error) {
	if in.ID != in.Identity.Session {
		if err := s.fresh(in.Identity); err != nil {
			return endpoint.None{}, err
		}
	}
	return endpoint.None{}, translate(s.users.EndSession(ctx, in.Identity.Subject, in.Identity.Session, in.ID, in.From, s.now()))
}

func translate(err error) error {
	switch {
	case errors.Is(err, user.ErrSessionEnded):
		return apierror.InvalidToken(err)
	case errors.Is(err, user.ErrNoSession):
		return apierror.New(apierror.NotFound, "The session does not exist.")
	}
	return err
}
