package email_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/email"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

const (
	secret    = "correct horse battery staple"
	confirm   = "/api/users/email/confirm"
	undo      = "/api/users/email/undo"
	requested = `{"message":"A mail to the new email is on its way."}`
	changed   = `{"message":"The email is changed."}`
	undone    = `{"message":"The earlier email is restored. Reset the password to sign in."}`
)

func request(g session.Grant, email, password string) endpointtest.Call {
	return endpointtest.Call{Header: endpointtest.Bearer(g.Token), Body: `{"email":"` + email + `","currentPassword":"` + password + `"}`}
}

func byToken(path, token string) endpointtest.Call {
	return endpointtest.Call{Path: path, Body: `{"token":"` + token + `"}`}
}

func ok(status int, json string) endpointtest.Case {
	return endpointtest.Case{Status: status, JSON: json}
}

func bad(field, message string) endpointtest.Case {
	return ok(http.StatusBadRequest, endpointtest.FieldError(field, message))
}

func invalid(field string) endpointtest.Case {
	return bad(field, "This "+field+" is wrong, expired or used. Request a new mail.")
}

var (
	taken   = ok(http.StatusConflict, endpointtest.Errors("Another account has this email."))
	noToken = endpointtest.Case{Status: http.StatusUnauthorized, JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}}
)

const many = "RATE_LIMIT_CONFIRMATION=1000/10m"

func TestEmail(t *testing.T) { endpointtest.EverySink(t, email.Function, play, many) }

