// Package refresh is the function that exchanges a refresh token for a new access token and
// a new refresh token. It is one of the three functions that hold the signing key.
package refresh

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/sender"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/user"
)

// Function serves POST /api/users/refresh.
var Function = endpoint.Function{
	Name: "refresh",
	Needs: []endpoint.Need{
		accesstoken.Signing, session.Lifetime, sender.Publishing(event.SignedOut),
		user.Storing(endpoint.Find, endpoint.Update),
		ratelimit.Counting("RATE_LIMIT_REFRESH", "RATE_LIMIT_SESSION"),
	},
	Endpoints: []endpoint.Endpoint{endpoint.LimitInvalid(endpoint.Define(endpoint.Spec{
		Method:  http.MethodPost,
		Path:    "/api/users/refresh",
		Access:  endpoint.Public,
		Success: http.StatusOK,
		Summary: "Exchange a refresh token for a new access token and a new refresh token.",
		Refuses: []apierror.Kind{apierror.Unauthenticated},
	}, newHandler, refresh.handle), ratelimit.Addresses("refresh", ratelimit.Refresh))},
}

// Input is a refresh token.
type Input struct {
	endpoint.Client
	RefreshToken string `json:"refreshToken"`
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{{Name: "refreshToken", Opaque: true, About: "The newest refresh token of the session. " +
		"A used token gets the same answer again for 10 seconds, and for 2 minutes if its successor was never presented. " +
		"Later it counts as stolen, and the session ends."}}
}

type refresh struct {
	users      *user.Store
	grants     *session.Granter
	limiter    *ratelimit.Limiter
	perAddress ratelimit.Limit
	perSession ratelimit.Limit
	now        func() time.Time
	lookups    chan struct{} // a slot for each lookup of a session whose address is at its limit
}

// maxLookups bounds the lookups for addresses at their limit: enough for their users, and
// little work for the database.
const maxLookups = 8

func newHandler(cfg *config.Config) refresh {
	return refresh{user.FromConfig(cfg, sender.FromConfig(cfg)), session.FromConfig(cfg), ratelimit.FromConfig(cfg), ratelimit.Refresh(cfg), ratelimit.Session(cfg),
		cfg.Now(), make(chan struct{}, maxLookups)}
}

// handle derives the next refresh token from the salt that the store returns. The first
// request with a token stores its own salt. A client repeats a request after its answer was
// lost; the store then returns the salt of the first request, so both get the same answer.
func (r refresh) handle(ctx context.Context, in Input) (session.Grant, error) {
	rejected := r.limiter.Allow(ctx, r.perAddress, in.Client)
	presented, err := session.Parse(in.RefreshToken)
	if err != nil {
		return session.Grant{}, cmp.Or(rejected, error(apierror.InvalidToken(err)))
	}
	now := r.now().Truncate(time.Millisecond)
	rotation := presented.Rotation(now, r.grants.TTL(), r.grants.MaxTTL())
	if rejected != nil {
		if err := r.allowSession(ctx, rejected, rotation, now); err != nil {
			return session.Grant{}, err
		}
	}
	exchange, err := r.users.Rotate(ctx, rotation, now)
	if errors.Is(err, user.ErrSessionEnded) || errors.Is(err, user.ErrTokenReused) {
		return session.Grant{}, apierror.InvalidToken(err)
	}
	if err != nil {
		return session.Grant{}, err
	}
	return r.grants.Grant(exchange.Profile, exchange.Session, presented.Next(exchange.Salt), now)
}

// allowSession counts a refresh for its session, because its address is at its limit: an
// attacker at the same address may have sent forged tokens. A token that was never issued
// stays rejected. The lookup costs a read, so few run at the same time.
func (r refresh) allowSession(ctx context.Context, rejected error, rotation user.Rotation, now time.Time) error {
	select {
	case r.lookups <- struct{}{}:
	default:
		return rejected
	}
	defer func() { <-r.lookups }()
	err := r.users.Issued(ctx, rotation, now)
	if errors.Is(err, user.ErrSessionEnded) {
		return rejected
	}
	if err != nil {
		return err
	}
	return r.limiter.AllowSession(ctx, r.perSession, rotation.Session)
}
