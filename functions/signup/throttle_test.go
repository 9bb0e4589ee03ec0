package signup_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/endpointtest"
	"ticketing.com/auth/shared/mongotest"
)

func TestTheAddressIsThrottled(t *testing.T) {
	endpointtest.EveryDoor(t, signup.Endpoint, func(t *testing.T, b *endpointtest.Bench) {
		call := func(i int, from string) endpointtest.Call {
			return endpointtest.Call{From: from, Body: fmt.Sprintf(`{"email":"u%d@example.com","password":%q}`, i, secret)}
		}
		created := 0
		var answers []endpointtest.Answer
		for round := range 5 { // no more at once than the embedded database counts in time
			answers = append(answers, b.Race(t, 14, func(i int) endpointtest.Call { return call(14*round+i, "198.51.100.1") })...)
		}
		for _, a := range answers {
			if a.Status == http.StatusCreated {
				created++
				continue
			}
			// the bench's clock stands at 03:04:05.678, so the window ends in 355 s
			endpointtest.Check(t, endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
				Want: http.Header{"Retry-After": {"355"}, "Ratelimit-Policy": {`"signup";q=60;w=600`}, "Ratelimit": {`"signup";r=0;t=355`}}}, a)
		}
		if created != 60 {
			t.Errorf("%d sign-ups of one address", created)
		}
		b.Do(t, call(100, "198.51.100.2")).Grant(t)
		b.Clock.Advance(355 * time.Second)
		b.Do(t, call(101, "198.51.100.1")).Grant(t)
	}, "HASH_CONCURRENCY=14")
}

func TestTheFirstDeviceIsRemembered(t *testing.T) {
	b := endpointtest.New(t, signup.Endpoint)
	key := http.Header{"Idempotency-Key": {"once"}}
	for i, from := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.2"} {
		b.Do(t, endpointtest.Call{Body: good, From: from, Header: key}).Grant(t)
		a, err := b.Users.Account(t.Context(), "ann@example.com")
		if err != nil || len(a.Devices) != min(i+1, 2) {
			t.Errorf("%v %v", a.Devices, err)
		}
	}
}

// A retry is told from another request by the password of the account. Who knows the
// key can try passwords there, so it counts as a sign-in.
func TestWhoKnowsAKeyCanGuessNoMoreThanAtASignIn(t *testing.T) {
	endpointtest.EveryDoor(t, signup.Endpoint, func(t *testing.T, b *endpointtest.Bench) {
		const owner, stranger, another = "198.51.100.1", "198.51.100.2", "198.51.100.3"
		call := func(from, body string) endpointtest.Call {
			return endpointtest.Call{From: from, Body: body, Header: http.Header{"Idempotency-Key": {"order-1"}}}
		}
		wrong := endpointtest.Case{Status: http.StatusUnprocessableEntity, JSON: endpointtest.Errors("This Idempotency-Key, or this event, was used with another request.")}
		early := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			Want: http.Header{"Retry-After": {"60"}, "Ratelimit-Policy": {`"account";q=10;w=900`}, "Ratelimit": {`"account";r=0;t=60`}}}
		b.Do(t, call(owner, good)).Grant(t)
		b.Do(t, call(another, good)).Grant(t) // on the road, before anybody guesses
		for i := range 10 {
			endpointtest.Check(t, wrong, b.Do(t, call(stranger, strings.Replace(good, "staple", fmt.Sprint("stable ", i), 1))))
		}
		endpointtest.Check(t, early, b.Do(t, call(stranger, strings.Replace(good, "staple", "table", 1))))
		endpointtest.Check(t, early, b.Do(t, call(stranger, good)))
		b.Do(t, call(owner, good)).Grant(t) // her own retry is let through, where she was
		b.Clock.Advance(time.Minute)
		b.Do(t, call("198.51.100.4", good)).Grant(t) // and elsewhere when she comes back
	})
}

func TestARetryAsksTheDatabaseForOneMoreRoundTripThanASignUp(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signup.Endpoint, "MONGODB_URI="+tap.URI)
	for _, want := range []string{
		"findAndModify throttles, insert users",
		"find throttles, find users, findAndModify throttles, findAndModify throttles, findAndModify users, insert throttles, insert users, update throttles",
	} {
		tap.Commands()
		b.Do(t, keyed("k", good)).Grant(t)
		if got := tap.Commands(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// It guards the machine, not a secret: where it cannot count, nobody is kept out.
func TestWhereItCannotCountPeopleSignUp(t *testing.T) {
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, signup.Endpoint, "MONGODB_URI="+tap.URI)
	tap.Stall("throttles")
	b.Do(t, endpointtest.Call{Body: good}).Grant(t)
}
