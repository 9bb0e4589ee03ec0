package signup_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/testing/endpointtest"
)

const (
	requested = "com.ticketing.user.signup.requested.v1"
	accepted  = "com.ticketing.user.signup.accepted.v1"
	refused   = "com.ticketing.user.signup.refused.v1"
)

// An event gets the account if the same data on the route gets 201, and the same errors if that
// gets 400.
func TestSignup_Event(t *testing.T) {
	t.Parallel()
	for _, mode := range []endpointtest.Mode{endpointtest.Binary, endpointtest.Structured} {
		t.Run(string(mode), func(t *testing.T) {
			b := endpointtest.New(t, signup.Function, "EVENTS=on")
			b.Given(t, "taken@example.com", secret)
			for i, c := range cases() {
				if c.Path != "" || c.Header != nil || !json.Valid([]byte(c.Body)) {
					continue // these cases test HTTP
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

func TestSignup_RepeatedDelivery(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, signup.Function, "EVENTS=on", sink.Setting(), "HASH_CONCURRENCY=20")
	var replies sync.Map
	var group sync.WaitGroup
	for i := range 10 {
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
		t.Errorf("got %d different replies, want 1", n)
	}
	if a := b.Stored(t, "ann@example.com"); len(a.Sessions) != 0 {
		t.Errorf("got %d sessions, want 0: %+v", len(a.Sessions), a)
	}
	if got := sink.Types(); !slices.Equal(got, []string{"signedup", "mail.requested"}) {
		t.Errorf("got the events %v, want one signedup and one mail.requested", got)
	}
	b.Deliver(t, endpointtest.Binary, endpointtest.Event("2", requested, good)).
		Expect(t, http.StatusOK, refused, endpointtest.FieldError("email", "This email is in use."))
}

func TestSignup_PublishesEvent(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, signup.Function, sink.Setting(), `K_CE_OVERRIDES={"extensions":{"tenant":"blue"}}`)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	g := b.Do(t, endpointtest.Call{Body: good, Header: http.Header{"Traceparent": {"00-" + trace + "-00f067aa0ba902b7-01"}, "Accept-Language": {"de-AT,en;q=0.5"}}}).Grant(t)
	received := sink.Received()
	if len(received) != 2 {
		t.Fatalf("got the events %v, want two", received)
	}
	var mail event.RequestedMail
	if err := received[1].DataAs(&mail); err != nil || received[1].Type() != event.MailRequested.Name || len(mail.Nonce) != 26 {
		t.Errorf("got the event %v, want a request for a mail", received[1])
	}
	mail.Nonce = ""
	if want := (event.RequestedMail{UserID: g.User.ID, To: "ann@example.com", Locale: "de-AT", Template: event.Verification, Purpose: event.Verification,
		At: b.Clock.Now().Truncate(time.Millisecond), ExpiresAt: b.Clock.Now().Add(24 * time.Hour).Truncate(time.Second)}); !reflect.DeepEqual(mail, want) {
		t.Errorf("got the request %+v, want %+v", mail, want)
	}
	e, header := received[0], sink.Headers()[0]
	data := fmt.Sprintf(`{"userId":%q,"email":"ann@example.com","sessionId":%q}`, g.User.ID, b.Claims(t, g.Token).Session)
	if e.Type() != "com.ticketing.user.signedup.v1" || e.Source() != "/api/users" || e.Subject() != g.User.ID || string(e.Data()) != data ||
		!e.Time().Equal(b.Clock.Now().Truncate(time.Millisecond)) {
		t.Errorf("got the event %v, want the signedup event of the account", e)
	}
	if x := e.Extensions(); x["partitionkey"] != g.User.ID || x["tenant"] != "blue" || !strings.Contains(fmt.Sprint(x["traceparent"]), trace) {
		t.Errorf("got the extensions %v, want the user, the tenant blue and the trace %s", x, trace)
	}
	if header.Get("Ce-Id") == "" || !strings.Contains(header.Get("Traceparent"), trace) {
		t.Errorf("got the headers %v, want Ce-Id and the trace %s", header, trace)
	}
	b.OutboxIs(t, "ann@example.com", 0)
}

func TestSignup_SinkFails(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(http.ResponseWriter){
		"answers 500":           func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"answers 302":           func(w http.ResponseWriter) { w.Header().Set("Location", "/"); w.WriteHeader(http.StatusFound) },
		"hangs":                 func(http.ResponseWriter) { time.Sleep(time.Second) },
		"closes the connection": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := endpointtest.NewSink(t)
			sink.Answer(answer)
			b := endpointtest.New(t, signup.Function, sink.Setting(), "K_SINK_TIMEOUT=50ms")
			b.Do(t, endpointtest.Call{Body: good}).Grant(t)
			b.OutboxIs(t, "ann@example.com", 2)
		})
	}
	b := endpointtest.New(t, signup.Function, "K_SINK=http://127.0.0.1:1")
	b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	b.OutboxIs(t, "ann@example.com", 2)
}

func TestSignup_NoSink(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signup.Function)
	b.Do(t, endpointtest.Call{Body: good}).Grant(t)
	b.OutboxIs(t, "ann@example.com", 0)
}

func keyed(key, body string) endpointtest.Call {
	return endpointtest.Call{Body: body, Header: http.Header{"Idempotency-Key": {key}}}
}

func TestSignup_RetryWithKey(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signup.Function, func(t *testing.T, b *endpointtest.Fixture) {
		const key = `"8e03978e-40d5-43e8-bc93-6894a57f9324"`
		first := b.Do(t, keyed(key, good)).Grant(t)
		again := b.Do(t, keyed(strings.Trim(key, `"`), good)).Grant(t)
		if again.User != first.User || again.RefreshToken == first.RefreshToken {
			t.Errorf("got the grant %+v after %+v, want the same user and another refresh token", again, first)
		}
		mismatch := func(name string, c endpointtest.Call) endpointtest.Case {
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
			mismatch("the key with another password", keyed(key, strings.Replace(good, "staple", "stable", 1))),
			mismatch("the key with another email", keyed(key, strings.Replace(good, "ann", "bob", 1))),
			inUse("another key with the same email", keyed(`"another"`, good)),
			inUse("no key with the same email", endpointtest.Call{Body: good}),
			malformed("an empty key", `""`),
			malformed("a key without its second quote", `"abc`),
			malformed("a key of 256 characters", strings.Repeat("x", 256)),
			malformed("a key that is not ASCII", "schlüssel"),
		)
		b.Clock.Advance(24*time.Hour + time.Second)
		b.Play(t, inUse("the key after a day, with the same email", keyed(key, good)))
		b.Play(t, endpointtest.Case{Name: "the key after a day, with another email", Call: keyed(key, strings.Replace(good, "ann", "bob", 1)),
			Status: http.StatusCreated, JSON: created("bob@example.com")})
		b.Play(t, endpointtest.Case{Name: "the retry of that request", Call: keyed(key, strings.Replace(good, "ann", "bob", 1)),
			Status: http.StatusCreated, JSON: created("bob@example.com")})
	})
}

