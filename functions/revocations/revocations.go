// Package revocations is the function that publishes the sessions that ended before their access
// tokens expire. Services that verify tokens by themselves poll it while they serve requests, so
// they see a sign-out within seconds.
package revocations

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/bearer/revocation"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/reference"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/user"
)

// Function serves GET /api/users/revocations.
var Function = endpoint.Function{
	Name:  "revocations",
	Needs: []endpoint.Need{{Settings: []string{"ACCESS_TOKEN_TTL"}}, user.Storing(endpoint.Find)},
	Endpoints: []endpoint.Endpoint{endpoint.WithOutput[Output](endpoint.Define(endpoint.Spec{
		Method:   http.MethodGet,
		Path:     "/api/users/revocations",
		Access:   endpoint.Public,
		Success:  http.StatusOK,
		Summary:  "List the sessions that ended within the life of an access token.",
		MaxAge:   2 * time.Second, // a sign-out is visible within this time and the poll interval of a service, 5 s
		Internal: true,
	}, newHandler, revocations.handle))},
}

// Input is the cursor of the last answer.
type Input struct {
	Since *int64 `query:"since" min:"0" max:"253402300799999"` // milliseconds since 1970
}

// Members implements reference.Described.
func (Input) Members() []reference.Member {
	return []reference.Member{{Name: "since", Opaque: true, About: "The cursor of the last answer. If absent, the answer has all entries."}}
}

// Output describes revocation.Answer, for the API reference.
type Output struct {
	Cursor   string        `json:"cursor"`
	Window   int           `json:"window"`
	Sessions []string      `json:"sessions,omitempty"`
	Filter   *Filter       `json:"filter,omitzero"`
	Users    []RevokedUser `json:"users"`
}

// RevokedUser describes revocation.User, for the API reference.
type RevokedUser struct {
	ID     string `json:"id"`
	Before int64  `json:"before"`
}

// Filter describes revocation.Filter, for the API reference.
type Filter struct {
	Hashes int    `json:"hashes"`
	Bits   string `json:"bits"`
}

// Members implements reference.Described.
func (Output) Members() []reference.Member {
	return []reference.Member{
		{Name: "cursor", Opaque: true, About: "The next request sends it as since, and receives the entries since then. Entries of the last 40 seconds repeat."},
		{Name: "window", About: "The number of seconds for which a service must remember an entry."},
		{Name: "sessions", Opaque: true, About: "The ids of ended sessions, as in the claim sid. Absent if there is a filter."},
		{Name: "filter", About: "A Bloom filter of ended sessions, in place of a list of more than 20,000."},
		{Name: "users", About: "Users with more ended sessions than the system records. Their older tokens are revoked; a valid session must refresh."},
	}
}

// Members implements reference.Described.
func (RevokedUser) Members() []reference.Member {
	return []reference.Member{
		{Name: "id", Opaque: true},
		{Name: "before", Format: "unix-time", About: "In seconds since 1970. Tokens of the user with a smaller iat are revoked."},
	}
}

// Members implements reference.Described.
func (Filter) Members() []reference.Member {
	return []reference.Member{
		{Name: "hashes", Minimum: 1, About: "The number of positions of an id."},
		{Name: "bits", Opaque: true, About: "The bits, in base64url. With m bits, the positions of an id are ((h1 + i*h2) mod 2^64) mod m for i from 0: " +
			"h1 and h2 are the first and the second 8 bytes of its SHA-256 digest, big-endian, with the lowest bit of h2 set."},
	}
}

const (
	// maxListed bounds the listed sessions, about 35 bytes each. Over it the answer has a filter.
	maxListed = 20_000
	// falsePositives is the share of valid sessions that a filter contains. A service
	// introspects their tokens.
	falsePositives = 0.001
)

type revocations struct {
	users  *user.Store
	window time.Duration
	now    func() time.Time

	telemetry *telemetry.Telemetry
}

func newHandler(cfg *config.Config) revocations {
	// The clocks of the issuer and of a verifier may both be wrong by token.Leeway.
	return revocations{user.FromConfig(cfg, nil), accesstoken.TTL(cfg) + 2*token.Leeway, cfg.Now(), telemetry.FromConfig(cfg)}
}

func (r revocations) handle(ctx context.Context, in Input) (revocation.Answer, error) {
	since := r.now().Add(-r.window)
	if in.Since != nil {
		if at := time.UnixMilli(*in.Since); at.After(since) {
			since = at
		}
	}
	ended, next, err := r.users.Ended(ctx, since)
	if err != nil {
		return revocation.Answer{}, err
	}
	a := revocation.Answer{
		Cursor: strconv.FormatInt(next.UnixMilli(), 10), Window: int64(r.window.Seconds()),
		Sessions: []string{}, Users: []revocation.User{},
	}
	for _, e := range ended {
		a.Sessions = append(a.Sessions, e.Sessions...)
		if !e.Before.IsZero() {
			// The clock of the issuer may be ahead, and iat has whole seconds.
			a.Users = append(a.Users, revocation.User{ID: e.User, Before: e.Before.Add(token.Leeway).Unix() + 1})
		}
	}
	if in.Since == nil {
		r.telemetry.Observe(ctx, telemetry.RevocationsSize, float64(len(a.Sessions)+len(a.Users)), "")
	} else {
		r.telemetry.Observe(ctx, telemetry.RevocationsAge, r.now().Sub(since).Seconds(), "")
	}
	if len(a.Sessions) > maxListed {
		a.Filter = revocation.NewFilter(len(a.Sessions), falsePositives)
		for _, sid := range a.Sessions {
			a.Filter.Add(sid)
		}
		a.Sessions = nil
	}
	return a, nil
}
