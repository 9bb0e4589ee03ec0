// Package signout is the function that ends a session. From then on every function rejects the
// access token and the refresh token of the session.
package signout

import (
	"context"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/user"
)

// Function serves POST /api/users/signout, and receives the event with which another service
// ends the sessions of a user.
var Function = endpoint.Function{
	Name:  "signout",
	Needs: []endpoint.Need{accesstoken.Verifying, sender.Publishing(event.SignedOut), user.Storing(endpoint.Find, endpoint.Update)},
	Endpoints: []endpoint.Endpoint{endpoint.Define(endpoint.Spec{
		Method:  http.MethodPost,
		Path:    "/api/users/signout",
		Access:  endpoint.Required,
		Success: http.StatusOK,
		Summary: "End the session of the bearer token.",
	}, newHandler, signout.handle)},
	Receivers: []endpoint.Receiver{receiver.On(endpoint.Receiver{
		Types:   []*event.Type{requested},
		Reply:   done,
		Summary: "End one session of a user, or all of them.",
	}, newHandler, signout.handleEvent)},
}

var (
	requested = event.Define[Request]("com.ticketing.user.signout.requested.v1", "", "A service requests the end of one session of a user, or of all.")
	done      = event.Define[Done]("com.ticketing.user.signout.done.v1", event.Source, "The requested sessions have ended.")
)

// Input is a token. It may be expired, because the refresh token of its session is valid for
// much longer.
type Input struct{ identity.Expired }

// Output confirms the sign-out.
type Output struct {
	Message string `json:"message"`
}

// Request names one session of a user. Without SessionID it stands for all sessions.
type Request struct {
	endpoint.Keyed
	UserID    string  `json:"userId"`
	SessionID *string `json:"sessionId,omitzero"`
}

// Members implements reference.Described.
func (Request) Members() []reference.Member {
	return []reference.Member{
		{Name: "userId", MinLength: 1, About: "The id of the user."},
		{Name: "sessionId", MinLength: 1, About: "The session to end. If absent, all sessions of the user end."},
	}
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

// Members implements reference.Described.
func (Done) Members() []reference.Member {
	return []reference.Member{
		{Name: "userId", About: "The id in the request. It need not exist."},
		{Name: "ended", About: "The number of sessions that the event ended. A repeated delivery has the same number."},
	}
}

type signout struct {
	users *user.Store
	now   func() time.Time
}

func newHandler(cfg *config.Config) signout {
	return signout{user.FromConfig(cfg, sender.FromConfig(cfg)), cfg.Now()}
}

// handle ends the session of a token. The session may be ended already, because a client
// repeats a sign-out after its answer was lost.
func (s signout) handle(ctx context.Context, in Input) (Output, error) {
	if err := s.users.End(ctx, in.Identity.Subject, in.Identity.Session); err != nil {
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