func play(t *testing.T, b *endpointtest.Fixture, sink *endpointtest.Sink) {
	g := b.Given(t, "ann@example.com", secret)
	b.Given(t, "bob@example.com", secret)
	named := func(c endpointtest.Case, name string, call endpointtest.Call) endpointtest.Case {
		c.Name, c.Call = name, call
		return c
	}
	const wrong, either = "This is not the current password.", "Send either a token or a code."
	for _, c := range []endpointtest.Case{
		named(bad("currentPassword", wrong), "a wrong password", request(g, "new@example.com", "wrong")),
		named(bad("email", "This is already the email of the account."), "the email of the account", request(g, " ANN@example.com", secret)),
		named(bad("email", "Email must be an address like name@example.com."), "a malformed email", request(g, "ann@example", secret)),
		named(bad("currentPassword", "Password is too long."), "a password over 1 KiB", request(g, "new@example.com", strings.Repeat("x", 1025))),
	} {
		t.Run(c.Name, func(t *testing.T) { endpointtest.Check(t, c, b.Do(t, c.Call)) })
	}
	b.Play(t,
		named(noToken, "a request needs a token", endpointtest.Call{Body: `{}`}),
		named(noToken, "a code needs a token", endpointtest.Call{Path: confirm, Body: `{"code":"123456"}`}),
		named(invalid("token"), "nonsense is no token", byToken(confirm, "nonsense")),
		named(invalid("token"), "nonsense undoes nothing", byToken(undo, "nonsense")),
		named(bad("token", either), "neither token nor code", endpointtest.Call{Path: confirm, Body: `{}`}),
		named(bad("token", either), "a token and a code", endpointtest.Call{Path: confirm, Body: `{"token":"x","code":"123456"}`}),
	)
	bearer := endpointtest.Bearer(g.Token)
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	b.Play(t, endpointtest.At("", bearer, endpointtest.HostileBodies(request(g, "new@example.com", "wrong").Body))...)
	b.Play(t, endpointtest.At(confirm, nil, endpointtest.HostileBodies(`{"token":"x"}`))...)
	b.Play(t, endpointtest.At(undo, nil, endpointtest.HostileBodies(`{"token":"x"}`))...)
	b.Play(t, endpointtest.HostileRoutes(email.Function)...)
	b.Play(t, endpointtest.OtherMethods(confirm, "POST")...)
	b.Play(t, endpointtest.OtherMethods(undo, "POST")...)

	if err := b.Users.RequestRecovery(t.Context(), "ann@example.com", b.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	sink.Reset()
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, request(g, " New@example.com", secret)))
	mail := b.Mail(t, sink, event.EmailChange)
	if mail.To != "new@example.com" || !mail.ExpiresAt.Equal(b.Clock.Now().Add(time.Hour).Truncate(time.Second)) || len(b.Mails(t, sink, event.EmailUndo)) != 0 {
		t.Errorf("got the mail %+v, want one to the new email that expires in an hour", mail.RequestedMail)
	}
	if stored := b.Stored(t, "ann@example.com"); stored.VerifiedAt != nil {
		t.Error("the email is verified before the confirmation")
	}

	sink.Reset()
	b.Clock.Advance(time.Second)
	endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(confirm, mail.Token)))
	endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(confirm, mail.Token)))
	a := b.Stored(t, "new@example.com")
	if a.ID != g.User.ID || a.VerifiedAt == nil || len(a.Pending) != 0 || len(a.Sessions) != 1 || a.Changes != 3 {
		t.Errorf("stored: user %s, verified at %v, %d pending, %d sessions, %d changes; want %s, a time, 0, 1 and 3", a.ID, a.VerifiedAt, len(a.Pending), len(a.Sessions), a.Changes, g.User.ID)
	}
	types := sink.Types()
	slices.Sort(types)
	if want := []string{"emailchanged", "mail.requested"}; !reflect.DeepEqual(types, want) {
		t.Errorf("got the events %v, want %v", types, want)
	}
	for _, e := range sink.Received() {
		if data := string(e.Data()); strings.HasSuffix(e.Type(), "emailchanged.v1") && data != `{"userId":"`+g.User.ID+`","email":"new@example.com","before":"ann@example.com"}` {
			t.Errorf("got the event %s", data)
		}
	}
	notice := b.Mail(t, sink, event.EmailUndo)
	if notice.To != "ann@example.com" || !notice.ExpiresAt.Equal(b.Clock.Now().Add(7*24*time.Hour).Truncate(time.Second)) || notice.Place != "203.0.113.0/24" {
		t.Errorf("got the notice %+v, want one to the earlier email that expires in 7 days", notice.RequestedMail)
	}
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(confirm, notice.Token)))
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(undo, mail.Token)))
	endpointtest.Check(t, bad("email", "This is already the email of the account."), b.Do(t, request(g, "new@example.com", secret))) // the token has the earlier email

	sink.Reset()
	b.Clock.Advance(time.Second)
	endpointtest.Check(t, ok(http.StatusOK, undone), b.Do(t, byToken(undo, notice.Token)))
	endpointtest.Check(t, ok(http.StatusOK, undone), b.Do(t, byToken(undo, notice.Token)))
	a = b.Stored(t, "ann@example.com")
	if a.ID != g.User.ID || a.Password != user.LockedPassword || len(a.Sessions) != 0 || len(a.Undo) != 0 || a.VerifiedAt == nil || a.Changes != 4 {
		t.Errorf("stored: user %s, password %s, %d sessions, %d undos, verified at %v, %d changes; want %s, %s, 0, 0, a time and 4", a.ID, a.Password, len(a.Sessions), len(a.Undo), a.VerifiedAt, a.Changes, g.User.ID, user.LockedPassword)
	}
	types = sink.Types()
	slices.Sort(types)
	if want := []string{"emailchanged", "signedout", "verified"}; !reflect.DeepEqual(types, want) {
		t.Errorf("got the events %v, want %v", types, want)
	}
	b.Clock.Advance(11 * time.Second)
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(undo, notice.Token)))
	endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, request(g, "other@example.com", secret)))
	if logs := b.Logs(); strings.Contains(logs, secret) || strings.Contains(logs, mail.Token) || strings.Contains(logs, notice.Token) || strings.Contains(logs, "@example.com") {
		t.Error("a password, a token or an email is in the log")
	}
}

func TestEmail_ByCode(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, email.Function, sink.Setting())
	g, bob := b.Given(t, "ann@example.com", secret), b.Given(t, "bob@example.com", secret)
	b.Do(t, request(g, "new@example.com", secret))
	code := b.Mail(t, sink, event.EmailChange).Code
	call := func(g session.Grant, code string) endpointtest.Call {
		return endpointtest.Call{Path: confirm, Header: endpointtest.Bearer(g.Token), Body: `{"code":"` + code + `"}`}
	}
	endpointtest.Check(t, invalid("code"), b.Do(t, call(bob, code)))
	for range 4 {
		endpointtest.Check(t, invalid("code"), b.Do(t, call(g, code[1:])))
	}
	endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, call(g, code)))
	if a := b.Do(t, call(g, code)); a.Status != http.StatusTooManyRequests {
		t.Errorf("the sixth code: got %d, want 429", a.Status)
	}
}

