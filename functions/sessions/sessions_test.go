package sessions_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/sessions"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
)

const path = "/api/users/sessions"

func list(g session.Grant) endpointtest.Call {
	return endpointtest.Call{Header: endpointtest.Bearer(g.Token)}
}

func end(g session.Grant, sid string) endpointtest.Call {
	c := endpointtest.Call{Method: http.MethodDelete, Path: path, Header: endpointtest.Bearer(g.Token)}
	if sid != "" {
		c.Path += "/" + sid
	}
	return c
}

// checkEmpty checks a response 204.
func checkEmpty(t *testing.T, a endpointtest.Answer) {
	t.Helper()
	if a.Status != http.StatusNoContent || a.Body != "" || a.Header.Get("Content-Type") != "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v %q, want 204 without a body", a.Status, a.Header, a.Body)
	}
}

var (
	noToken  = endpointtest.Case{Status: http.StatusUnauthorized, JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}}
	notFound = endpointtest.Case{Status: http.StatusNotFound, JSON: endpointtest.Errors("The session does not exist.")}
	nothing  = endpointtest.Case{Status: http.StatusNotFound, JSON: endpointtest.Errors("There is nothing here.")}
)

func TestSessions(t *testing.T) { endpointtest.EverySink(t, sessions.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture, sink *endpointtest.Sink) {
	first := b.Given(t, "ann@example.com", "a password")
	began := b.Clock.Now()
	b.Clock.Advance(time.Second)
	second := b.OpenSession(t, "ann@example.com")
	b.Clock.Advance(time.Second)
	third := b.OpenSession(t, "ann@example.com")
	bob := b.Given(t, "bob@example.com", "a password")
	sid := func(g session.Grant) string { return b.Session(t, g.RefreshToken) }
	at := func(later time.Duration) string {
		return `"` + began.Add(later).Format("2006-01-02T15:04:05.999Z") + `"`
	}
	entry := func(g session.Grant, current, created, seen, origin string) string {
		return `{"id":"` + sid(g) + `","current":` + current + `,"createdAt":` + created + `,"seenAt":` + seen + `,` + origin + `,"amr":["pwd"]}`
	}
	const unknown = `"agent":"","place":""`
	update := func(email string, set bson.D) {
		if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{{Key: "email", Value: email}}, bson.D{{Key: "$set", Value: set}}); err != nil {
			t.Fatal(err)
		}
	}
	update("ann@example.com", bson.D{
		{Key: "sessions." + sid(second) + ".agent", Value: "Chrome on macOS"}, {Key: "sessions." + sid(second) + ".place", Value: "203.0.113.0/24"},
		{Key: "sessions." + sid(second) + ".rotatedAt", Value: began.Add(2 * time.Second)},
		{Key: "sessions.expired", Value: bson.D{{Key: "expiresAt", Value: began}}},
	})
	b.Play(t,
		endpointtest.Case{Name: "the newest session is first", Call: list(second), Status: http.StatusOK, JSON: `{"sessions":[` +
			entry(third, "false", at(2*time.Second), at(2*time.Second), unknown) + `,` +
			entry(second, "true", at(time.Second), at(2*time.Second), `"agent":"Chrome on macOS","place":"203.0.113.0/24"`) + `,` +
			entry(first, "false", at(0), at(0), unknown) + `]}`}, // stored without an agent and a place, as by earlier versions
		endpointtest.Case{Name: "HEAD has no body", Call: endpointtest.Call{Method: http.MethodHead, Header: endpointtest.Bearer(second.Token)}, Status: http.StatusOK},
	)
	named := func(c endpointtest.Case, name string, call endpointtest.Call) endpointtest.Case {
		c.Name, c.Call = name, call
		return c
	}
	b.Play(t,
		named(noToken, "the list needs a token", endpointtest.Call{}),
		named(noToken, "the end of the others needs a token", endpointtest.Call{Method: http.MethodDelete}),
		named(noToken, "the end of one needs a token", endpointtest.Call{Method: http.MethodDelete, Path: path + "/x"}),
		named(notFound, "an unknown session", end(first, "0123")),
		named(notFound, "a session of another user", end(first, sid(bob))),
		named(notFound, "an expired session", end(first, "expired")),
		named(nothing, "an id with a dot", end(first, sid(second)+".token")),
		named(nothing, "an id with a dollar sign", end(first, "$where")),
		named(nothing, "an id of 129 bytes", end(first, strings.Repeat("a", 129))),
		named(nothing, "a trailing slash", end(first, sid(second)+"/")),
		named(nothing, "no id", end(first, "/")),
	)
	bearer := endpointtest.Bearer(first.Token)
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	for _, call := range []endpointtest.Call{end(first, ""), end(first, sid(second))} {
		cases := endpointtest.At(call.Path, nil, endpointtest.HostileTokens(bearer))
		for i := range cases {
			cases[i].Method = call.Method
		}
		b.Play(t, cases...)
	}
	b.Play(t, endpointtest.OtherMethods(path, "DELETE, GET, HEAD")...)
	b.Play(t, endpointtest.OtherMethods(path+"/x", "DELETE")...)

	sink.Reset()
	checkEmpty(t, b.Do(t, end(first, sid(third))))
	endpointtest.Check(t, notFound, b.Do(t, end(first, sid(third))))
	endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, list(third)))
	fourth := b.OpenSession(t, "ann@example.com")
	sink.Reset()
	b.Clock.Advance(time.Second)
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusOK, JSON: `{"ended":2}`}, b.Do(t, end(first, "")))
	if e := b.Stored(t, "ann@example.com").Entries()[0]; e.Type != "sessionsended" || e.Place != "203.0.113.0/24" || e.Session != sid(first) {
		t.Errorf("got the history entry %+v, want sessionsended with the session and the network of the client", e)
	}
	if types := sink.Types(); !reflect.DeepEqual(types, []string{"signedout", "signedout"}) || !strings.Contains(string(sink.Received()[0].Data()), `"reason":"user"`) {
		t.Errorf("got the events %v, want two ended sessions", sink.Received())
	}
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusOK, JSON: `{"ended":0}`}, b.Do(t, end(first, "")))
	endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, list(fourth)))
	checkEmpty(t, b.Do(t, end(first, sid(first)))) // its own session
	for _, call := range []endpointtest.Call{list(first), end(first, ""), end(first, sid(first))} {
		endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, call))
	}
	if a := b.Do(t, list(bob)); a.Status != http.StatusOK {
		t.Errorf("the session of another user: got %d, want 200", a.Status)
	}
	update("bob@example.com", bson.D{{Key: "disabledAt", Value: began}})
	for _, call := range []endpointtest.Call{list(bob), end(bob, ""), end(bob, sid(bob))} {
		endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, call))
	}
}

