package signin_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/shared/endpointtest"
	"ticketing.com/auth/shared/mongotest"
)

const owner, stranger, another = "198.51.100.1", "198.51.100.2", "198.51.100.3"

func attempt(from, email, password string) endpointtest.Call {
	return endpointtest.Call{From: from, Body: `{"email":"` + email + `@example.com","password":"` + password + `"}`}
}

func fail(t *testing.T, b *endpointtest.Bench, n int, from, email string) {
	t.Helper()
	for i := range n {
		endpointtest.Check(t, wrong("", ""), b.Do(t, attempt(from, email, fmt.Sprint("wrong ", i))))
	}
}

// answers fails the test unless a sign-in has a status.
func answers(t *testing.T, b *endpointtest.Bench, when string, status int, c endpointtest.Call) {
	t.Helper()
	if a := b.Do(t, c); a.Status != status {
		t.Errorf("%s: %d %s", when, a.Status, a.Body)
	}
}

func TestTheAccountIsThrottled(t *testing.T) {
	endpointtest.EveryDoor(t, signin.Endpoint, func(t *testing.T, b *endpointtest.Bench) {
		b.Given(t, "ann@example.com", secret)
		fail(t, b, 10, stranger, "ann")
		right := attempt(another, "ann", secret)
		endpointtest.Check(t, wrong("", ""), b.Do(t, right)) // the whole answer of a wrong password
		b.Clock.Advance(time.Second)
		answers(t, b, "after the wait", http.StatusOK, right)
	})
}

func TestNineFailuresDoNotKeepAnybodyOut(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 9, stranger, "ann")
	answers(t, b, "the tenth try", http.StatusOK, attempt(another, "ann", secret))
	for i := range 20 { // what succeeds is not counted
		answers(t, b, "one more", http.StatusOK, attempt(fmt.Sprint("198.51.100.", 100+i), "ann", secret))
	}
}

func TestTheFailuresOfOneAccountDoNotCountForAnother(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	b.Given(t, "ann@example.com", secret)
	b.Given(t, "bob@example.com", secret)
	fail(t, b, 12, stranger, "ann")
	answers(t, b, "bob", http.StatusOK, attempt(stranger, "bob", secret))
}

func TestAnotherSpellingIsTheSameAccount(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	b.Given(t, "ann@example.com", secret)
	for i := range 10 {
		answers(t, b, "a wrong password", http.StatusUnauthorized, attempt(stranger, []string{"ann", " ANN", "Ann"}[i%3], "wrong"))
	}
	answers(t, b, "the right one", http.StatusUnauthorized, attempt(another, "ann", secret))
}

// An attacker who never stops cannot keep the owner out from where she was before:
// not after she has signed out, and not for her own wrong passwords.
func TestTheOwnerGetsThroughFromWhereSheWasBefore(t *testing.T) {
	endpointtest.EveryDoor(t, signin.Endpoint, func(t *testing.T, b *endpointtest.Bench) {
		b.Given(t, "ann@example.com", secret)
		g := b.Do(t, attempt(owner, "ann", secret)).Grant(t)
		if err := b.Users.End(t.Context(), g.User.ID, b.Claims(t, g.Token).Session); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			fail(t, b, 15, stranger, "ann")
			answers(t, b, "from elsewhere", http.StatusUnauthorized, attempt(another, "ann", secret))
			fail(t, b, 9, owner, "ann")
			answers(t, b, "from where she was", http.StatusOK, attempt(owner, "ann", secret))
			b.Clock.Advance(20 * time.Minute)
		}
		fail(t, b, 10, owner, "ann")
		answers(t, b, "who guesses from there is throttled as well", http.StatusUnauthorized, attempt(owner, "ann", secret))
	})
}

func TestADeviceIsForgotten(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	b.Given(t, "ann@example.com", secret)
	visit := func(n int) endpointtest.Call { return attempt(fmt.Sprintf("192.0.2.%d", n), "ann", secret) }
	for n := range 25 {
		b.Clock.Advance(time.Second)
		answers(t, b, "a device", http.StatusOK, visit(n))
	}
	if n := len(account(t, b).Devices); n != 20 {
		t.Errorf("%d devices are remembered", n)
	}
	fail(t, b, 10, stranger, "ann")
	answers(t, b, "the oldest", http.StatusUnauthorized, visit(0))
	answers(t, b, "the newest", http.StatusOK, visit(24))
	b.Clock.Advance(90 * 24 * time.Hour)
	fail(t, b, 10, stranger, "ann")
	answers(t, b, "the newest, months later", http.StatusUnauthorized, visit(24))
	b.Clock.Advance(time.Minute)
	answers(t, b, "it again, after the wait", http.StatusOK, visit(24))
	if n := len(account(t, b).Devices); n != 1 {
		t.Errorf("%d devices are remembered", n)
	}
}

