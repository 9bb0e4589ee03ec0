package account_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/account"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

const (
	secret   = "correct horse battery staple"
	path     = "/api/users/account"
	deletion = path + "/deletion"
	restore  = path + "/restore"
	restored = `{"message":"The account is restored. Sign in."}`
)

func remove(g session.Grant, password string) endpointtest.Call {
	return endpointtest.Call{Method: http.MethodPost, Path: deletion, Header: endpointtest.Bearer(g.Token), Body: `{"currentPassword":"` + password + `"}`}
}

func restoring(email, password string) endpointtest.Call {
	return endpointtest.Call{Method: http.MethodPost, Path: restore, Body: `{"email":"` + email + `","password":"` + password + `"}`}
}

func ok(status int, json string) endpointtest.Case {
	return endpointtest.Case{Status: status, JSON: json}
}

func bad(field, message string) endpointtest.Case {
	return ok(http.StatusBadRequest, endpointtest.FieldError(field, message))
}

func set(t *testing.T, b *endpointtest.Fixture, email string, members ...bson.E) {
	t.Helper()
	if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{{Key: "email", Value: email}}, bson.D{{Key: "$set", Value: bson.D(members)}}); err != nil {
		t.Fatal(err)
	}
}

func text(at time.Time) string { return at.Format("2006-01-02T15:04:05.999Z") }

var (
	noToken = endpointtest.Case{Status: http.StatusUnauthorized, JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}}
	wrong   = endpointtest.Case{Status: http.StatusUnauthorized, JSON: endpointtest.Errors("Email or password is wrong."), Want: http.Header{"Www-Authenticate": {"Bearer"}}}
	current = bad("currentPassword", "This is not the current password.")
)

func posts(cases []endpointtest.Case) []endpointtest.Case {
	for i := range cases {
		cases[i].Method = http.MethodPost
	}
	return cases
}

func TestAccount(t *testing.T) { endpointtest.EveryTransport(t, account.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", secret)
	bearer := endpointtest.Bearer(g.Token)
	verified, imported := b.Given(t, "bob@example.com", secret), b.Given(t, "imported@example.com", secret)
	set(t, b, "bob@example.com", bson.E{Key: "verifiedAt", Value: b.Clock.Now()}, bson.E{Key: "roles", Value: bson.A{"admin", 7}})
	if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{{Key: "email", Value: "imported@example.com"}}, bson.D{{Key: "$unset", Value: bson.D{{Key: "createdAt", Value: ""}}}}); err != nil {
		t.Fatal(err)
	}
	created := `"createdAt":"` + text(b.Clock.Now()) + `",`
	shows := func(name string, g session.Grant, more string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Header: endpointtest.Bearer(g.Token)}, Status: http.StatusOK,
			JSON: `{"account":{"id":"` + g.User.ID + `","email":"` + g.User.Email + `",` + more + `,"factors":[]}}`}
	}
	named := func(c endpointtest.Case, name string, call endpointtest.Call) endpointtest.Case {
		c.Name, c.Call = name, call
		return c
	}
	b.Play(t,
		shows("a new account", g, created+`"emailVerified":false,"roles":[]`),
		shows("a verified email and roles", verified, created+`"emailVerified":true,"roles":["admin"]`),
		shows("an imported account", imported, `"emailVerified":false,"roles":[]`),
		endpointtest.Case{Name: "HEAD has no body", Call: endpointtest.Call{Method: http.MethodHead, Header: bearer}, Status: http.StatusOK},
		named(noToken, "the account needs a token", endpointtest.Call{}),
		named(noToken, "the deletion needs a token", endpointtest.Call{Method: http.MethodPost, Path: deletion, Body: `{}`}),
		named(bad("email", "Email must be an address like name@example.com."), "a malformed email", restoring("ann", secret)),
		named(bad("password", "Password is too long."), "a password over 1 KiB", restoring("ann@example.com", strings.Repeat("x", 1025))),
		named(bad("currentPassword", "Password is too long."), "a current password over 1 KiB", remove(g, strings.Repeat("x", 1025))),
		named(bad("currentPassword", "currentPassword must be a string."), "a database operator", endpointtest.Call{Method: http.MethodPost, Path: deletion, Header: bearer, Body: `{"currentPassword":{"$ne":""}}`}),
	)
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	b.Play(t, posts(endpointtest.At(deletion, nil, endpointtest.HostileTokens(bearer)))...)
	b.Play(t, posts(endpointtest.At(deletion, bearer, endpointtest.HostileBodies(`{"currentPassword":"wrong"}`)))...)
	b.Play(t, posts(endpointtest.At(restore, nil, endpointtest.HostileBodies(`{"email":"ann@example.com","password":"wrong"}`)))...)
	b.Play(t, endpointtest.OtherMethods(deletion, "POST")...)
	b.Play(t, endpointtest.OtherMethods(restore, "POST")...)
	b.Play(t, endpointtest.HostileRoutes(account.Function)...)
	set(t, b, "bob@example.com", bson.E{Key: "disabledAt", Value: b.Clock.Now()})
	for _, call := range []endpointtest.Call{{Header: endpointtest.Bearer(verified.Token)}, remove(verified, secret)} {
		endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, call))
	}
	endpointtest.Check(t, wrong, b.Do(t, restoring("bob@example.com", secret)))
}

