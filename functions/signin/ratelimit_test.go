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

const ownerAddress, attackerAddress, otherAddress = "198.51.100.1", "198.51.100.2", "198.51.100.3"

func attempt(from, email, password string) endpointtest.Call {
	return endpointtest.Call{From: from, Body: `{"email":"` + email + `@example.com","password":"` + password + `"}`}
}

func fail(t *testing.T, b *endpointtest.Fixture, n int, from, email string) {
	t.Helper()
	for i := range n {
		endpointtest.Check(t, wrong("", ""), b.Do(t, attempt(from, email, fmt.Sprint("wrong ", i))))
	}
}

// expectStatus reports an error unless the response to a sign-in has a status.
func expectStatus(t *testing.T, b *endpointtest.Fixture, when string, want int, c endpointtest.Call) {
	t.Helper()
	if a := b.Do(t, c); a.Status != want {
		t.Errorf("%s: got %d %s, want %d", when, a.Status, a.Body, want)
	}
}

// limited is the response to a sign-in whose account is at its limit.
func limited(seconds int) endpointtest.Case {
	return endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		Want: http.Header{"Retry-After": {fmt.Sprint(seconds)}, "Ratelimit-Policy": {`"account";q=10;w=900`}, "Ratelimit": {fmt.Sprintf(`"account";r=0;t=%d`, seconds)}}}
}

func TestSignin_AccountLimit(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signin.Function, func(t *testing.T, b *endpointtest.Fixture) {
		b.Given(t, "ann@example.com", secret)
		fail(t, b, 10, attackerAddress, "ann")
		fail(t, b, 10, attackerAddress, "unknown")
		right := attempt(otherAddress, "ann", secret)
		for range 3 {
			endpointtest.Check(t, limited(1), b.Do(t, right))
			endpointtest.Check(t, limited(1), b.Do(t, attempt(otherAddress, " ANN", "wrong")))
			endpointtest.Check(t, limited(1), b.Do(t, attempt(otherAddress, "unknown", "wrong")))
		}
		b.Clock.Advance(time.Second)
		fail(t, b, 1, attackerAddress, "ann")
		endpointtest.Check(t, limited(2), b.Do(t, right))
		b.Clock.Advance(2 * time.Second)
		expectStatus(t, b, "after the wait", http.StatusOK, right)
		expectStatus(t, b, "a success resets the failures", http.StatusOK, right)
	})
}

func TestSignin_NineFailures(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function)
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 9, attackerAddress, "ann")
	fail(t, b, 9, attackerAddress, "bob")
	expectStatus(t, b, "the tenth attempt", http.StatusOK, attempt(otherAddress, "ann", secret))
	for i := range 20 { // successes do not count
		expectStatus(t, b, "one more", http.StatusOK, attempt(fmt.Sprint("198.51.100.", 100+i), "ann", secret))
	}
}

