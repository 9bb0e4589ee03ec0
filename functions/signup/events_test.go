package signup_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/testing/endpointtest"
)

const (
	requested = "com.ticketing.user.signup.requested.v1"
	accepted  = "com.ticketing.user.signup.accepted.v1"
	refused   = "com.ticketing.user.signup.refused.v1"
)

// What the table says of a body on the route holds for the same data in an event:
// the account where that is 201, the same errors where that is 400.
func TestSignupByEvent(t *testing.T) {
	for _, mode := range []endpointtest.Mode{endpointtest.Binary, endpointtest.Structured} {
		t.Run(string(mode), func(t *testing.T) {
			b := endpointtest.New(t, signup.Endpoint, "EVENTS=on")
			b.Given(t, "taken@example.com", secret)
			for i, c := range cases() {
				if c.Path != "" || c.Header != nil || !json.Valid([]byte(c.Body)) {
					continue // these are about the wire
				}
				t.Run(c.Name, func(t *testing.T) {
					reply := b.Deliver(t, mode, endpointtest.Event(fmt.Sprint(i), requested, c.Body))
					if c.Status != http.StatusCreated {
						reply.Expect(t, http.StatusOK, refused, c.JSON)
						return
					}
					var grant map[string]any
					if err := json.Unmarshal([]byte(c.JSON), &grant); err != nil {
						t.Fatal(err)
					}
					user, _ := json.Marshal(map[string]any{"user": grant["user"]})
					reply.Expect(t, http.StatusOK, accepted, string(user))
				})
			}
		})
	}
}

func TestADeliveryThatIsRepeatedChangesNothing(t *testing.T) {
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, signup.Endpoint, "EVENTS=on", sink.Setting(), "HASH_CONCURRENCY=20")
	var replies sync.Map
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			mode := []endpointtest.Mode{endpointtest.Binary, endpointtest.Structured}[i%2]
			r := b.Deliver(t, mode, endpointtest.Event("1", requested, good))
			r.Expect(t, http.StatusOK, accepted, `{"user":{"id":"*","email":"ann@example.com"}}`)
			replies.Store(r, true)
		})
	}
	group.Wait()
	n := 0
	replies.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d different replies", n)
	}
	if a := b.Stored(t, "ann@example.com"); len(a.Sessions) != 0 {
		t.Errorf("account %+v has sessions", a)
	}
	if got := sink.Types(); !slices.Equal(got, []string{"signedup"}) {
		t.Errorf("events %v", got)
	}
	b.Deliver(t, endpointtest.Binary, endpointtest.Event("2", requested, good)).
		Expect(t, http.StatusOK, refused, endpointtest.FieldError("email", "This email is in use."))
}

func TestASignUpIsTold(t *testing.T) {
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, signup.Endpoint, sink.Setting(), `K_CE_OVERRIDES={"extensions":{"tenant":"blue"}}`)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	g := b.Do(t, endpointtest.Call{Body: good, Header: http.Header{"Traceparent": {"00-" + trace + "-00f067aa0ba902b7-01"}}}).Grant(t)
	received := sink.Received()
	if len(received) != 1 {
		t.Fatalf("events %v", received)
	}
	e, header := received[0], sink.Headers()[0]
	data := fmt.Sprintf(`{"userId":%q,"email":"ann@example.com","sessionId":%q}`, g.User.ID, b.Claims(t, g.Token).Session)
	if e.Type() != "com.ticketing.user.signedup.v1" || e.Source() != "/api/users" || e.Subject() != g.User.ID || string(e.Data()) != data ||
		!e.Time().Equal(b.Clock.Now().Truncate(time.Millisecond)) {
		t.Errorf("event %v", e)
	}
	if x := e.Extensions(); x["partitionkey"] != g.User.ID || x["tenant"] != "blue" || !strings.Contains(fmt.Sprint(x["traceparent"]), trace) {
		t.Errorf("extensions %v", x)
	}
	if header.Get("Ce-Id") == "" || !strings.Contains(header.Get("Traceparent"), trace) {
		t.Errorf("headers %v", header)
	}
	b.OutboxIs(t, "ann@example.com", 0)
}

func TestASinkThatDoesNotTakeFailsNobody(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"answers 500":            func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"answers 302":            func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) },
		"hangs":                  func(http.ResponseWriter) { time.Sleep(time.Second) },
		"dies after it received": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := endpointtest.NewSink(t)
			sink.Answer(answer)
			b := endpointtest.New(t, signup.Endpoint, sink.Setting(), "K_SINK_TIMEOUT=50ms")
			b.Do(t, endpointtest.Call{Body: good}).Grant(t)
			b.OutboxIs(t, "ann@example.com", 1)
		})
	}
	b := endpointtest.New(t, signup.Endpoint, "K_SINK=http://127.0.0.1:1")
	b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	b.OutboxIs(t, "ann@example.com", 1)
}

