package signin_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

const owner, stranger, another = "198.51.100.1", "198.51.100.2", "198.51.100.3"

func attempt(from, email, password string) endpointtest.Call {
	return endpointtest.Call{From: from, Body: `{"email":"` + email + `@example.com","password":"` + password + `"}`}
}

func fail(t *testing.T, b *endpointtest.Fixture, n int, from, email string) {
	t.Helper()
	for i := range n {
		endpointtest.Check(t, wrong("", ""), b.Do(t, attempt(from, email, fmt.Sprint("wrong ", i))))
	}
}

// answers fails the test unless a sign-in has a status.
func answers(t *testing.T, b *endpointtest.Fixture, when string, status int, c endpointtest.Call) {
	t.Helper()
	if a := b.Do(t, c); a.Status != status {
		t.Errorf("%s: %d %s", when, a.Status, a.Body)
	}
}

// limited is the response to a sign-in whose account is at its limit.
func limited(seconds int) endpointtest.Case {
	return endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		Want: http.Header{"Retry-After": {fmt.Sprint(seconds)}, "Ratelimit-Policy": {`"account";q=10;w=900`}, "Ratelimit": {fmt.Sprintf(`"account";r=0;t=%d`, seconds)}}}
}

func TestSignin_AccountLimit(t *testing.T) {
	endpointtest.EveryTransport(t, signin.Endpoint, func(t *testing.T, b *endpointtest.Fixture) {
		b.Given(t, "ann@example.com", secret)
		fail(t, b, 10, stranger, "ann")
		fail(t, b, 10, stranger, "unknown")
		right := attempt(another, "ann", secret)
		for range 3 {
			endpointtest.Check(t, limited(1), b.Do(t, right))
			endpointtest.Check(t, limited(1), b.Do(t, attempt(another, " ANN", "wrong")))
			endpointtest.Check(t, limited(1), b.Do(t, attempt(another, "unknown", "wrong")))
		}
		b.Clock.Advance(time.Second)
		fail(t, b, 1, stranger, "ann")
		endpointtest.Check(t, limited(2), b.Do(t, right))
		b.Clock.Advance(2 * time.Second)
		answers(t, b, "after the wait", http.StatusOK, right)
		answers(t, b, "a success forgives the failures", http.StatusOK, right)
	})
}

func TestSignin_NineFailures(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 9, stranger, "ann")
	fail(t, b, 9, stranger, "bob")
	answers(t, b, "the tenth attempt", http.StatusOK, attempt(another, "ann", secret))
	for i := range 20 { // a success does not count
		answers(t, b, "one more", http.StatusOK, attempt(fmt.Sprint("198.51.100.", 100+i), "ann", secret))
	}
}

// An attacker that never stops cannot lock out a client with a device token, by header or by
// cookie, from any address, whatever else was sent from there.
func TestSignin_DeviceToken(t *testing.T) {
	endpointtest.EveryTransport(t, signin.Endpoint, func(t *testing.T, b *endpointtest.Fixture) {
		b.Given(t, "ann@example.com", secret)
		b.Given(t, "bob@example.com", secret)
		first := b.Do(t, attempt(owner, "ann", secret))
		device := first.Header.Get("Device-Token")
		if err := b.Users.End(t.Context(), first.Grant(t).User.ID, b.Claims(t, first.Grant(t).Token).Session); err != nil {
			t.Fatal(err)
		}
		with := func(c endpointtest.Call, device string) endpointtest.Call {
			c.Device = device
			return c
		}
		for i := range 3 {
			fail(t, b, 10, stranger, "ann")
			endpointtest.Check(t, limited(1), b.Do(t, attempt(another, "ann", secret)))
			for _, other := range []string{"AAAAAAAAAAAAAAAAAAAAAA", device[:21], device + "A", strings.ToUpper(device), strings.Repeat("A", 5000), "-"} {
				endpointtest.Check(t, limited(1), b.Do(t, with(attempt(another, "ann", secret), other)))
			}
			for range 9 {
				endpointtest.Check(t, wrong("", ""), b.Do(t, with(attempt(owner, "ann", "wrong"), device)))
			}
			again := with(attempt(another, "ann", secret), device)
			if i == 1 {
				again = attempt(another, "ann", secret)
				again.Header = http.Header{"Cookie": {"a=b; __Host-device=" + device + "; c=d"}}
			}
			if a := b.Do(t, again); a.Status != http.StatusOK || a.Header.Get("Device-Token") != device {
				t.Errorf("the device: %d %s, token %q", a.Status, a.Body, a.Header.Get("Device-Token"))
			}
			b.Clock.Advance(49 * time.Hour)
		}
		for range 10 {
			endpointtest.Check(t, wrong("", ""), b.Do(t, with(attempt(owner, "ann", "wrong"), device)))
		}
		endpointtest.Check(t, limited(1), b.Do(t, with(attempt(owner, "ann", secret), device)))
		fail(t, b, 10, stranger, "bob")
		endpointtest.Check(t, limited(1), b.Do(t, with(attempt(owner, "bob", secret), device))) // of another account
	})
}