// An attacker cannot lock out a client that has a device token. The client sends the token in
// a header or in a cookie, from any address, also from one with failed attempts.
func TestSignin_DeviceToken(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signin.Function, func(t *testing.T, b *endpointtest.Fixture) {
		b.Given(t, "ann@example.com", secret)
		b.Given(t, "bob@example.com", secret)
		first := b.Do(t, attempt(ownerAddress, "ann", secret))
		device := first.Header.Get("Device-Token")
		if err := b.Users.End(t.Context(), first.Grant(t).User.ID, b.Claims(t, first.Grant(t).Token).Session); err != nil {
			t.Fatal(err)
		}
		with := func(c endpointtest.Call, device string) endpointtest.Call {
			c.Device = device
			return c
		}
		byCookie := attempt(otherAddress, "ann", secret)
		byCookie.Header = http.Header{"Cookie": {"a=b; __Host-device=" + device + "; c=d"}}
		for _, again := range []endpointtest.Call{with(attempt(otherAddress, "ann", secret), device), byCookie} {
			fail(t, b, 10, attackerAddress, "ann")
			endpointtest.Check(t, limited(1), b.Do(t, attempt(otherAddress, "ann", secret)))
			for _, other := range []string{"AAAAAAAAAAAAAAAAAAAAAA", device[:21], device + "A", strings.ToUpper(device), strings.Repeat("A", 5000), "-"} {
				endpointtest.Check(t, limited(1), b.Do(t, with(attempt(otherAddress, "ann", secret), other)))
			}
			for range 9 {
				endpointtest.Check(t, wrong("", ""), b.Do(t, with(attempt(ownerAddress, "ann", "wrong"), device)))
			}
			if a := b.Do(t, again); a.Status != http.StatusOK || a.Header.Get("Device-Token") != device {
				t.Errorf("sign-in with the device token: got %d %s, token %q; want 200 and the same token", a.Status, a.Body, a.Header.Get("Device-Token"))
			}
			b.Clock.Advance(49 * time.Hour)
		}
		for range 10 {
			endpointtest.Check(t, wrong("", ""), b.Do(t, with(attempt(ownerAddress, "ann", "wrong"), device)))
		}
		endpointtest.Check(t, limited(1), b.Do(t, with(attempt(ownerAddress, "ann", secret), device)))
		fail(t, b, 10, attackerAddress, "bob")
		endpointtest.Check(t, limited(1), b.Do(t, with(attempt(ownerAddress, "bob", secret), device))) // the device token of another account
	})
}

func TestSignin_DeviceTokensExpire(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("signs in 70 times")
	}
	b := endpointtest.New(t, signin.Function)
	b.Given(t, "ann@example.com", secret)
	var devices []string
	for range 25 {
		b.Clock.Advance(time.Second)
		devices = append(devices, b.Do(t, attempt(ownerAddress, "ann", secret)).Header.Get("Device-Token"))
	}
	if n := len(account(t, b).Devices); n != 20 {
		t.Errorf("%d devices are stored, want 20", n)
	}
	for stored := range account(t, b).Devices {
		if len(stored) != 32 || strings.Contains(strings.Join(devices, " "), stored) {
			t.Errorf("got the stored device %s, want a digest of 32 characters", stored)
		}
	}
	by := func(i int) endpointtest.Call {
		c := attempt(otherAddress, "ann", secret)
		c.Device = devices[i]
		return c
	}
	fail(t, b, 10, attackerAddress, "ann")
	endpointtest.Check(t, limited(1), b.Do(t, by(0)))
	expectStatus(t, b, "the newest device", http.StatusOK, by(24))
	b.Clock.Advance(90 * 24 * time.Hour)
	fail(t, b, 10, attackerAddress, "ann")
	endpointtest.Check(t, limited(1), b.Do(t, by(24)))
	b.Clock.Advance(time.Minute)
	if a := b.Do(t, by(24)); a.Status != http.StatusOK || a.Header.Get("Device-Token") != devices[24] {
		t.Errorf("after the wait: got %d and the token %q, want 200 and the same token", a.Status, a.Header.Get("Device-Token"))
	}
	if n := len(account(t, b).Devices); n != 1 {
		t.Errorf("%d devices are stored, want 1", n)
	}
	fail(t, b, 10, attackerAddress, "ann")
	expectStatus(t, b, "the same device, known again", http.StatusOK, by(24))
}

// Two accounts share a browser and its cookie. A sign-in to one must not make the other forget
// the browser.
func TestSignin_AccountsShareDeviceToken(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function)
	device := ""
	for _, email := range []string{"ann", "bob"} {
		b.Given(t, email+"@example.com", secret)
		call := attempt(ownerAddress, email, secret)
		call.Device = device
		device = b.Do(t, call).Header.Get("Device-Token")
	}
	for _, email := range []string{"ann", "bob"} {
		fail(t, b, 10, attackerAddress, email)
		call := attempt(ownerAddress, email, secret)
		call.Device = device
		expectStatus(t, b, email, http.StatusOK, call)
	}
}