// Of two hundred passwords, forty at once, ten are looked at. The log tells: who asks
// learns nothing of it. On a busy machine the embedded database may not get through
// forty in the time of a request; then some are answered 503, and not looked at. (All
// two hundred at once are in the tests of package throttle.)
func TestOfManyPasswordsAtOnceTenAreTried(t *testing.T) {
	for _, email := range []string{"ann", "nobody"} {
		b := endpointtest.New(t, signin.Endpoint, "HASH_CONCURRENCY=40")
		b.Given(t, "ann@example.com", secret)
		answered := 0
		for wave := range 5 {
			for _, a := range b.Race(t, 40, func(i int) endpointtest.Call {
				return attempt(fmt.Sprintf("198.51.%d.%d", wave, i), email, fmt.Sprint("wrong ", i))
			}) {
				if a.Status != http.StatusServiceUnavailable {
					answered++
					endpointtest.Check(t, wrong("", ""), a)
				}
			}
		}
		tried := answered - strings.Count(b.Logs(), "takes no password yet")
		if tried > 10 || answered == 200 && tried != 10 {
			t.Errorf("of 200 passwords for %s %d were answered, and %d of them tried", email, answered, tried)
		}
		t.Logf("of 200 passwords for %s %d were answered, and %d of them tried", email, answered, tried)
	}
}

// A right password among them opens a session only if it was let in, and every session
// there is was.
func TestOfManyRightPasswordsAtOnceNoMoreAreLetInThanThereIsRoomFor(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "HASH_CONCURRENCY=100", "SESSION_LIMIT=1000")
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 9, stranger, "ann")
	fail(t, b, 1, another, "ann")
	granted := 0
	for _, a := range b.Race(t, 100, func(i int) endpointtest.Call { return attempt(fmt.Sprint("192.0.2.", i), "ann", secret) }) {
		if a.Status == http.StatusOK {
			granted++
		}
	}
	if n := len(account(t, b).Sessions) - 1; n != 0 || granted != 0 {
		t.Errorf("%d sessions, %d grants", n, granted)
	}
}

// However many of her sign-ins are under way at once, nobody is told that her right
// password is wrong: a client would throw it away. Some are told to come back.
func TestOfManyRightPasswordsAtOnceNoneIsCalledWrong(t *testing.T) {
	for name, from := range map[string]string{"from where she was": owner, "from elsewhere": another} {
		b := endpointtest.New(t, signin.Endpoint, "HASH_CONCURRENCY=40", "SESSION_LIMIT=1000")
		b.Given(t, "ann@example.com", secret)
		answers(t, b, "the first", http.StatusOK, attempt(owner, "ann", secret))
		granted := 0
		for i, a := range b.Race(t, 40, func(int) endpointtest.Call { return attempt(from, "ann", secret) }) {
			switch {
			case a.Status == http.StatusOK:
				granted++
			case a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "":
				t.Errorf("%s, sign-in %d: %d %v %s", name, i, a.Status, a.Header, a.Body)
			}
		}
		if granted == 0 {
			t.Errorf("%s: none of 40 was let in", name)
		}
		t.Logf("%s: %d of 40 were let in", name, granted)
		b.Clock.Advance(time.Second)
		answers(t, b, name+", afterwards", http.StatusOK, attempt(from, "ann", secret))
	}
}

// What a refused sign-in asks of the database and of the processor is the same,
// whatever the reason: that is what it takes, and a clock would only guess at it.
func TestARefusalTakesTheSameWorkWhateverTheReason(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Endpoint, "MONGODB_URI="+tap.URI, "HASH_MEMORY_KIB=8192")
	if err := b.Users.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"ann", "locked", "right"} {
		b.Given(t, email+"@example.com", secret)
	}
	fail(t, b, 1, stranger, "ann")
	fail(t, b, 1, stranger, "nobody")
	fail(t, b, 10, stranger, "locked")
	fail(t, b, 10, stranger, "right")
	fail(t, b, 10, stranger, "nobody-locked")
	var first endpointtest.Answer
	for i, c := range []struct{ name, email, password string }{
		{"a wrong password", "ann", "wrong"},
		{"an unknown email", "nobody", "wrong"},
		{"a locked account", "locked", "wrong"},
		{"a locked account, and the right password", "right", secret},
		{"an unknown email after many tries", "nobody-locked", "wrong"},
	} {
		tap.Commands()
		var got endpointtest.Answer
		n := hashes(8<<20, func() { got = b.Do(t, attempt(another, c.email, c.password)) })
		const want = "find throttles, find users, findAndModify throttles, update throttles, update throttles"
		if commands := tap.Commands(); n != 1 || commands != want {
			t.Errorf("%s: %d hashes, %s", c.name, n, commands)
		}
		got.Header.Del("Date")
		if i == 0 {
			first = got
		}
		if !reflect.DeepEqual(got, first) {
			t.Errorf("%s: %v\nwant %v", c.name, got, first)
		}
	}
}