func TestSignin_DeviceTokensExpire(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	b.Given(t, "ann@example.com", secret)
	var devices []string
	for range 25 {
		b.Clock.Advance(time.Second)
		devices = append(devices, b.Do(t, attempt(owner, "ann", secret)).Header.Get("Device-Token"))
	}
	if n := len(account(t, b).Devices); n != 20 {
		t.Errorf("%d devices are stored, want 20", n)
	}
	for stored := range account(t, b).Devices {
		if len(stored) != 32 || strings.Contains(strings.Join(devices, " "), stored) {
			t.Errorf("%s is no digest", stored)
		}
	}
	by := func(i int) endpointtest.Call {
		c := attempt(another, "ann", secret)
		c.Device = devices[i]
		return c
	}
	fail(t, b, 10, stranger, "ann")
	endpointtest.Check(t, limited(1), b.Do(t, by(0)))
	answers(t, b, "the newest device", http.StatusOK, by(24))
	b.Clock.Advance(90 * 24 * time.Hour)
	fail(t, b, 10, stranger, "ann")
	endpointtest.Check(t, limited(1), b.Do(t, by(24)))
	b.Clock.Advance(time.Minute)
	if a := b.Do(t, by(24)); a.Status != http.StatusOK || a.Header.Get("Device-Token") == devices[24] {
		t.Errorf("after the wait: %d, token %q", a.Status, a.Header.Get("Device-Token"))
	}
	if n := len(account(t, b).Devices); n != 1 {
		t.Errorf("%d devices are stored, want 1", n)
	}
}

// Of 200 passwords, 40 at the same time, at most ten are checked, and the log has no error.
// On a busy machine the embedded database may not execute 40 commands within the time limit of
// a request; then some are answered 503 and not checked. Package ratelimit tests 200 at the
// same time.
func TestSignin_ParallelGuesses(t *testing.T) {
	for _, email := range []string{"ann", "nobody"} {
		b := endpointtest.New(t, signin.Endpoint, "HASH_CONCURRENCY=40")
		b.Given(t, "ann@example.com", secret)
		statuses := map[int]int{}
		for wave := range 5 {
			for _, a := range b.Race(t, 40, func(i int) endpointtest.Call {
				return attempt(fmt.Sprintf("198.51.%d.%d", wave, i), email, fmt.Sprint("wrong ", i))
			}) {
				statuses[a.Status]++
			}
		}
		checked := statuses[http.StatusUnauthorized]
		if checked > 10 || checked+statuses[http.StatusTooManyRequests]+statuses[http.StatusServiceUnavailable] != 200 {
			t.Errorf("200 passwords for %s: statuses %v", email, statuses)
		}
	}
}