// Of 80 passwords, 40 at the same time, at most ten are checked. On a busy machine the embedded
// database may not execute 40 commands within the time limit of a request. The server then
// answers some requests with 503 and does not check their passwords. Package ratelimit tests
// 200 requests at the same time.
func TestSignin_ParallelGuesses(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("signs in many times at the same time")
	}
	for _, email := range []string{"ann", "unknown"} {
		guess := func() (checked int) {
			b := endpointtest.New(t, signin.Function, "HASH_CONCURRENCY=40")
			b.Given(t, "ann@example.com", secret)
			statuses := map[int]int{}
			for wave := range 2 {
				for _, a := range b.Race(t, 40, func(i int) endpointtest.Call {
					return attempt(fmt.Sprintf("198.51.%d.%d", wave, i), email, fmt.Sprint("wrong ", i))
				}) {
					statuses[a.Status]++
				}
			}
			checked = statuses[http.StatusUnauthorized]
			if checked > 10 || checked+statuses[http.StatusTooManyRequests]+statuses[http.StatusServiceUnavailable] != 80 {
				t.Errorf("80 passwords for %s: got the statuses %v, want at most ten 401 and otherwise 429 or 503", email, statuses)
			}
			return checked
		}
		if !repeat(func() bool { return guess() > 0 }) {
			t.Errorf("no password for %s was checked, want at least one", email)
		}
	}
}

// repeat calls race until it returns true, but at most five times. On a busy machine the server
// may answer all requests of a race with 503, and the race then tests nothing.
func repeat(race func() bool) bool {
	for range 5 {
		if race() {
			return true
		}
	}
	return false
}

// At the limit, the right password opens no session.
func TestSignin_ParallelRightPasswordsAtTheLimit(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("signs in many times at the same time")
	}
	b := endpointtest.New(t, signin.Function, "HASH_CONCURRENCY=40", "SESSION_LIMIT=1000")
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 10, attackerAddress, "ann")
	limited := 0
	if !repeat(func() bool {
		for _, a := range b.Race(t, 40, func(i int) endpointtest.Call { return attempt(fmt.Sprint("192.0.2.", i), "ann", secret) }) {
			switch a.Status {
			case http.StatusTooManyRequests:
				limited++
			case http.StatusServiceUnavailable: // a busy machine
			default:
				t.Errorf("got %d %s, want 429 or 503", a.Status, a.Body)
			}
		}
		return limited > 0
	}) {
		t.Error("got only 503, want at least one 429")
	}
	if n := len(account(t, b).Sessions); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// Parallel sign-ins with the right password never get the response of a wrong password.
func TestSignin_ParallelRightPasswords(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("signs in many times at the same time")
	}
	var b *endpointtest.Fixture
	if !repeat(func() bool {
		b = endpointtest.New(t, signin.Function, "HASH_CONCURRENCY=20", "SESSION_LIMIT=1000")
		b.Given(t, "ann@example.com", secret)
		passed := 0
		for i, a := range b.Race(t, 20, func(int) endpointtest.Call { return attempt(ownerAddress, "ann", secret) }) {
			switch after := a.Header.Get("Retry-After"); {
			case a.Status == http.StatusOK:
				passed++
			case a.Status == http.StatusServiceUnavailable && after != "": // a busy machine
			case a.Status == http.StatusTooManyRequests && after == "1":
			default:
				t.Errorf("sign-in %d: %d %v %s", i, a.Status, a.Header, a.Body)
			}
		}
		b.Clock.Advance(10 * time.Second) // attempts that could not be settled are no longer in flight
		return passed > 0
	}) {
		t.Error("got no success, want at least one")
	}
	expectStatus(t, b, "afterwards", http.StatusOK, attempt(ownerAddress, "ann", secret))
}

