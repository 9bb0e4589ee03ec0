package history_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"ticketing.com/auth/functions/history"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

func TestHistory(t *testing.T) { endpointtest.EveryTransport(t, history.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "a password")
	sid := b.Session(t, g.RefreshToken)
	signedUp := b.Clock.Now()
	b.Clock.Advance(time.Second)
	other := b.OpenSession(t, "ann@example.com")
	b.Clock.Advance(time.Second)
	from := user.Origin{Agent: "Chrome on macOS", Place: "203.0.113.0/24"}
	if err := b.Users.EndSession(t.Context(), g.User.ID, sid, b.Session(t, other.RefreshToken), from, b.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	bearer := endpointtest.Bearer(g.Token)
	at := func(later time.Duration) string {
		return `"at":"` + signedUp.Add(later).Format("2006-01-02T15:04:05.999Z") + `"`
	}
	opened := b.Session(t, other.RefreshToken)
	b.Play(t,
		endpointtest.Case{Name: "the newest event is first", Call: endpointtest.Call{Header: bearer}, Status: http.StatusOK, JSON: `{"events":[
			{"type":"signedout",` + at(2*time.Second) + `,"sessionId":"` + opened + `","agent":"Chrome on macOS","place":"203.0.113.0/24"},
			{"type":"signedin",` + at(time.Second) + `,"sessionId":"` + opened + `"},
			{"type":"signedup",` + at(0) + `,"sessionId":"` + sid + `"}]}`},
		endpointtest.Case{Name: "HEAD has no body", Call: endpointtest.Call{Method: http.MethodHead, Header: bearer}, Status: http.StatusOK},
		endpointtest.Case{Name: "a token is required", Status: http.StatusUnauthorized, JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}},
		endpointtest.InvalidToken(endpointtest.Case{Name: "the token of an ended session", Call: endpointtest.Call{Header: endpointtest.Bearer(other.Token)}}),
	)
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	b.Play(t, endpointtest.HostileRoutes(history.Function)...)
}

// An imported account and one of an earlier version have no history.
func TestHistory_None(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, history.Function)
	g := b.Given(t, "ann@example.com", "a password")
	if _, err := b.Collection(t).UpdateOne(t.Context(), map[string]any{}, map[string]any{"$unset": map[string]any{"history": "", "changes": ""}}); err != nil {
		t.Fatal(err)
	}
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusOK, JSON: `{"events":[]}`}, b.Do(t, endpointtest.Call{Header: endpointtest.Bearer(g.Token)}))
}

// The history has the newest 50 events, and the document not many more.
func TestHistory_Bounded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("signs in 100 times")
	}
	b := endpointtest.New(t, history.Function)
	b.Given(t, "ann@example.com", "a password")
	var newest string
	var token http.Header
	for range 100 { // beyond 20 sessions, each ends another one
		b.Clock.Advance(time.Second)
		g := b.OpenSession(t, "ann@example.com")
		newest, token = b.Session(t, g.RefreshToken), endpointtest.Bearer(g.Token)
		if n := len(b.Stored(t, "ann@example.com").History); n > 62 { // ten more than the limit, and those of one sign-in
			t.Fatalf("%d entries are stored, want at most 62", n)
		}
	}
	var out struct{ Events []user.Entry }
	if err := json.Unmarshal([]byte(b.Do(t, endpointtest.Call{Header: token}).Body), &out); err != nil || len(out.Events) != 50 {
		t.Fatalf("got %d events, %v; want 50", len(out.Events), err)
	}
	found := false
	for i, e := range out.Events {
		if i > 0 && e.At.After(out.Events[i-1].At) {
			t.Errorf("event %d is newer than event %d", i, i-1)
		}
		found = found || e.Type == user.EntrySignedIn && e.Session == newest
		if e.Type == user.EntrySignedOut && e.Reason != "displaced" {
			t.Errorf("got the reason %q, want displaced", e.Reason)
		}
	}
	if !found {
		t.Error("the newest sign-in is missing")
	}
}
