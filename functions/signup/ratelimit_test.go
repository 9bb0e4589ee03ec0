package signup_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestSignup_AddressLimit(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signup.Function, func(t *testing.T, b *endpointtest.Fixture) {
		call := func(i int, from string) endpointtest.Call {
			return endpointtest.Call{From: from, Body: fmt.Sprintf(`{"email":"u%d@example.com","password":%q}`, i, secret)}
		}
		created := 0
		for _, a := range b.Race(t, 14, func(i int) endpointtest.Call { return call(i, "198.51.100.1") }) {
			if a.Status == http.StatusCreated {
				created++
				continue
			}
			// the clock of the test starts at 03:04:05.678, so the window ends in 355 s
			endpointtest.Check(t, endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
				Want: http.Header{"Retry-After": {"355"}, "Ratelimit-Policy": {`"signup";q=10;w=600`}, "Ratelimit": {`"signup";r=0;t=355`}}}, a)
		}
		if created != 10 {
			t.Errorf("got %d sign-ups of one address, want 10", created)
		}
		b.Do(t, call(100, "198.51.100.2")).Grant(t)
		b.Clock.Advance(355 * time.Second)
		b.Do(t, call(101, "198.51.100.1")).Grant(t)
	}, "HASH_CONCURRENCY=14", "RATE_LIMIT_SIGNUP=10/10m")
}

// A request with a rejected password counts. At the limit, the policy checks no password.
func TestSignup_InvalidInputCounts(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signup.Function, "RATE_LIMIT_SIGNUP=5/10m")
	for _, body := range []string{strings.Replace(good, secret, "password", 1), `{}`, `[]`, "", strings.Replace(good, secret, "password", 1)} {
		if a := b.Do(t, endpointtest.Call{Body: body}); a.Status != http.StatusBadRequest && a.Status != http.StatusUnsupportedMediaType {
			t.Errorf("%s: got status %d, want 400 or 415", body, a.Status)
		}
	}
	for _, body := range []string{good, strings.Replace(good, secret, "password", 1), `{}`} {
		endpointtest.Check(t, endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			Want: http.Header{"Retry-After": {"355"}, "Ratelimit-Policy": {`"signup";q=5;w=600`}, "Ratelimit": {`"signup";r=0;t=355`}}}, b.Do(t, endpointtest.Call{Body: body}))
	}
}

func TestSignup_DeviceToken(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signup.Function)
	call := endpointtest.Call{Body: good, Header: http.Header{"Idempotency-Key": {"once"}}}
	first := b.Do(t, call)
	retry := b.Do(t, call)
	call.Device = retry.Header.Get("Device-Token")
	again := b.Do(t, call)
	for i, a := range []endpointtest.Answer{first, retry, again} {
		if a.Status != http.StatusCreated || len(a.Header.Get("Device-Token")) != 22 {
			t.Errorf("sign-up %d: got %d %v, want 201 and a Device-Token of 22 characters", i+1, a.Status, a.Header)
		}
	}
	if again.Header.Get("Device-Token") != call.Device || first.Header.Get("Device-Token") == call.Device {
		t.Errorf("got the tokens %s, %s, %s, want another one for the retry only", first.Header.Get("Device-Token"), call.Device, again.Header.Get("Device-Token"))
	}
	if a, err := b.Users.Account(t.Context(), "ann@example.com"); err != nil || len(a.Devices) != 2 {
		t.Errorf("got the devices %v and %v, want 2", a.Devices, err)
	}
}

// The password of the account distinguishes a retry from another request. A client that knows
// the key could guess passwords this way, so the limits of a sign-in apply.
func TestSignup_RepeatedKeyHasLimitsOfSignin(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signup.Function, func(t *testing.T, b *endpointtest.Fixture) {
		const ownerAddress, attackerAddress, otherAddress = "198.51.100.1", "198.51.100.2", "198.51.100.3"
		call := func(from, device, body string) endpointtest.Call {
			return endpointtest.Call{From: from, Device: device, Body: body, Header: http.Header{"Idempotency-Key": {"order-1"}}}
		}
		wrong := endpointtest.Case{Status: http.StatusUnprocessableEntity, JSON: endpointtest.Errors("This Idempotency-Key, or this event, was used with another request.")}
		limited := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			Want: http.Header{"Retry-After": {"1"}, "Ratelimit-Policy": {`"account";q=10;w=900`}, "Ratelimit": {`"account";r=0;t=1`}}}
		device := b.Do(t, call(ownerAddress, "", good)).Header.Get("Device-Token")
		b.Do(t, call(otherAddress, "", good)).Grant(t)
		for i := range 10 {
			endpointtest.Check(t, wrong, b.Do(t, call(attackerAddress, "", strings.Replace(good, "staple", fmt.Sprint("stable ", i), 1))))
		}
		endpointtest.Check(t, limited, b.Do(t, call(attackerAddress, "", strings.Replace(good, "staple", "table", 1))))
		endpointtest.Check(t, limited, b.Do(t, call(attackerAddress, "", good)))
		b.Do(t, call(otherAddress, device, good)).Grant(t)
		b.Clock.Advance(time.Second)
		b.Do(t, call(attackerAddress, "", good)).Grant(t)
	})
}

func TestSignup_Commands(t *testing.T) {
	t.Parallel()
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signup.Function, "MONGODB_URI="+tap.URI)
	for _, want := range []string{
		"insert users, update ratelimits",
		"find users, findAndModify users, insert users, update ratelimits, update ratelimits, update ratelimits",
	} {
		tap.Commands()
		b.Do(t, keyed("k", good)).Grant(t)
		if got := tap.Commands(); got != want {
			t.Errorf("got the commands %s\nwant %s", got, want)
		}
	}
}

// The limit guards capacity, not a secret: if it cannot count, the request proceeds.
func TestSignup_RateLimitUnavailable(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the database")
	}
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signup.Function, "MONGODB_URI="+tap.URI)
	tap.Stall("ratelimits")
	b.Do(t, endpointtest.Call{Body: good}).Grant(t)
}