// Neither the request nor its mail reveals that another account has the email. The confirmation does.
func TestEmail_OfAnotherAccount(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, email.Function, sink.Setting())
	g := b.Given(t, "ann@example.com", secret)
	b.Given(t, "bob@example.com", secret)
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, request(g, "bob@example.com", secret)))
	endpointtest.Check(t, taken, b.Do(t, byToken(confirm, b.Mail(t, sink, event.EmailChange).Token)))
	if a := b.Stored(t, "ann@example.com"); a.ID != g.User.ID || a.Changes != 1 {
		t.Errorf("got %d changes, want only the request", a.Changes)
	}
	if strings.Contains(b.Logs(), "bob@example.com") {
		t.Error("the email is in the log")
	}
}

// The unique index decides the race of a sign-up and a change to the same email.
func TestEmail_ConcurrentSignup(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, email.Function, sink.Setting(), "RATE_LIMIT=off")
	for round := range 5 {
		g := b.Given(t, fmt.Sprintf("ann%d@example.com", round), secret)
		to := fmt.Sprintf("new%d@example.com", round)
		b.Do(t, request(g, to, secret))
		token := b.Mail(t, sink, event.EmailChange).Token
		created := make(chan error, 1)
		go func() {
			created <- b.Users.Create(t.Context(), user.Registration{User: user.User{ID: session.NewID(), Email: to}, Password: "hash"})
		}()
		a := b.Do(t, byToken(confirm, token))
		err := <-created
		if won := a.Status == http.StatusOK; won == (err == nil) || !won && a.Status != http.StatusConflict || err != nil && err != user.ErrDuplicate {
			t.Errorf("got %d %s and %v, want 200 and %v, or 409 and nil", a.Status, a.Body, err, user.ErrDuplicate)
		}
	}
}

// An attacker that has taken over an account changes the email twice. The owner undoes the first change,
// also after the attacker has reset the password.
func TestEmail_UndoOfFirstChange(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, email.Function, sink.Setting(), many)
	g := b.Given(t, "victim@example.com", secret)
	change := func(to string) endpointtest.Mail {
		t.Helper()
		b.Clock.Advance(time.Second)
		endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, request(g, to, secret)))
		endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(confirm, b.Mail(t, sink, event.EmailChange).Token)))
		return b.Mail(t, sink, event.EmailUndo)
	}
	first, second := change("one@example.com"), change("two@example.com")
	if err := b.Users.RequestRecovery(t.Context(), "two@example.com", b.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	recovery := b.Mail(t, sink, event.Recovery)
	claim, err := b.Users.Claim(t.Context(), g.User.ID, event.Recovery, func(p user.Pending) bool { return p.Nonce == recovery.Nonce }, b.Clock.Now())
	if err == nil {
		err = b.Users.ConfirmRecovery(t.Context(), claim, "the hash of the attacker", user.Origin{}, b.Clock.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	b.Clock.Advance(7*24*time.Hour - 5*time.Second)
	endpointtest.Check(t, ok(http.StatusOK, undone), b.Do(t, byToken(undo, first.Token)))
	a := b.Stored(t, "victim@example.com")
	if a.ID != g.User.ID || a.Password != user.LockedPassword || len(a.Undo) != 0 {
		t.Errorf("stored: user %s, password %s, %d undos; want %s, locked and 0", a.ID, a.Password, len(a.Undo), g.User.ID)
	}
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(undo, second.Token)))
}

// Five undos are stored. None is dropped for a sixth change: otherwise an attacker could remove the first.
func TestEmail_ChangeLimit(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, email.Function, sink.Setting(), many)
	b.Given(t, "ann@example.com", secret)
	current := "ann@example.com"
	change := func(to string) endpointtest.Answer {
		b.Clock.Advance(time.Hour)
		a := b.Do(t, request(b.OpenSession(t, current), to, secret))
		if a.Status == http.StatusAccepted {
			if a = b.Do(t, byToken(confirm, b.Mail(t, sink, event.EmailChange).Token)); a.Status == http.StatusOK {
				current = to
			}
		}
		return a
	}
	for i := range 5 {
		endpointtest.Check(t, ok(http.StatusOK, changed), change(fmt.Sprintf("ann%d@example.com", i)))
	}
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		Want: http.Header{"Retry-After": {"86400"}, "Ratelimit": {`"emailchange";r=0;t=86400`}, "Ratelimit-Policy": {`"emailchange";q=5;w=604800`}}}, change("six@example.com"))
	if n := len(b.Stored(t, current).Undo); n != 5 {
		t.Errorf("%d undos are stored, want 5", n)
	}
	b.Clock.Advance(7 * 24 * time.Hour)
	endpointtest.Check(t, ok(http.StatusOK, changed), change("six@example.com"))
	if n := len(b.Stored(t, current).Undo); n != 1 {
		t.Errorf("%d undos are stored, want 1", n)
	}
}