// A failed sign-in takes the same commands, hashes and response for each reason, and so does a
// rejected one. They determine the response time; a test cannot compare times reliably.
func TestSignin_SameWorkForEachReason(t *testing.T) {
	// Not parallel: countHashes counts the allocations of the process.
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Function, "MONGODB_URI="+tap.URI, "HASH_MEMORY_KIB=8192")
	if err := b.Users.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"ann", "limited"} {
		b.Given(t, email+"@example.com", secret)
	}
	fail(t, b, 1, attackerAddress, "ann")
	fail(t, b, 1, attackerAddress, "unknown")
	fail(t, b, 10, attackerAddress, "limited")
	fail(t, b, 10, attackerAddress, "unknown-limited")
	for _, group := range []struct {
		hashes   uint64
		commands string
		calls    map[string]endpointtest.Call
	}{
		{1, "find users, update ratelimits, update ratelimits", map[string]endpointtest.Call{
			"a wrong password": attempt(otherAddress, "ann", "wrong"),
			"an unknown email": attempt(otherAddress, "unknown", "wrong"),
		}},
		{0, "find ratelimits, find users, update ratelimits, update ratelimits", map[string]endpointtest.Call{
			"a limited account":                        attempt(otherAddress, "limited", "wrong"),
			"a limited account and the right password": attempt(otherAddress, "limited", secret),
			"an unknown email after ten attempts":      attempt(otherAddress, "unknown-limited", "wrong"),
		}},
	} {
		var first *endpointtest.Answer
		for name, call := range group.calls {
			tap.Commands()
			var got endpointtest.Answer
			n := countHashes(8<<20, func() { got = b.Do(t, call) })
			if commands := tap.Commands(); n != group.hashes || commands != group.commands {
				t.Errorf("%s: got %d hashes and the commands %s; want %d and %s", name, n, commands, group.hashes, group.commands)
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

// A successful sign-in costs two commands besides those that read the account and open the
// session.
func TestSignin_Commands(t *testing.T) {
	t.Parallel()
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Function, "MONGODB_URI="+tap.URI)
	b.Given(t, "ann@example.com", secret)
	const want = "find users, findAndModify users, update ratelimits, update ratelimits"
	device := ""
	for _, name := range []string{"the first", "with a device token", "with a device token, again"} {
		call := attempt(ownerAddress, "ann", secret)
		call.Device = device
		tap.Commands()
		a := b.Do(t, call)
		if got := tap.Commands(); got != want || a.Status != http.StatusOK {
			t.Errorf("%s: got %d and the commands %s; want 200 and %s", name, a.Status, got, want)
		}
		device = a.Header.Get("Device-Token")
	}
}

// tenFailures sets the limit of an address to ten failed sign-ins, a tenth of the default.
const tenFailures = "RATE_LIMIT_SIGNIN=100/5m"

func TestSignin_AddressLimit(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signin.Function, func(t *testing.T, b *endpointtest.Fixture) {
		b.Given(t, "ann@example.com", secret)
		for i := range 10 { // passwords for several accounts
			fail(t, b, 1, attackerAddress, fmt.Sprint("u", i/5))
		}
		rejected := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			// the clock of the test starts at 03:04:05.678, so the window ends in 55 s
			Want: http.Header{"Retry-After": {"55"}, "Ratelimit-Policy": {`"signin";q=100;w=300`}, "Ratelimit": {`"signin";r=0;t=55`}}}
		for name, email := range map[string]string{"an account": "ann", "no account": "unknown"} {
			t.Run(name, func(t *testing.T) { endpointtest.Check(t, rejected, b.Do(t, attempt(attackerAddress, email, secret))) })
		}
		spoofed := attempt(attackerAddress, "ann", secret)
		for name, header := range map[string][]string{
			"by another address":     {otherAddress},
			"by a list":              {otherAddress + ", " + ownerAddress},
			"by several headers":     {otherAddress, ownerAddress},
			"by text":                {"unknown, -, \"\""},
			"by an address of IPv6":  {"2001:db8::1"},
			"by very many addresses": {strings.Repeat(otherAddress+",", 1000)},
		} {
			spoofed.Header = http.Header{"X-Forwarded-For": header, "X-Real-Ip": {otherAddress}, "Forwarded": {"for=" + otherAddress}, "X-Client-Ip": {otherAddress}}
			t.Run("a client that forges "+name, func(t *testing.T) { endpointtest.Check(t, rejected, b.Do(t, spoofed)) })
		}
		expectStatus(t, b, "another address", http.StatusOK, attempt(otherAddress, "ann", secret))
		b.Clock.Advance(55 * time.Second)
		expectStatus(t, b, "in the next window", http.StatusOK, attempt(attackerAddress, "ann", secret))
	}, tenFailures)
}

