// Package signout is the function that ends a session. From then on every function rejects the
// access token and the refresh token of the session.
package signout

import (
	"context"
	"net/http"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/token"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/signout, and the event with which another service ends the
// sessions of a user.
var Endpoint = receiver.On(endpoint.Define(endpoint.Spec{
	Name:    "signout",
	Method:  http.MethodPost,
	Path:    "/api/users/signout",
	Success: http.StatusOK,
	Summary: "End the session of the bearer token.",
}, newHandler), endpoint.Trigger{
	Types: []string{"com.ticketing.user.signout.requested.v1"},
	Reply: "com.ticketing.user.signout.done.v1",
}, newEventHandler)

// Output confirms the sign-out.
type Output struct {
	Message string `json:"message"`
}

// Request names one session of a user. Without SessionID it stands for all sessions.
type Request struct {
	endpoint.Keyed
	UserID    string  `json:"userId"`
	SessionID *string `json:"sessionId"`
}

// Validate rejects empty members.
func (r *Request) Validate(bad *apierror.Fields) {
	if r.UserID == "" {
		bad.Add("userId", "userId must not be empty.")
	}
	if r.SessionID != nil && *r.SessionID == "" { // must not stand for all sessions
		bad.Add("sessionId", "sessionId must not be empty.")
	}
}

// Done holds the number of sessions that were ended.
type Done struct {
	UserID string `json:"userId"`
	Ended  int    `json:"ended"`
}

type signout struct {
	tokens *token.Verifier
	users  *user.Store
	now    func() time.Time
}

func newHandler(cfg *config.Config) endpoint.Handler[endpoint.Bearer, Output] {
	s := signout{tokens: token.VerifierFromConfig(cfg), users: user.FromConfig(cfg, sender.FromConfig(cfg))}
	return s.handle
}

func newEventHandler(cfg *config.Config) endpoint.Handler[Request, Done] {
	s := signout{users: user.FromConfig(cfg, sender.FromConfig(cfg)), now: cfg.Now()}
	return s.handleEvent
}

// handle accepts every authentic token. The token may be expired, because the refresh token of
// its session is valid for much longer. Its session may be ended already, because a client
// repeats a sign-out after its answer was lost.
func (s signout) handle(ctx context.Context, in endpoint.Bearer) (Output, error) {
	claims, err := s.tokens.VerifyExpired(in.Token)
	if err != nil {
		return Output{}, apierror.InvalidToken(err)
	}
	if err := s.users.End(ctx, claims.Subject, claims.Session); err != nil {
		return Output{}, err
	}
	return Output{Message: "Signed out."}, nil
}

// handleEvent trusts the event receiver: a service that may send events may end sessions.
func (s signout) handleEvent(ctx context.Context, in Request) (Done, error) {
	sid := ""
	if in.SessionID != nil {
		sid = *in.SessionID
	}
	ended, err := s.users.EndOnRequest(ctx, in.UserID, sid, in.Key, s.now())
	return Done{UserID: in.UserID, Ended: ended}, err
}
