package password_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/text/unicode/norm"

	"ticketing.com/auth/functions/password"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

const (
	secret = "correct horse battery staple"
	next   = "staple battery horse correct"
)

func body(current, chosen string) string {
	return `{"currentPassword":"` + current + `","newPassword":"` + chosen + `"}`
}

func ok(name, request, want string) endpointtest.Case {
	return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: request}, Status: http.StatusOK, JSON: want}
}

func bad(name, request, field, message string) endpointtest.Case {
	return endpointtest.Case{Name: name, Call: endpointtest.Call{Body: request}, Status: http.StatusBadRequest, JSON: endpointtest.FieldError(field, message)}
}

const (
	wrong   = "This is not the current password."
	ofEmail = "Password must not be made of your email."
)

func TestPassword(t *testing.T) { endpointtest.EverySink(t, password.Function, play) }

func play(t *testing.T, b *endpointtest.Fixture, sink *endpointtest.Sink) {
	g := b.Given(t, "ann.smith@example.com", secret)
	bearer := endpointtest.Bearer(g.Token)
	const same, guessable = "The new password must differ from the current one.", "Password is too easy to guess."
	composed := "Schl\u00fcsselbund-27"
	refused := endpointtest.At("", bearer, []endpointtest.Case{
		bad("a wrong password", body("wrong", next), "currentPassword", wrong),
		bad("an empty password", body("", next), "currentPassword", wrong),
		bad("the password in another case", body(strings.ToUpper(secret), next), "currentPassword", wrong),
		bad("a password over 1 KiB", body(strings.Repeat("x", 1025), next), "currentPassword", "Password is too long."),
		bad("the same password", body(secret, secret), "newPassword", same),
		bad("the same password in another Unicode form", body(composed, norm.NFD.String(composed)), "newPassword", same),
		bad("a short password", body(secret, "short"), "newPassword", "Password must have at least 8 characters."),
		bad("a common password", body(secret, "password1"), "newPassword", guessable),
		bad("parts of the email", body(secret, "ann.smith"), "newPassword", ofEmail),
		bad("a database operator", `{"currentPassword":{"$ne":""},"newPassword":"`+next+`"}`, "currentPassword", "currentPassword must be a string."),
		{Name: "all invalid members are listed", Call: endpointtest.Call{Body: `{}`}, Status: http.StatusBadRequest,
			JSON: `{"errors":[{"message":"currentPassword is missing.","field":"currentPassword"},{"message":"newPassword is missing.","field":"newPassword"}]}`},
	})
	for _, c := range refused { // one at a time: attempts in flight count toward the limit
		c.Device = credentials.NewDevice() // a client with an unknown token has no limit of its own
		t.Run(c.Name, func(t *testing.T) { endpointtest.Check(t, c, b.Do(t, c.Call)) })
	}
	b.Play(t, endpointtest.Case{Name: "a token is required", Call: endpointtest.Call{Body: body(secret, next)}, Status: http.StatusUnauthorized,
		JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}})
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	b.Play(t, endpointtest.At("", bearer, endpointtest.HostileBodies(body("wrong", next)))...)
	b.Play(t, endpointtest.HostileRoutes(password.Function)...)
	if a := b.Stored(t, "ann.smith@example.com"); a.Changes != 0 {
		t.Errorf("%d changes, want none", a.Changes)
	}

	others := []session.Grant{b.OpenSession(t, "ann.smith@example.com"), b.OpenSession(t, "ann.smith@example.com")}
	sink.Reset()
	change := endpointtest.At("", bearer, []endpointtest.Case{ok("", body(secret, next), `{"ended":2}`)})[0]
	endpointtest.Check(t, change, b.Do(t, change.Call))
	a := b.Stored(t, "ann.smith@example.com")
	if _, current := a.Sessions[b.Session(t, g.RefreshToken)]; !current || len(a.Sessions) != 1 || a.Changes != 1 {
		t.Errorf("got %d sessions after %d changes, want that of the client after one", len(a.Sessions), a.Changes)
	}
	endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, endpointtest.Call{Body: body(next, secret), Header: endpointtest.Bearer(others[0].Token)}))
	types := sink.Types()
	slices.Sort(types)
	if want := []string{"mail.requested", "passwordchanged", "signedout", "signedout"}; !reflect.DeepEqual(types, want) {
		t.Errorf("got the events %v, want %v", types, want)
	}
	for _, e := range sink.Received() {
		if data := string(e.Data()); strings.HasSuffix(e.Type(), "passwordchanged.v1") && data != `{"userId":"`+g.User.ID+`","by":"user"}` ||
			strings.HasSuffix(e.Type(), "signedout.v1") && !strings.Contains(data, `"reason":"password"`) {
			t.Errorf("got the event %s %s", e.Type(), data)
		}
	}
	if m := b.Mail(t, sink, event.PasswordNotice); m.To != "ann.smith@example.com" || m.Nonce != "" || m.Place != "203.0.113.0/24" {
		t.Errorf("got the mail %+v, want a notice without a nonce", m.RequestedMail)
	}
	endpointtest.Check(t, endpointtest.At("", bearer, []endpointtest.Case{bad("", body(secret, next+"!"), "currentPassword", wrong)})[0],
		b.Do(t, endpointtest.Call{Body: body(secret, next+"!"), Header: bearer}))
	back := ok("", body(next, secret), `{"ended":0}`)
	endpointtest.Check(t, back, b.Do(t, endpointtest.Call{Body: back.Body, Header: bearer}))
	if logs := b.Logs(); strings.Contains(logs, secret) || strings.Contains(logs, next) {
		t.Error("a password is in the log")
	}
}

