package signout_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"ticketing.com/auth/functions/signout"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

const (
	requested = "com.ticketing.user.signout.requested.v1"
	doneEvent = "com.ticketing.user.signout.done.v1"
)

func TestSignout_EventEndsSessions(t *testing.T) {
	t.Parallel()
	for _, mode := range []endpointtest.Mode{endpointtest.Binary, endpointtest.Structured} {
		t.Run(string(mode), func(t *testing.T) {
			sink := endpointtest.NewSink(t)
			b := endpointtest.New(t, signout.Function, "EVENTS=on", sink.Setting())
			first := b.Given(t, "ann@example.com", "a password")
			second := b.OpenSession(t, "ann@example.com")
			bob := b.Given(t, "bob@example.com", "a password")
			id := `"userId":"` + first.User.ID + `"`
			deliver := func(key, data string) endpointtest.Reply {
				return b.Deliver(t, mode, endpointtest.Event(key, requested, data))
			}
			done := func(n string) string { return `{` + id + `,"ended":` + n + `}` }

			deliver("one", `{`+id+`,"sessionId":"`+sid(t, first)+`"}`).Expect(t, http.StatusOK, doneEvent, done("1"))
			if live(b, t, first) != user.ErrSessionEnded || live(b, t, second) != nil {
				t.Errorf("after the event for one session: got %v and %v, want ErrEnded and nil", live(b, t, first), live(b, t, second))
			}
			deliver("all", `{`+id+`}`).Expect(t, http.StatusOK, doneEvent, done("1"))
			if live(b, t, second) != user.ErrSessionEnded || live(b, t, bob) != nil {
				t.Errorf("after the event for all sessions: got %v and %v of another user, want ErrEnded and nil", live(b, t, second), live(b, t, bob))
			}
			// the user signs in again: a repeated delivery must not end the new session
			third := b.OpenSession(t, "ann@example.com")
			deliver("all", `{`+id+`}`).Expect(t, http.StatusOK, doneEvent, done("1"))
			if err := live(b, t, third); err != nil {
				t.Errorf("the new session: got %v, want nil", err)
			}
			deliver("none", `{`+id+`,"sessionId":"0123"}`).Expect(t, http.StatusOK, doneEvent, done("0"))
			deliver("unknown", `{"userId":"unknown"}`).Expect(t, http.StatusOK, doneEvent, `{"userId":"unknown","ended":0}`)

			var ended []string
			for _, e := range sink.Received() {
				if e.Type() == "com.ticketing.user.signedout.v1" {
					ended = append(ended, string(e.Data()))
				}
			}
			want := []string{
				`{` + id + `,"sessionId":"` + sid(t, first) + `","reason":"operator"}`,
				`{` + id + `,"sessionId":"` + sid(t, second) + `","reason":"operator"}`,
			}
			if !slices.Equal(ended, want) {
				t.Errorf("got the events %v\nwant %v", ended, want)
			}
			b.OutboxIs(t, "ann@example.com", 0)
		})
	}
}

func TestSignout_InvalidEvent(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signout.Function, "EVENTS=on")
	g := b.Given(t, "ann@example.com", "a password")
	id := `"userId":"` + g.User.ID + `"`
	for data, want := range map[string]string{
		`{}`:                             endpointtest.FieldError("userId", "userId is missing."),
		`{"userId":""}`:                  endpointtest.FieldError("userId", "userId must not be empty."),
		`{"userId":{"$ne":""}}`:          endpointtest.FieldError("userId", "userId must be a string."),
		`{` + id + `,"sessionId":""}`:    endpointtest.FieldError("sessionId", "sessionId must not be empty."),
		`{` + id + `,"sessionId":null}`:  endpointtest.FieldError("sessionId", "sessionId must be a string."),
		`{` + id + `,"sessionId":["a"]}`: endpointtest.FieldError("sessionId", "sessionId must be a string."),
		`["` + g.User.ID + `"]`:          endpointtest.Errors("The body must be one JSON object."),
	} {
		b.Deliver(t, endpointtest.Binary, endpointtest.Event("x", requested, data)).Expect(t, http.StatusBadRequest, "", want)
	}
	if err := live(b, t, g); err != nil {
		t.Errorf("the session: got %v, want nil", err)
	}
}

func TestSignout_PublishedOnce(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, signout.Function, sink.Setting())
	g := b.Given(t, "ann@example.com", "a password")
	b.Race(t, 10, func(int) endpointtest.Call { return endpointtest.Call{Header: endpointtest.Bearer(g.Token)} })
	if got := sink.Types(); !slices.Equal(got, []string{"signedup", "signedout"}) {
		t.Errorf("got the events %v, want one signedup and one signedout", got)
	}
}

func TestSignout_HandledEventsAreBounded(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signout.Function, "EVENTS=on")
	g := b.Given(t, "ann@example.com", "a password")
	for i := range 30 {
		b.Clock.Advance(time.Second)
		b.Deliver(t, endpointtest.Binary, endpointtest.Event(string(rune('a'+i)), requested, `{"userId":"`+g.User.ID+`"}`))
	}
	if n := len(b.Stored(t, "ann@example.com").Handled); n != 20 {
		t.Errorf("%d handled events are stored, want 20", n)
	}
}