// A user signs in again before the session of another device ends. The own session always ends.
func TestSessions_Reauthentication(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, sessions.Function)
	old := b.Given(t, "ann@example.com", "a password")
	other := b.OpenSession(t, "ann@example.com")
	sid := func(g session.Grant) string { return b.Session(t, g.RefreshToken) }
	again := endpointtest.Case{Status: http.StatusUnauthorized, JSON: endpointtest.Errors("You must sign in again for this."),
		Want: http.Header{"Www-Authenticate": {`Bearer error="insufficient_user_authentication", max_age="900"`}}}
	now := b.Clock.Now()
	refreshed := func(age time.Duration) string {
		t.Helper()
		c := b.Claims(t, old.Token)
		c.IssuedAt, c.AuthTime = now, now.Add(-age)
		return b.Issue(t, c)
	}
	for _, call := range []endpointtest.Call{end(old, ""), end(old, sid(other))} {
		call.Header = endpointtest.Bearer(refreshed(15*time.Minute + time.Second))
		endpointtest.Check(t, again, b.Do(t, call))
		call.Header = endpointtest.Bearer(refreshed(0))
		if a := b.Do(t, call); a.Status != http.StatusOK && a.Status != http.StatusNotFound { // the first call has ended it
			t.Errorf("%s: got %d %s, want 200 or 404", call.Path, a.Status, a.Body)
		}
	}
	own := end(old, sid(old))
	own.Header = endpointtest.Bearer(refreshed(time.Hour))
	checkEmpty(t, b.Do(t, own))
}

// Of concurrent requests that end all other sessions, one is first.
func TestSessions_EndEachOther(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, sessions.Function, sink.Setting())
	grants := []session.Grant{b.Given(t, "ann@example.com", "a password")}
	for range 4 {
		grants = append(grants, b.OpenSession(t, "ann@example.com"))
	}
	sink.Reset()
	ended := 0
	for _, a := range b.Race(t, len(grants), func(i int) endpointtest.Call { return end(grants[i], "") }) {
		if a.Status == http.StatusOK && a.Body != `{"ended":0}` {
			ended++
		}
	}
	if n := len(b.Stored(t, "ann@example.com").Sessions); ended != 1 || n != 1 || len(sink.Types()) != 4 {
		t.Errorf("%d requests have ended sessions, %d sessions remain, %d events; want 1, 1 and 4", ended, n, len(sink.Types()))
	}
}
