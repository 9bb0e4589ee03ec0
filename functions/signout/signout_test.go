package signout_test

import (
	"net/http"
	"testing"
	"time"

	"ticketing.com/auth/functions/signout"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

const done = `{"message":"Signed out."}`

func TestSignout(t *testing.T) { endpointtest.EveryTransport(t, signout.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture) {
	given := func(email string) http.Header {
		return endpointtest.Bearer(b.Given(t, email, "a password").Token)
	}
	again := given("again@example.com")
	b.Do(t, endpointtest.Call{Header: again})
	deleted := given("deleted@example.com")
	if _, err := b.Collection(t).DeleteMany(t.Context(), map[string]string{"email": "deleted@example.com"}); err != nil {
		t.Fatal(err)
	}
	withBody := given("body@example.com")
	withBody.Set("Content-Type", "text/plain")
	ok := func(name string, c endpointtest.Call) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: c, Status: http.StatusOK, JSON: done}
	}
	b.Play(t,
		ok("a live session ends", endpointtest.Call{Header: given("ann@example.com")}),
		ok("an ended session can be ended again", endpointtest.Call{Header: again}),
		ok("a session of a deleted user counts as ended", endpointtest.Call{Header: deleted}),
		ok("a body is ignored", endpointtest.Call{Header: withBody, Body: "bye"}),
		endpointtest.Case{Name: "a token is required", Status: http.StatusUnauthorized,
			JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}},
	)
	b.Play(t, endpointtest.HostileTokens(given("target@example.com"))...)
	for name, header := range endpointtest.OtherSchemes(given("other@example.com")) {
		b.Play(t, endpointtest.Case{Name: name + " is rejected", Call: endpointtest.Call{Header: header}, Status: http.StatusUnauthorized,
			JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}})
	}
	b.Play(t, endpointtest.HostileRoutes(signout.Function)...)
}

// The refresh token of a session is valid for much longer than its access token.
func TestSignout_ExpiredTokenEndsSession(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, signout.Function, expired)
}

func expired(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "a password")
	b.Clock.Advance(29 * 24 * time.Hour)
	done := endpointtest.Case{Call: endpointtest.Call{Header: endpointtest.Bearer(g.Token)}, Status: http.StatusOK, JSON: `{"message":"Signed out."}`}
	for _, done.Name = range []string{"an expired token", "the same token again"} {
		b.Play(t, done)
		if err := live(b, t, g); err != user.ErrSessionEnded {
			t.Errorf("the session: got %v, want ErrEnded", err)
		}
	}
}

func TestSignout_OtherSessionsStayOpen(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signout.Function)
	phone := b.Given(t, "ann@example.com", "a password")
	a := b.Stored(t, "ann@example.com")
	laptop, _ := session.Open(phone.User.ID, b.Clock.Now(), time.Hour)
	if err := b.Users.Open(t.Context(), a, laptop, "", ""); err != nil {
		t.Fatal(err)
	}
	b.Do(t, endpointtest.Call{Header: endpointtest.Bearer(phone.Token)})
	if err := live(b, t, phone); err != user.ErrSessionEnded {
		t.Errorf("the session that was signed out: got %v, want ErrEnded", err)
	}
	if _, err := b.Users.Session(t.Context(), phone.User.ID, laptop.ID, b.Clock.Now()); err != nil {
		t.Errorf("the other session: got %v, want nil", err)
	}
}

func TestSignout_Parallel(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, signout.Function)
	g := b.Given(t, "ann@example.com", "a password")
	for _, a := range b.Race(t, 20, func(int) endpointtest.Call { return endpointtest.Call{Header: endpointtest.Bearer(g.Token)} }) {
		endpointtest.Check(t, endpointtest.Case{Status: 200, JSON: done}, a)
	}
	if err := live(b, t, g); err != user.ErrSessionEnded {
		t.Errorf("the session: got %v, want ErrEnded", err)
	}
}

func live(b *endpointtest.Fixture, t *testing.T, g session.Grant) error {
	t.Helper()
	_, err := b.Users.Session(t.Context(), g.User.ID, sid(t, g), b.Clock.Now())
	return err
}

func sid(t *testing.T, g session.Grant) string {
	t.Helper()
	r, err := session.Parse(g.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	return r.Session
}