// Rejected requests send no commands to the database.
func TestSignin_RejectionsCostNoCommands(t *testing.T) {
	t.Parallel()
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Function, "MONGODB_URI="+tap.URI, tenFailures)
	for i := range 10 {
		fail(t, b, 1, attackerAddress, fmt.Sprint("u", i/5))
	}
	expectStatus(t, b, "the first rejected request", http.StatusTooManyRequests, attempt(attackerAddress, "ann", secret))
	tap.Commands()
	for range 20 {
		expectStatus(t, b, "a further request", http.StatusTooManyRequests, attempt(attackerAddress, "ann", secret))
	}
	if got := tap.Commands(); got != "" {
		t.Errorf("got the commands %s, want none", got)
	}
}

func TestSignin_IPv6Network(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, tenFailures)
	for i := range 10 {
		fail(t, b, 1, fmt.Sprintf("2001:db8::%x", i), fmt.Sprint("u", i/5))
	}
	expectStatus(t, b, "the same /64", http.StatusTooManyRequests, attempt("2001:db8::ffff:0:0:1", "ann", secret))
	expectStatus(t, b, "another /64", http.StatusUnauthorized, attempt("2001:db8:0:1::1", "ann", secret))
}

func TestSignin_NoTrustedProxy(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, "TRUSTED_PROXIES=0", tenFailures)
	for i := range 10 {
		fail(t, b, 1, fmt.Sprint("198.51.100.", i), fmt.Sprint("u", i/5))
	}
	expectStatus(t, b, "another forwarded address of the same peer", http.StatusTooManyRequests, attempt("192.0.2.1", "ann", secret))
}

func TestSignin_RateLimitOff(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, "RATE_LIMIT=off", tenFailures)
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 11, attackerAddress, "ann")
	expectStatus(t, b, "the right password", http.StatusOK, attempt(attackerAddress, "ann", secret))
}

// The limit guards a secret: if it cannot count, no password is checked.
func TestSignin_RateLimitUnavailable(t *testing.T) {
	t.Parallel()
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, endpointtest.WithBudget(signin.Function, 500*time.Millisecond), "MONGODB_URI="+tap.URI)
	b.Given(t, "ann@example.com", secret)
	tap.Stall("ratelimits")
	for name, password := range map[string]string{"the right password": secret, "a wrong password": "wrong"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			endpointtest.Check(t, endpointtest.Case{Status: http.StatusServiceUnavailable, Want: http.Header{"Retry-After": {"1"}},
				JSON: endpointtest.Errors("The service is unavailable. Try again shortly.")}, b.Do(t, attempt(ownerAddress, "ann", password)))
		})
	}
}

// A request with invalid input counts toward the limit.
func TestSignin_InvalidInputCounts(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signin.Function, "RATE_LIMIT_SIGNIN=10/5m")
	call := endpointtest.Call{From: attackerAddress, Body: `{"email":"ann"}`}
	for range 10 {
		expectStatus(t, b, "invalid input", http.StatusBadRequest, call)
	}
	expectStatus(t, b, "one more", http.StatusTooManyRequests, call)
	expectStatus(t, b, "valid input", http.StatusTooManyRequests, attempt(attackerAddress, "ann", secret))
	expectStatus(t, b, "another address", http.StatusUnauthorized, attempt(otherAddress, "ann", secret))
}