func TestNobodyIsToldWhereThereIsNoSink(t *testing.T) {
	b := endpointtest.New(t, signup.Endpoint)
	b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	b.OutboxIs(t, "ann@example.com", 0)
}

func keyed(key, body string) endpointtest.Call {
	return endpointtest.Call{Body: body, Header: http.Header{"Idempotency-Key": {key}}}
}

func TestARetryWithItsKeyGetsTheSameUser(t *testing.T) {
	endpointtest.EveryTransport(t, signup.Endpoint, func(t *testing.T, b *endpointtest.Fixture) {
		const key = `"8e03978e-40d5-43e8-bc93-6894a57f9324"`
		first := b.Do(t, keyed(key, good)).Grant(t)
		again := b.Do(t, keyed(strings.Trim(key, `"`), good)).Grant(t)
		if again.User != first.User || again.RefreshToken == first.RefreshToken {
			t.Errorf("%+v after %+v", again, first)
		}
		another := func(name string, c endpointtest.Call) endpointtest.Case {
			return endpointtest.Case{Name: name, Call: c, Status: http.StatusUnprocessableEntity, JSON: endpointtest.Errors("This Idempotency-Key, or this event, was used with another request.")}
		}
		inUse := func(name string, c endpointtest.Call) endpointtest.Case {
			return endpointtest.Case{Name: name, Call: c, Status: http.StatusBadRequest, JSON: endpointtest.FieldError("email", "This email is in use.")}
		}
		malformed := func(name string, keys ...string) endpointtest.Case {
			return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: good, Header: http.Header{"Idempotency-Key": keys}}, Status: http.StatusBadRequest,
				JSON: endpointtest.Errors("Idempotency-Key must be one string of 1 to 255 printable ASCII characters.")}
		}
		b.Play(t,
			another("the key with another password", keyed(key, strings.Replace(good, "staple", "stable", 1))),
			another("the key with another email", keyed(key, strings.Replace(good, "ann", "bob", 1))),
			inUse("another key with the same email", keyed(`"another"`, good)),
			inUse("no key with the same email", endpointtest.Call{Body: good}),
			malformed("an empty key", `""`),
			malformed("a key without its second quote", `"abc`),
			malformed("a key of 256 characters", strings.Repeat("x", 256)),
			malformed("a key that is not ASCII", "schlüssel"),
		)
		b.Clock.Advance(24*time.Hour + time.Second)
		b.Play(t, inUse("the key after a day, with the same email", keyed(key, good)))
		b.Play(t, endpointtest.Case{Name: "the key after a day, with another", Call: keyed(key, strings.Replace(good, "ann", "bob", 1)),
			Status: http.StatusCreated, JSON: created("bob@example.com")})
		b.Play(t, endpointtest.Case{Name: "and its retry", Call: keyed(key, strings.Replace(good, "ann", "bob", 1)),
			Status: http.StatusCreated, JSON: created("bob@example.com")})
	})
}

func TestRetriesAtOnceMakeOneUser(t *testing.T) {
	b := endpointtest.New(t, signup.Endpoint, "HASH_CONCURRENCY=30")
	ids := map[string]bool{}
	for _, a := range b.Race(t, 15, func(int) endpointtest.Call { return keyed("k", good) }) {
		if a.Status == http.StatusServiceUnavailable { // more than ten under way at once
			a = b.Do(t, keyed("k", good))
		}
		if a.Status != http.StatusCreated {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		ids[a.Grant(t).User.ID] = true
	}
	if len(ids) != 1 {
		t.Errorf("%d users", len(ids))
	}
}

// A key that is used for ever, as by a client that has only one, makes an account a day
// for some days. However old it is, a sign-up costs a hash, and its retry another.
func TestAKeyMayGrowOldAFewTimes(t *testing.T) {
	b := endpointtest.New(t, signup.Endpoint, "HASH_MEMORY_KIB=8192")
	b.Do(t, endpointtest.Call{Body: strings.Replace(good, "ann", "zoe", 1)}).Grant(t) // and the word lists are read
	call := func(name string) endpointtest.Call {
		return keyed("always the same", strings.Replace(good, "ann", name, 1))
	}
	hashed := func(name string, want uint64, call endpointtest.Call) (a endpointtest.Answer) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a = b.Do(t, call)
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / (8 << 20); n != want {
			t.Errorf("%s costs %d hashes", name, n)
		}
		return a
	}
	for _, name := range []string{"ann", "bob", "cid", "dan"} {
		first := hashed("the sign-up of "+name, 1, call(name)).Grant(t)
		if again := hashed("the retry of "+name, 2, call(name)).Grant(t); again.User != first.User {
			t.Errorf("%+v after %+v", again.User, first.User)
		}
		b.Clock.Advance(24*time.Hour + time.Second)
	}
	if a := hashed("the sign-up of eve", 1, call("eve")); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("a key that was used too often: %d %s", a.Status, a.Body)
	}
}