// A rejected right password opens no session.
func TestSignin_ParallelRightPasswordsAtTheLimit(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "HASH_CONCURRENCY=100", "SESSION_LIMIT=1000")
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 10, stranger, "ann")
	for _, a := range b.Race(t, 100, func(i int) endpointtest.Call { return attempt(fmt.Sprint("192.0.2.", i), "ann", secret) }) {
		if a.Status != http.StatusTooManyRequests && a.Status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	if n := len(account(t, b).Sessions); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// No right password is answered as a wrong one, however many are in flight.
func TestSignin_ParallelRightPasswords(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "HASH_CONCURRENCY=40", "SESSION_LIMIT=1000")
	b.Given(t, "ann@example.com", secret)
	passed, unavailable := 0, 0
	for i, a := range b.Race(t, 40, func(int) endpointtest.Call { return attempt(owner, "ann", secret) }) {
		switch after := a.Header.Get("Retry-After"); {
		case a.Status == http.StatusOK:
			passed++
		case a.Status == http.StatusServiceUnavailable && after != "": // a busy machine
			unavailable++
		case a.Status == http.StatusTooManyRequests && after == "1":
		default:
			t.Errorf("sign-in %d: %d %v %s", i, a.Status, a.Header, a.Body)
		}
	}
	if passed == 0 && unavailable == 0 {
		t.Error("none of 40 has passed")
	}
	b.Clock.Advance(10 * time.Second)
	answers(t, b, "afterwards", http.StatusOK, attempt(owner, "ann", secret))
}

// The commands, the hashes and the response of a failed sign-in are the same for each reason,
// and so are those of a rejected one. They determine its time, which a test cannot compare.
func TestSignin_SameWorkForEachReason(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Endpoint, "MONGODB_URI="+tap.URI, "HASH_MEMORY_KIB=8192")
	if err := b.Users.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"ann", "limited"} {
		b.Given(t, email+"@example.com", secret)
	}
	fail(t, b, 1, stranger, "ann")
	fail(t, b, 1, stranger, "unknown")
	fail(t, b, 10, stranger, "limited")
	fail(t, b, 10, stranger, "unknown-limited")
	for _, group := range []struct {
		hashes   uint64
		commands string
		calls    map[string]endpointtest.Call
	}{
		{1, "find users, update ratelimits, update ratelimits", map[string]endpointtest.Call{
			"a wrong password": attempt(another, "ann", "wrong"),
			"an unknown email": attempt(another, "unknown", "wrong"),
		}},
		{0, "find ratelimits, find users, update ratelimits, update ratelimits", map[string]endpointtest.Call{
			"a limited account":                        attempt(another, "limited", "wrong"),
			"a limited account and the right password": attempt(another, "limited", secret),
			"an unknown email after ten attempts":      attempt(another, "unknown-limited", "wrong"),
		}},
	} {
		var first *endpointtest.Answer
		for name, call := range group.calls {
			tap.Commands()
			var got endpointtest.Answer
			n := hashes(8<<20, func() { got = b.Do(t, call) })
			if commands := tap.Commands(); n != group.hashes || commands != group.commands {
				t.Errorf("%s: %d hashes, %s; want %d, %s", name, n, commands, group.hashes, group.commands)
			}
			got.Header.Del("Date")
			if first == nil {
				first = &got
			}
			if !reflect.DeepEqual(got, *first) {
				t.Errorf("%s: got %v, want %v", name, got, *first)
			}
		}
	}
}

// A successful sign-in costs two commands beside those that read the account and open the
// session.
func TestSignin_Commands(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Endpoint, "MONGODB_URI="+tap.URI)
	b.Given(t, "ann@example.com", secret)
	const want = "find users, findAndModify users, update ratelimits, update ratelimits"
	device := ""
	for _, name := range []string{"the first", "with a device token", "with a device token, again"} {
		call := attempt(owner, "ann", secret)
		call.Device = device
		tap.Commands()
		a := b.Do(t, call)
		if got := tap.Commands(); got != want || a.Status != http.StatusOK {
			t.Errorf("%s: %d, %s; want %s", name, a.Status, got, want)
		}
		device = a.Header.Get("Device-Token")
	}
}

