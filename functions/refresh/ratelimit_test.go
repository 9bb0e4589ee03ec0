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

const address, otherAddress = "198.51.100.1", "198.51.100.2"

func exchangeFrom(from, token string) endpointtest.Call {
	c := exchange(token)
	c.From = from
	return c
}

// limited returns the response to a request over the limit of a policy. The clock of the test
// starts at 03:04:05.678, so its first window ends in 55 s.
func limited(policy string, after int) endpointtest.Case {
	name, _, _ := strings.Cut(policy, ";")
	return endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		Want: http.Header{"Retry-After": {fmt.Sprint(after)}, "Ratelimit-Policy": {policy}, "Ratelimit": {fmt.Sprintf("%s;r=0;t=%d", name, after)}}}
}

// lowLimits are a hundredth and a sixth of the default limits.
var lowLimits = []string{"RATE_LIMIT_REFRESH=12/1m", "RATE_LIMIT_SESSION=5/1m"}

// reachLimit sends a token that was never issued until its address is at its limit.
func reachLimit(t *testing.T, b *endpointtest.Fixture, token string) {
	t.Helper()
	for range 12 {
		endpointtest.Check(t, invalid("", ""), b.Do(t, exchangeFrom(address, token)))
	}
}

func TestRefresh_AddressLimit(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, refresh.Function, addressLimit, lowLimits...)
}

func addressLimit(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "a password")
	ended := b.Given(t, "bob@example.com", "a password")
	if err := b.Users.End(t.Context(), ended.User.ID, b.Claims(t, ended.Token).Session); err != nil {
		t.Fatal(err)
	}
	unissued := flip(g.RefreshToken, 0)
	reachLimit(t, b, unissued)
	full := limited(`"refresh";q=12;w=60`, 55)
	for name, token := range map[string]string{
		"a token that was never issued":        unissued,
		"a token of another session":           flip(g.RefreshToken, 70),
		"a token of another user":              flip(g.RefreshToken, 100),
		"a token of an ended session":          ended.RefreshToken,
		"a token that was never issued, again": unissued,
	} {
		t.Run(name, func(t *testing.T) { endpointtest.Check(t, full, b.Do(t, exchangeFrom(address, token))) })
	}
	g = b.Do(t, exchangeFrom(otherAddress, g.RefreshToken)).Grant(t) // the rejected requests did not use up the token
	b.Clock.Advance(55 * time.Second)
	b.Do(t, exchangeFrom(address, g.RefreshToken)).Grant(t)
	b.Play(t, invalid("in the next window", unissued))
}

// Forged tokens from the same address end no session.
func TestRefresh_SessionOfAnAddressAtItsLimit(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function, lowLimits...)
	g := b.Given(t, "ann@example.com", "a password")
	other := b.Given(t, "bob@example.com", "a password")
	reachLimit(t, b, flip(g.RefreshToken, 0))
	for range 5 {
		g = b.Do(t, exchangeFrom(address, g.RefreshToken)).Grant(t)
	}
	endpointtest.Check(t, limited(`"session";q=5;w=60`, 55), b.Do(t, exchangeFrom(address, g.RefreshToken)))
	used := other.RefreshToken
	for range 2 {
		other = b.Do(t, exchangeFrom(address, other.RefreshToken)).Grant(t)
	}
	b.Clock.Advance(11 * time.Second) // at the limit too, a used token that arrives late is theft
	endpointtest.Check(t, invalid("", ""), b.Do(t, exchangeFrom(address, used)))
	endpointtest.Check(t, limited(`"refresh";q=12;w=60`, 44), b.Do(t, exchangeFrom(address, other.RefreshToken)))
}

// Many forged tokens cost the database few reads at the same time.
func TestRefresh_LookupsAreBounded(t *testing.T) {
	t.Parallel()
	tap := mongotest.NewTap(t)
	slow := endpointtest.WithBudget(refresh.Function, 2*time.Minute) // no lookup ends before Release
	b := endpointtest.New(t, slow, append(lowLimits, "MONGODB_URI="+tap.URI)...)
	unissued := flip(b.Given(t, "ann@example.com", "a password").RefreshToken, 0)
	reachLimit(t, b, unissued)
	endpointtest.Check(t, limited(`"refresh";q=12;w=60`, 55), b.Do(t, exchangeFrom(address, unissued)))
	tap.Commands()
	tap.Stall("users")
	answers := make(chan endpointtest.Answer)
	for range 40 {
		go func() { answers <- b.Do(t, exchangeFrom(address, unissued)) }()
	}
	statuses := map[int]int{}
	for i := range 40 {
		if i == 32 { // the other eight wait for the database
			tap.Release()
		}
		statuses[(<-answers).Status]++
	}
	if n := strings.Count(tap.Commands(), "find users"); n != 8 || statuses[http.StatusTooManyRequests] != 40 {
		t.Errorf("got %d reads and the statuses %v, want 8 reads and 40 times 429", n, statuses)
	}
}

func TestRefresh_Commands(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"RATE_LIMIT=on":  "find users, update ratelimits, update users",
		"RATE_LIMIT=off": "find users, update users",
	} {
		tap := mongotest.NewTap(t)
		b := endpointtest.New(t, refresh.Function, "MONGODB_URI="+tap.URI, setting)
		g := b.Given(t, "ann@example.com", "a password")
		tap.Commands()
		b.Do(t, exchange(g.RefreshToken)).Grant(t)
		if got := tap.Commands(); got != want {
			t.Errorf("%s: got %s, want %s", setting, got, want)
		}
	}
}

// The limit guards the database, not a secret: if it cannot count, the request proceeds.
func TestRefresh_RateLimitUnavailable(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the database")
	}
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, refresh.Function, "MONGODB_URI="+tap.URI)
	g := b.Given(t, "ann@example.com", "a password")
	tap.Stall("ratelimits")
	b.Do(t, exchange(g.RefreshToken)).Grant(t)
}

func TestRefresh_InvalidInputCounts(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, refresh.Function, "RATE_LIMIT_REFRESH=3/1m")
	for i, call := range []endpointtest.Call{{Body: `{}`}, exchange("malformed"), {Body: `[]`}} {
		if a := b.Do(t, call); a.Status != http.StatusBadRequest && a.Status != http.StatusUnauthorized {
			t.Errorf("request %d: got %d %s, want status 400 or 401", i+1, a.Status, a.Body)
		}
	}
	for _, call := range []endpointtest.Call{{Body: `{}`}, exchange("malformed")} {
		endpointtest.Check(t, limited(`"refresh";q=3;w=60`, 55), b.Do(t, call))
	}
}