func TestEmail_UnusableUndo(t *testing.T) {
	t.Parallel()
	past := endpointtest.NewClock().Now().Add(-time.Second)
	for name, c := range map[string]struct {
		change bson.D
		want   endpointtest.Case
	}{
		"a disabled account":             {bson.D{{Key: "disabledAt", Value: past}}, invalid("token")},
		"an account after its deletion":  {bson.D{{Key: "deletesAt", Value: past}}, invalid("token")},
		"an erased account":              {bson.D{{Key: "erasedAt", Value: past}}, invalid("token")},
		"an account during its deletion": {bson.D{{Key: "deletesAt", Value: past.Add(time.Hour)}}, ok(http.StatusOK, undone)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := endpointtest.NewSink(t)
			b := endpointtest.New(t, email.Function, sink.Setting())
			g := b.Given(t, "ann@example.com", secret)
			b.Do(t, request(g, "new@example.com", secret))
			b.Do(t, byToken(confirm, b.Mail(t, sink, event.EmailChange).Token))
			if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{}, bson.D{{Key: "$set", Value: c.change}}); err != nil {
				t.Fatal(err)
			}
			endpointtest.Check(t, c.want, b.Do(t, byToken(undo, b.Mail(t, sink, event.EmailUndo).Token)))
			if a, err := b.Users.AccountByID(t.Context(), g.User.ID); err != nil || (a.Email == "ann@example.com") != (c.want.Status == http.StatusOK) || c.want.Status == http.StatusOK && a.DeletesAt != nil {
				t.Errorf("got the email %s, deleted at %v, %v", a.Email, a.DeletesAt, err)
			}
		})
	}
}

// Another account has taken the earlier email.
func TestEmail_UndoOfTakenEmail(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, email.Function, sink.Setting())
	g := b.Given(t, "ann@example.com", secret)
	b.Do(t, request(g, "new@example.com", secret))
	b.Do(t, byToken(confirm, b.Mail(t, sink, event.EmailChange).Token))
	other := b.Given(t, "ann@example.com", secret)
	token := b.Mail(t, sink, event.EmailUndo).Token
	verified := func(at any) {
		t.Helper()
		if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{{Key: "_id", Value: other.User.ID}}, bson.D{{Key: "$set", Value: bson.D{{Key: "verifiedAt", Value: at}}}}); err != nil {
			t.Fatal(err)
		}
	}
	verified(b.Clock.Now())
	endpointtest.Check(t, taken, b.Do(t, byToken(undo, token)))

	// An account that has not verified the email loses it: the token proves control of the mailbox.
	verified(nil)
	if a := b.Do(t, byToken(undo, token)); a.Status != http.StatusOK {
		t.Errorf("got %d %s, want 200", a.Status, a.Body)
	}
	if a := b.Stored(t, "ann@example.com"); a.ID != g.User.ID {
		t.Errorf("the account %s has the email, want %s", a.ID, g.User.ID)
	}
	a, err := b.Users.AccountByID(t.Context(), other.User.ID)
	if err != nil || a.DisabledAt == nil || len(a.Sessions) != 0 || a.Email != "displaced:"+a.ID {
		t.Errorf("got the other account %+v, %v; want it disabled, without sessions and without the email", a, err)
	}
}

func TestEmail_ParallelConfirms(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, email.Function, sink.Setting(), "RATE_LIMIT=off")
	g := b.Given(t, "ann@example.com", secret)
	b.Do(t, request(g, "new@example.com", secret))
	confirmation := b.Mail(t, sink, event.EmailChange).Token
	for i, path := range []string{confirm, undo} {
		token := confirmation
		if path == undo {
			token = b.Mail(t, sink, event.EmailUndo).Token
		}
		succeeded := 0
		for _, a := range b.Race(t, 50, func(int) endpointtest.Call { return byToken(path, token) }) {
			switch a.Status {
			case http.StatusOK:
				succeeded++
			case http.StatusServiceUnavailable: // a busy machine
			default:
				t.Errorf("%s: got %d %s, want 200 or 503", path, a.Status, a.Body)
			}
		}
		events := 0
		for _, kind := range sink.Types() {
			if kind == "emailchanged" {
				events++
			}
		}
		account, err := b.Users.AccountByID(t.Context(), g.User.ID)
		if err != nil || succeeded == 0 || account.Changes != i+2 || events != i+1 {
			t.Errorf("%s: %d successes, %d changes, %d events, %v; want at least one success, %d changes and %d events", path, succeeded, account.Changes, events, err, i+2, i+1)
		}
	}
}