func TestSignup_ParallelRetries(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signup.Function, "HASH_CONCURRENCY=30")
	ids := map[string]bool{}
	for _, a := range b.Race(t, 15, func(int) endpointtest.Call { return keyed("k", good) }) {
		if a.Status == http.StatusServiceUnavailable { // more than ten are in flight
			a = b.Do(t, keyed("k", good))
		}
		if a.Status != http.StatusCreated {
			t.Fatalf("got %d %s, want 201", a.Status, a.Body)
		}
		ids[a.Grant(t).User.ID] = true
	}
	if len(ids) != 1 {
		t.Errorf("got %d users, want 1", len(ids))
	}
}

// A client that always sends the same key can create an account a day for some days. Each
// sign-up costs one hash, and each retry costs two.
func TestSignup_KeyIsReused(t *testing.T) {
	b := endpointtest.New(t, signup.Function, "HASH_MEMORY_KIB=8192")
	b.Do(t, endpointtest.Call{Body: strings.Replace(good, "ann", "zoe", 1)}).Grant(t) // loads the blocklist
	call := func(name string) endpointtest.Call {
		return keyed("always the same", strings.Replace(good, "ann", name, 1))
	}
	hashed := func(name string, want uint64, call endpointtest.Call) (a endpointtest.Answer) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a = b.Do(t, call)
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / (8 << 20); n != want {
			t.Errorf("%s: got %d hashes, want %d", name, n, want)
		}
		return a
	}
	for _, name := range []string{"ann", "bob", "cid", "dan"} {
		first := hashed("the sign-up of "+name, 1, call(name)).Grant(t)
		if again := hashed("the retry of "+name, 2, call(name)).Grant(t); again.User != first.User {
			t.Errorf("got the user %+v, want %+v", again.User, first.User)
		}
		b.Clock.Advance(24*time.Hour + time.Second)
	}
	if a := hashed("the sign-up of eve", 1, call("eve")); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("the fifth account of a key: got %d %s, want 422", a.Status, a.Body)
	}
}
