package currentuser_test

import (
	"net/http"
	"testing"
	"time"

	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
)

func TestCurrentuser(t *testing.T) { endpointtest.EveryTransport(t, currentuser.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "a password")
	ann := `{"currentUser":{"id":"` + g.User.ID + `","email":"ann@example.com"}}`
	bearer := endpointtest.Bearer(g.Token)
	ok := func(name string, c endpointtest.Call, want string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: c, Status: http.StatusOK, JSON: want}
	}
	b.Play(t,
		ok("the bearer of a token is its user", endpointtest.Call{Header: bearer}, ann),
		ok("the scheme is case-insensitive", endpointtest.Call{Header: http.Header{"Authorization": {"bEARER " + g.Token}}}, ann),
		ok("HEAD has the headers and no body", endpointtest.Call{Method: http.MethodHead, Header: bearer}, ""),
		ok("without a token the user is null", endpointtest.Call{}, `{"currentUser":null}`),
		ok("HEAD without a token is fine", endpointtest.Call{Method: http.MethodHead}, ""),
		ok("a token in the query is ignored", endpointtest.Call{Path: "/api/users/currentuser?access_token=" + g.Token}, `{"currentUser":null}`),
		ok("a token in a cookie is ignored", endpointtest.Call{Header: http.Header{"Cookie": {"token=" + g.Token}}}, `{"currentUser":null}`),
		ok("headers that proxies set carry no identity", endpointtest.Call{Header: http.Header{
			"X-User-Id": {g.User.ID}, "X-Forwarded-User": {"ann@example.com"}, "Proxy-Authorization": {"Bearer " + g.Token}}}, `{"currentUser":null}`),
	)
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	for name, header := range endpointtest.OtherSchemes(bearer) {
		b.Play(t, ok(name+" is anonymous", endpointtest.Call{Header: header}, `{"currentUser":null}`))
	}
	b.Play(t, endpointtest.HostileRoutes(currentuser.Function)...)
}

func TestCurrentuser_EndedSession(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *endpointtest.Fixture, session.Grant){
		"signed out": func(t *testing.T, b *endpointtest.Fixture, g session.Grant) {
			if err := b.Users.End(t.Context(), g.User.ID, b.Claims(t, g.Token).Session); err != nil {
				t.Fatal(err)
			}
		},
		"the user is deleted": func(t *testing.T, b *endpointtest.Fixture, g session.Grant) {
			if _, err := b.Collection(t).DeleteOne(t.Context(), map[string]string{"_id": g.User.ID}); err != nil {
				t.Fatal(err)
			}
		},
		"the user is disabled": func(t *testing.T, b *endpointtest.Fixture, g session.Grant) {
			if _, err := b.Collection(t).UpdateOne(t.Context(), map[string]string{"_id": g.User.ID},
				map[string]any{"$set": map[string]any{"disabledAt": b.Clock.Now()}}); err != nil {
				t.Fatal(err)
			}
		},
		"the token has expired": func(_ *testing.T, b *endpointtest.Fixture, _ session.Grant) { b.Clock.Advance(16 * time.Minute) },
		"the session has expired": func(t *testing.T, b *endpointtest.Fixture, g session.Grant) {
			at := "sessions." + b.Claims(t, g.Token).Session + ".expiresAt"
			if _, err := b.Collection(t).UpdateOne(t.Context(), map[string]string{"_id": g.User.ID},
				map[string]any{"$set": map[string]any{at: b.Clock.Now()}}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := endpointtest.New(t, currentuser.Function)
			g := b.Given(t, "ann@example.com", "a password")
			call := endpointtest.Call{Header: endpointtest.Bearer(g.Token)}
			if a := b.Do(t, call); a.Status != http.StatusOK {
				t.Fatalf("before: got status %d, want 200", a.Status)
			}
			end(t, b, g)
			endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, call))
		})
	}
}

func TestCurrentuser_NoSigningKey(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, currentuser.Function, "SIGNING_KEYS=")
	endpointtest.Check(t, endpointtest.Case{Status: 200, JSON: `{"currentUser":null}`}, b.Do(t, endpointtest.Call{}))
}
