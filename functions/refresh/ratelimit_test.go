package refresh_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

const home, elsewhere = "198.51.100.1", "198.51.100.2"

func by(token, from string) endpointtest.Call {
	c := exchange(token)
	c.From = from
	return c
}

// refused is the answer where a policy has no more to give, at first for 55 s: the
// bench's clock stands at 03:04:05.678.
func refused(policy string, after int) endpointtest.Case {
	name, _, _ := strings.Cut(policy, ";")
	return endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		Want: http.Header{"Retry-After": {fmt.Sprint(after)}, "Ratelimit-Policy": {policy}, "Ratelimit": {fmt.Sprintf("%s;r=0;t=%d", name, after)}}}
}

// useUp sends a token, well formed and nobody's, until its address has used up its
// limit. Of many at once the embedded database may not count all in time, on a busy
// machine; so the last come one by one.
func useUp(t *testing.T, b *endpointtest.Fixture, token string) {
	t.Helper()
	for range 24 {
		for _, a := range b.Race(t, 50, func(int) endpointtest.Call { return by(token, home) }) {
			endpointtest.Check(t, dead("", ""), a)
		}
	}
	for range 1200 {
		if a := b.Do(t, by(token, home)); a.Status == http.StatusTooManyRequests {
			return
		}
	}
	t.Fatal("there is no limit")
}

func TestRefresh_AddressLimit(t *testing.T) {
	endpointtest.EveryTransport(t, refresh.Endpoint, addressLimit)
}

func addressLimit(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "a password")
	over := b.Given(t, "bob@example.com", "a password")
	if err := b.Users.End(t.Context(), over.User.ID, b.Claims(t, over.Token).Session); err != nil {
		t.Fatal(err)
	}
	nobodys := flip(g.RefreshToken, 0)
	useUp(t, b, nobodys)
	full := refused(`"refresh";q=1200;w=60`, 55)
	for name, token := range map[string]string{
		"one that was never issued":        nobodys,
		"one of another session":           flip(g.RefreshToken, 70),
		"one of another user":              flip(g.RefreshToken, 100),
		"one of a session that is over":    over.RefreshToken,
		"one that was never issued, again": nobodys,
	} {
		t.Run(name, func(t *testing.T) { endpointtest.Check(t, full, b.Do(t, by(token, home))) })
	}
	g = b.Do(t, by(g.RefreshToken, elsewhere)).Grant(t) // and was not used up by those that were refused
	b.Clock.Advance(55 * time.Second)
	b.Do(t, by(g.RefreshToken, home)).Grant(t)
	b.Play(t, dead("in the next window", nobodys))
}

// Made-up tokens from the same address end no session.
func TestRefresh_SessionOfAnAddressAtItsLimit(t *testing.T) {
	b := endpointtest.New(t, refresh.Endpoint)
	g := b.Given(t, "ann@example.com", "a password")
	other := b.Given(t, "bob@example.com", "a password")
	useUp(t, b, flip(g.RefreshToken, 0))
	for range 30 {
		g = b.Do(t, by(g.RefreshToken, home)).Grant(t)
	}
	endpointtest.Check(t, refused(`"session";q=30;w=60`, 55), b.Do(t, by(g.RefreshToken, home)))
	used := other.RefreshToken
	for range 2 {
		other = b.Do(t, by(other.RefreshToken, home)).Grant(t)
	}
	b.Clock.Advance(11 * time.Second) // a used token that comes late is theft there too
	endpointtest.Check(t, dead("", ""), b.Do(t, by(used, home)))
	endpointtest.Check(t, refused(`"refresh";q=1200;w=60`, 44), b.Do(t, by(other.RefreshToken, home)))
}

// A flood of made-up tokens costs the database few reads at the same time.
func TestRefresh_LookupsAreBounded(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, refresh.Endpoint, "MONGODB_URI="+tap.URI)
	nobodys := flip(b.Given(t, "ann@example.com", "a password").RefreshToken, 0)
	useUp(t, b, nobodys)
	endpointtest.Check(t, refused(`"refresh";q=1200;w=60`, 55), b.Do(t, by(nobodys, home)))
	tap.Commands()
	tap.Stall("users")
	statuses := map[int]int{}
	for _, a := range b.Race(t, 40, func(int) endpointtest.Call { return by(nobodys, home) }) {
		statuses[a.Status]++
	}
	// the database does not reply, so each of the eight reads is tried twice
	if n := strings.Count(tap.Commands(), "find users"); n > 2*8 || n == 0 || statuses[http.StatusTooManyRequests] != 32 || statuses[http.StatusServiceUnavailable] != 8 {
		t.Errorf("%d reads, statuses %v", n, statuses)
	}
}

func TestRefresh_Commands(t *testing.T) {
	for setting, want := range map[string]string{
		"RATE_LIMIT=on":  "find users, update ratelimits, update users",
		"RATE_LIMIT=off": "find users, update users",
	} {
		tap := mongotest.NewTap(t)
		b := endpointtest.New(t, refresh.Endpoint, "MONGODB_URI="+tap.URI, setting)
		g := b.Given(t, "ann@example.com", "a password")
		tap.Commands()
		b.Do(t, exchange(g.RefreshToken)).Grant(t)
		if got := tap.Commands(); got != want {
			t.Errorf("%s: %s", setting, got)
		}
	}
}

// The limit guards the database, not a secret: if it cannot count, the request proceeds.
func TestRefresh_RateLimitUnavailable(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, refresh.Endpoint, "MONGODB_URI="+tap.URI)
	g := b.Given(t, "ann@example.com", "a password")
	tap.Stall("ratelimits")
	b.Do(t, exchange(g.RefreshToken)).Grant(t)
}

func TestRefresh_InvalidInputCounts(t *testing.T) {
	b := endpointtest.New(t, refresh.Endpoint, "RATE_LIMIT_REFRESH=3/1m")
	for i, call := range []endpointtest.Call{{Body: `{}`}, exchange("malformed"), {Body: `[]`}} {
		if a := b.Do(t, call); a.Status != http.StatusBadRequest && a.Status != http.StatusUnauthorized {
			t.Errorf("request %d: %d %s", i+1, a.Status, a.Body)
		}
	}
	for _, call := range []endpointtest.Call{{Body: `{}`}, exchange("malformed")} {
		endpointtest.Check(t, refused(`"refresh";q=3;w=60`, 55), b.Do(t, call))
	}
}