// A sign-in that succeeds has its counts beside what it waits for anyway.
func TestWhatTheThrottleAsksOfTheDatabase(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Endpoint, "MONGODB_URI="+tap.URI)
	b.Given(t, "ann@example.com", secret)
	for _, want := range []string{
		"find throttles, find users, findAndModify throttles, findAndModify users, insert throttles, update throttles", // the first of a stranger
		"find throttles, find users, findAndModify throttles, findAndModify users, insert throttles, update throttles", // of a device
		"find throttles, find users, findAndModify throttles, findAndModify users, update throttles, update throttles",
	} {
		tap.Commands()
		b.Do(t, attempt(owner, "ann", secret)).Grant(t)
		if got := tap.Commands(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestTheAddressIsThrottled(t *testing.T) {
	endpointtest.EveryDoor(t, signin.Endpoint, func(t *testing.T, b *endpointtest.Bench) {
		b.Given(t, "ann@example.com", secret)
		for i := range 100 { // the tries of an address that goes through accounts
			fail(t, b, 1, stranger, fmt.Sprint("u", i/5))
		}
		refused := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			// the bench's clock stands at 03:04:05.678, so the window ends in 55 s
			Want: http.Header{"Retry-After": {"55"}, "Ratelimit-Policy": {`"signin";q=1000;w=300`}, "Ratelimit": {`"signin";r=0;t=55`}}}
		for name, email := range map[string]string{"an account": "ann", "no account": "nobody"} {
			t.Run(name, func(t *testing.T) { endpointtest.Check(t, refused, b.Do(t, attempt(stranger, email, secret))) })
		}
		spoofed := attempt(stranger, "ann", secret)
		for name, header := range map[string][]string{
			"by another address":     {another},
			"by a list":              {another + ", " + owner},
			"by several headers":     {another, owner},
			"by what is no address":  {"unknown, -, \"\""},
			"by an address of IPv6":  {"2001:db8::1"},
			"by very many addresses": {strings.Repeat(another+",", 1000)},
		} {
			spoofed.Header = http.Header{"X-Forwarded-For": header, "X-Real-Ip": {another}, "Forwarded": {"for=" + another}, "X-Client-Ip": {another}}
			t.Run("who pretends "+name, func(t *testing.T) { endpointtest.Check(t, refused, b.Do(t, spoofed)) })
		}
		answers(t, b, "another address", http.StatusOK, attempt(another, "ann", secret))
		b.Clock.Advance(55 * time.Second)
		answers(t, b, "in the next window", http.StatusOK, attempt(stranger, "ann", secret))
	})
}

// A flood that goes on though it is told to come back asks the database for nothing.
func TestAFloodFromAFullAddressCostsTheDatabaseNothing(t *testing.T) {
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

func TestANetworkOfIPv6IsOneAddress(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint)
	for i := range 100 {
		fail(t, b, 1, fmt.Sprintf("2001:db8::%x", i), fmt.Sprint("u", i/5))
	}
	answers(t, b, "the same /64", http.StatusTooManyRequests, attempt("2001:db8::ffff:0:0:1", "ann", secret))
	answers(t, b, "another", http.StatusUnauthorized, attempt("2001:db8:0:1::1", "ann", secret))
}

func TestWhereNoProxyIsTrustedTheHeaderSaysNothing(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "TRUSTED_PROXIES=0")
	for i := range 100 {
		fail(t, b, 1, fmt.Sprint("198.51.100.", i), fmt.Sprint("u", i/5))
	}
	answers(t, b, "another name for the same peer", http.StatusTooManyRequests, attempt("192.0.2.1", "ann", secret))
}

func TestTheThrottleCanBeOff(t *testing.T) {
	b := endpointtest.New(t, signin.Endpoint, "THROTTLE=off")
	b.Given(t, "ann@example.com", secret)
	fail(t, b, 110, stranger, "ann")
	answers(t, b, "the right one", http.StatusOK, attempt(stranger, "ann", secret))
	if n := len(account(t, b).Devices); n != 0 {
		t.Errorf("%d devices are remembered", n)
	}
}

// It guards a secret: where it cannot count, no password is looked at.
func TestWhereItCannotCountNobodySignsIn(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signin.Endpoint, "MONGODB_URI="+tap.URI)
	b.Given(t, "ann@example.com", secret)
	tap.Stall("throttles")
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