// Wrong passwords count toward the limit of the account, which sign-ins share. A client with the device
// token of an earlier sign-in has its own.
func TestPassword_AccountLimit(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, password.Function, func(t *testing.T, b *endpointtest.Fixture) {
		bearer := endpointtest.Bearer(b.Given(t, "ann@example.com", secret).Token)
		device := credentials.NewDevice()
		if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{}, bson.D{{Key: "$set", Value: bson.D{{Key: "devices." + credentials.Digest(device), Value: b.Clock.Now()}}}}); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			c := bad("", body("wrong", next), "currentPassword", wrong)
			endpointtest.Check(t, c, b.Do(t, endpointtest.Call{Body: c.Body, Header: bearer, From: fmt.Sprint("198.51.100.", i)}))
		}
		limited := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			Want: http.Header{"Retry-After": {"1"}, "Ratelimit": {`"account";r=0;t=1`}, "Ratelimit-Policy": {`"account";q=10;w=900`}}}
		endpointtest.Check(t, limited, b.Do(t, endpointtest.Call{Body: body(secret, next), Header: bearer}))
		right := ok("", body(secret, next), `{"ended":0}`)
		endpointtest.Check(t, right, b.Do(t, endpointtest.Call{Body: right.Body, Header: bearer, Device: device}))
	})
}

func TestPassword_UnusableAccount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change bson.D
		want   endpointtest.Case
	}{
		"disabled":           {bson.D{{Key: "disabledAt", Value: time.Now()}}, endpointtest.InvalidToken(endpointtest.Case{})},
		"without sessions":   {bson.D{{Key: "sessions", Value: bson.D{}}}, endpointtest.InvalidToken(endpointtest.Case{})},
		"erased":             {bson.D{{Key: "erasedAt", Value: time.Now()}}, endpointtest.InvalidToken(endpointtest.Case{})},
		"locked":             {bson.D{{Key: "password", Value: user.LockedPassword}}, bad("", "", "currentPassword", wrong)},
		"of an email change": {bson.D{{Key: "email", Value: "staple.battery@example.com"}}, bad("", "", "newPassword", ofEmail)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := endpointtest.New(t, password.Function)
			g := b.Given(t, "ann@example.com", secret)
			if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{}, bson.D{{Key: "$set", Value: c.change}}); err != nil {
				t.Fatal(err)
			}
			endpointtest.Check(t, c.want, b.Do(t, endpointtest.Call{Body: body(secret, "staple.battery"), Header: endpointtest.Bearer(g.Token)}))
			if strings.Contains(b.Logs(), `"level":"ERROR"`) {
				t.Errorf("got an error in the log: %s", b.Logs())
			}
		})
	}
}

// A client that knew the earlier password may have requested a recovery or a change of the email.
func TestPassword_EndsPendingConfirmations(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, password.Function, endpointtest.NewSink(t).Setting())
	g := b.Given(t, "ann@example.com", secret)
	a := b.Stored(t, "ann@example.com")
	now := b.Clock.Now()
	if err := b.Users.RequestRecovery(t.Context(), a.Email, now); err != nil {
		t.Fatal(err)
	}
	if err := b.Users.RequestEmailChange(t.Context(), a, b.Session(t, g.RefreshToken), "attacker@example.com", user.Origin{}, now); err != nil {
		t.Fatal(err)
	}
	if err := b.Users.RequestVerification(t.Context(), a.ID, b.Session(t, g.RefreshToken), now); err != nil {
		t.Fatal(err)
	}
	right := ok("", body(secret, next), `{"ended":0}`)
	endpointtest.Check(t, right, b.Do(t, endpointtest.Call{Body: right.Body, Header: endpointtest.Bearer(g.Token)}))
	pending := b.Stored(t, "ann@example.com").Pending
	if _, verification := pending[event.Verification]; !verification || len(pending) != 1 {
		t.Errorf("got the pending confirmations %v, want only the verification", pending)
	}
}

// Of concurrent changes, one is first. The others have a wrong current password.
func TestPassword_ParallelChanges(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, password.Function, "HASH_CONCURRENCY=8", "RATE_LIMIT=off")
	g := b.Given(t, "ann@example.com", secret)
	changed := 0
	for _, a := range b.Race(t, 8, func(i int) endpointtest.Call {
		return endpointtest.Call{Body: body(secret, fmt.Sprint(next, i)), Header: endpointtest.Bearer(g.Token)}
	}) {
		switch a.Status {
		case http.StatusOK:
			changed++
		case http.StatusBadRequest, http.StatusServiceUnavailable:
		default:
			t.Errorf("got %d %s, want 200, 400 or 503", a.Status, a.Body)
		}
	}
	if stored := b.Stored(t, "ann@example.com"); changed != 1 || stored.Changes != 1 {
		t.Errorf("%d successes and %d changes, want one", changed, stored.Changes)
	}
}
