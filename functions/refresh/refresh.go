// Package refresh is the function that exchanges a refresh token for a new access
// token and a new refresh token. It is one of the three that hold the signing
// key.
package refresh

import (
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/sink"
	"ticketing.com/auth/shared/throttle"
	"ticketing.com/auth/shared/user"
)

// Endpoint is POST /api/users/refresh.
var Endpoint = endpoint.Define(endpoint.Spec{
	Name:    "refresh",
	Method:  http.MethodPost,
	Path:    "/api/users/refresh",
	Success: http.StatusOK,
	Summary: "Exchange a refresh token for a new access token and a new refresh token.",
	Refuses: []fault.Kind{fault.Unauthenticated},
}, wire)

// Input is a refresh token.
type Input struct {
	endpoint.Caller
	RefreshToken string `json:"refreshToken"`
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{{Name: "refreshToken", Opaque: true, About: "The newest refresh token of the session. " +
		"A used one gets the same answer again for 10 seconds, and for 2 minutes if its successor was never presented. " +
		"Later it counts as stolen, and the session ends."}}
}

type refresh struct {
	users    *user.Store
	grants   *session.Granter
	throttle *throttle.Throttle
	now      func() time.Time
	looking  chan struct{} // a place for each that is looked for though its address is refused
}

// lookers is how many tokens of refused addresses are looked for at once: enough that
// their owners find a place, and no more than a database does beside its work.
const lookers = 8

func wire(w *app.Wiring) endpoint.Handler[Input, session.Grant] {
	r := refresh{user.Wire(w, sink.Wire(w)), session.Wire(w), throttle.Wire(w), w.Now(), make(chan struct{}, lookers)}
	return r.handle
}

// handle makes the next token of whatever salt the store returns: its own where
// it was the first, and that of the first where the answer got lost on its way
// and the same token comes again. So both get the same answer.
func (r refresh) handle(ctx context.Context, in Input) (session.Grant, error) {
	presented, err := session.Parse(in.RefreshToken)
	if err != nil {
		return session.Grant{}, fault.InvalidToken(err)
	}
	now := r.now().Truncate(time.Millisecond)
	rotation := presented.Rotation(now, r.grants.Life(), r.grants.MaxLife())
	if err := r.admit(ctx, in.Caller, rotation, now); err != nil {
		return session.Grant{}, err
	}
	u, rotated, err := r.users.Rotate(ctx, rotation, now)
	if errors.Is(err, user.ErrEnded) || errors.Is(err, user.ErrReused) {
		return session.Grant{}, fault.InvalidToken(err)
	}
	if err != nil {
		return session.Grant{}, err
	}
	return r.grants.Grant(u, rotated, presented.Next(rotated.Salt), now)
}

// admit counts a refresh for its address. Where that has used up its limit, perhaps by
// the made-up tokens of a neighbour, a token that was once issued counts for its
// session instead. To find out costs a read that a flood would have for each of its
// own, so few look at once.
func (r refresh) admit(ctx context.Context, c endpoint.Caller, rotation user.Rotation, now time.Time) error {
	refused := r.throttle.Admit(ctx, throttle.Refresh, c)
	if refused == nil || fault.From(refused).Kind() != fault.TooMany {
		return refused
	}
	select {
	case r.looking <- struct{}{}:
	default:
		return refused
	}
	defer func() { <-r.looking }()
	err := r.users.Issued(ctx, rotation, now)
	if errors.Is(err, user.ErrEnded) {
		return refused
	}
	if err != nil {
		return err
	}
	return r.throttle.AdmitSession(ctx, rotation.Session)
}