func TestSignin_AddressLimit(t *testing.T) {
	endpointtest.EveryTransport(t, signin.Endpoint, func(t *testing.T, b *endpointtest.Fixture) {
		b.Given(t, "ann@example.com", secret)
		for i := range 100 { // passwords for several accounts
			fail(t, b, 1, stranger, fmt.Sprint("u", i/5))
		}
		refused := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			// the clock of the test stands at 03:04:05.678, so the window ends in 55 s
			Want: http.Header{"Retry-After": {"55"}, "Ratelimit-Policy": {`"signin";q=1000;w=300`}, "Ratelimit": {`"signin";r=0;t=55`}}}
		for name, email := range map[string]string{"an account": "ann", "no account": "nobody"} {
			t.Run(name, func(t *testing.T) { endpointtest.Check(t, refused, b.Do(t, attempt(stranger, email, secret))) })
		}
		spoofed := attempt(stranger, "ann", secret)
		for name, header := range map[string][]string{
			"by another address":     {another},
			"by a list":              {another + ", " + owner},
			"by several headers":     {another, owner},
			"by text":                {"unknown, -, \"\""},
			"by an address of IPv6":  {"2001:db8::1"},
			"by very many addresses": {strings.Repeat(another+",", 1000)},
		} {
			spoofed.Header = http.Header{"X-Forwarded-For": header, "X-Real-Ip": {another}, "Forwarded": {"for=" + another}, "X-Client-Ip": {another}}
			t.Run("a client that forges "+name, func(t *testing.T) { endpointtest.Check(t, refused, b.Do(t, spoofed)) })
		}
		answers(t, b, "another address", http.StatusOK, attempt(another, "ann", secret))
		b.Clock.Advance(55 * time.Second)
		answers(t, b, "in the next window", http.StatusOK, attempt(stranger, "ann", secret))
	})
}

// A flood of rejected requests costs the database nothing.
func TestSignin_RejectionsCostNoCommands(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Endpoint, "MONGODB_URI="+tap.URI)
	for i := range 100 {
		fail(t, b, 1, stranger, fmt.Sprint("u", i/5))
	}
	answers(t, b, "the first too many", http.StatusTooManyRequests, attempt(stranger, "ann", secret))
	tap.Commands()
	for range 20 {
		answers(t, b, "another", http.StatusTooManyRequests, attempt(stranger, "ann", secret))
	}
	if got := tap.Commands(); got != "" {
		t.Errorf("asked was %s", got)
	}
}

func TestSignin_IPv6Network(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	for i := range 100 {
		fail(t, b, 1, fmt.Sprintf("2001:db8::%x", i), fmt.Sprint("u", i/5))
	}
	answers(t, b, "the same /64", http.StatusTooManyRequests, attempt("2001:db8::ffff:0:0:1", "ann", secret))
	answers(t, b, "another", http.StatusUnauthorized, attempt("2001:db8:0:1::1", "ann", secret))
}

func TestSignin_NoTrustedProxy(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "TRUSTED_PROXIES=0")
	for i := range 100 {
		fail(t, b, 1, fmt.Sprint("198.51.100.", i), fmt.Sprint("u", i/5))
	}
	answers(t, b, "another name for the same peer", http.StatusTooManyRequests, attempt("192.0.2.1", "ann", secret))
}

func TestSignin_RateLimitOff(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "RATE_LIMIT=off")
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 110, stranger, "ann")
	answers(t, b, "the right one", http.StatusOK, attempt(stranger, "ann", secret))
}

// The limit guards a secret: if it cannot count, no password is checked.
func TestSignin_RateLimitUnavailable(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Endpoint, "MONGODB_URI="+tap.URI)
	b.Given(t, "ann@example.com", secret)
	tap.Stall("ratelimits")
	began := time.Now()
	for name, password := range map[string]string{"the right password": secret, "a wrong one": "wrong"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			endpointtest.Check(t, endpointtest.Case{Status: http.StatusServiceUnavailable, Want: http.Header{"Retry-After": {"1"}},
				JSON: endpointtest.Errors("The service is unavailable. Try again shortly.")}, b.Do(t, attempt(owner, "ann", password)))
			if took := time.Since(began); took > 10*time.Second { // the budget of a request, doubled for a busy machine
				t.Errorf("it took %s", took)
			}
		})
	}
}

// A request with invalid input counts as one request.
func TestSignin_InvalidInputCounts(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "RATE_LIMIT_SIGNIN=10/5m")
	call := endpointtest.Call{From: stranger, Body: `{"email":"ann"}`}
	for range 10 {
		answers(t, b, "invalid input", http.StatusBadRequest, call)
	}
	answers(t, b, "one more", http.StatusTooManyRequests, call)
	answers(t, b, "valid input", http.StatusTooManyRequests, attempt(stranger, "ann", secret))
	answers(t, b, "another address", http.StatusUnauthorized, attempt(another, "ann", secret))
}