func TestAccount_Deletion(t *testing.T) { endpointtest.EverySink(t, account.Function, deletes) }

func deletes(t *testing.T, b *endpointtest.Fixture, sink *endpointtest.Sink) {
	g := b.Given(t, "ann@example.com", secret)
	b.OpenSession(t, "ann@example.com")
	if err := b.Users.RequestRecovery(t.Context(), "ann@example.com", b.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	sink.Reset()
	b.Clock.Advance(time.Second)
	endpointtest.Check(t, current, b.Do(t, remove(g, "wrong")))
	due := b.Clock.Now().Add(720 * time.Hour)
	endpointtest.Check(t, ok(http.StatusAccepted, `{"deletesAt":"`+text(due)+`"}`), b.Do(t, remove(g, secret)))
	a := b.Stored(t, "ann@example.com")
	if a.DeletesAt == nil || !a.DeletesAt.Equal(due) || len(a.Sessions) != 0 || len(a.Pending) != 0 || a.Changes != 2 || a.Entries()[0].Type != "deletionrequested" {
		t.Errorf("stored: deletion at %v, %d sessions, %d pending, %d changes, %v; want %v, 0, 0 and 2", a.DeletesAt, len(a.Sessions), len(a.Pending), a.Changes, a.Entries()[0], due)
	}
	types := sink.Types()
	slices.Sort(types)
	if want := []string{"deletionrequested", "mail.requested", "signedout", "signedout"}; !reflect.DeepEqual(types, want) {
		t.Errorf("got the events %v, want %v", types, want)
	}
	if m := b.Mail(t, sink, event.DeletionNotice); m.To != "ann@example.com" || !m.DeletesAt.Equal(due) || m.Nonce != "" {
		t.Errorf("got the mail %+v, want a notice with the time of the deletion", m.RequestedMail)
	}
	for _, call := range []endpointtest.Call{{Header: endpointtest.Bearer(g.Token)}, remove(g, secret)} {
		endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, call))
	}

	endpointtest.Check(t, wrong, b.Do(t, restoring("ann@example.com", "wrong")))
	endpointtest.Check(t, wrong, b.Do(t, restoring("unknown@example.com", secret)))
	b.Clock.Advance(720*time.Hour - time.Millisecond)
	for range 2 { // a lost response is no error
		endpointtest.Check(t, ok(http.StatusOK, restored), b.Do(t, restoring(" ANN@example.com", secret)))
	}
	if a = b.Stored(t, "ann@example.com"); a.DeletesAt != nil || a.Changes != 3 || a.Entries()[0].Type != "restored" {
		t.Errorf("stored: deletion at %v, %d changes, %v; want none, 3 and restored", a.DeletesAt, a.Changes, a.Entries()[0])
	}

	again := b.OpenSession(t, "ann@example.com")
	if a := b.Do(t, remove(again, secret)); a.Status != http.StatusAccepted {
		t.Fatalf("got %d %s, want 202", a.Status, a.Body)
	}
	b.Clock.Advance(720 * time.Hour)
	endpointtest.Check(t, wrong, b.Do(t, restoring("ann@example.com", secret)))
	if logs := b.Logs(); strings.Contains(logs, secret) || strings.Contains(logs, "@example.com") || strings.Contains(logs, `"level":"ERROR"`) {
		t.Errorf("a password, an email or an error is in the log: %s", logs)
	}
}

func TestAccount_NoGrace(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, account.Function, sink.Setting(), "DELETE_GRACE=0")
	g := b.Given(t, "ann@example.com", secret)
	endpointtest.Check(t, ok(http.StatusAccepted, `{"deletesAt":"`+text(b.Clock.Now())+`"}`), b.Do(t, remove(g, secret)))
	if _, err := b.Users.Account(t.Context(), "ann@example.com"); err != user.ErrNotFound {
		t.Errorf("got %v, want %v", err, user.ErrNotFound)
	}
	if types := sink.Types(); types[len(types)-1] != "deleted" || string(sink.Received()[len(types)-1].Data()) != `{"userId":"`+g.User.ID+`"}` {
		t.Errorf("got the events %v, want deleted as the last one", sink.Received())
	}
	endpointtest.Check(t, wrong, b.Do(t, restoring("ann@example.com", secret)))
}

// The deletion and the restoration count wrong passwords of the account together.
func TestAccount_AccountLimit(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, account.Function)
	g := b.Given(t, "ann@example.com", secret)
	for i := range 5 {
		for _, call := range []endpointtest.Call{remove(g, "wrong"), restoring("ann@example.com", "wrong")} {
			call.From = fmt.Sprint("198.51.100.", i)
			if a := b.Do(t, call); a.Status != http.StatusBadRequest && a.Status != http.StatusUnauthorized {
				t.Errorf("got %d %s, want 400 or 401", a.Status, a.Body)
			}
		}
	}
	for _, call := range []endpointtest.Call{remove(g, secret), restoring("ann@example.com", secret)} {
		endpointtest.Check(t, endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			Want: http.Header{"Retry-After": {"1"}, "Ratelimit": {`"account";r=0;t=1`}, "Ratelimit-Policy": {`"account";q=10;w=900`}}}, b.Do(t, call))
	}
}
