package refresh_test

import (
	"net/http"
	"testing"
	"time"

	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/shared/endpointtest"
	"ticketing.com/auth/shared/mongotest"
)

// The limit is high, so most of its requests here carry tokens that are well formed
// and nobody's.
func TestTheAddressIsThrottled(t *testing.T) { endpointtest.EveryDoor(t, refresh.Endpoint, throttled) }

func throttled(t *testing.T, b *endpointtest.Bench) {
	g := b.Given(t, "ann@example.com", "a password")
	call := func(token, from string) endpointtest.Call {
		c := exchange(token)
		c.From = from
		return c
	}
	nobodys := flip(g.RefreshToken, 0)
	for range 12 {
		for _, a := range b.Race(t, 100, func(int) endpointtest.Call { return call(nobodys, "198.51.100.1") }) {
			endpointtest.Check(t, dead("", ""), a)
		}
	}
	// the bench's clock stands at 03:04:05.678, so the window ends in 55 s
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		Want: http.Header{"Retry-After": {"55"}, "Ratelimit-Policy": {`"refresh";q=1200;w=60`}, "Ratelimit": {`"refresh";r=0;t=55`}}},
		b.Do(t, call(g.RefreshToken, "198.51.100.1")))
	g = b.Do(t, call(g.RefreshToken, "198.51.100.2")).Grant(t) // and was not used up by the one that was refused
	b.Clock.Advance(55 * time.Second)
	b.Do(t, call(g.RefreshToken, "198.51.100.1")).Grant(t)
}

func TestWhatTheThrottleAsksOfTheDatabase(t *testing.T) {
	for setting, want := range map[string]string{
		"THROTTLE=on":  "findAndModify throttles, findAndModify users",
		"THROTTLE=off": "findAndModify users",
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

// It guards the database, not a secret: where it cannot count, nobody is logged out.
func TestWhereItCannotCountSessionsGoOn(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, refresh.Endpoint, "MONGODB_URI="+tap.URI)
	g := b.Given(t, "ann@example.com", "a password")
	tap.Stall("throttles")
	b.Do(t, exchange(g.RefreshToken)).Grant(t)
}
