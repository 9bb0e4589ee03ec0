package recovery_test

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/recovery"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/credentials"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/user"
)

const (
	secret    = "correct horse battery staple"
	next      = "staple battery horse correct"
	confirm   = "/api/users/recovery/confirm"
	requested = `{"message":"If an account has this email, a mail is on its way."}`
	changed   = `{"message":"The password is changed. Sign in with it."}`
)

func request(email string) endpointtest.Call {
	return endpointtest.Call{Body: `{"email":"` + email + `"}`}
}

func byToken(token, password string) endpointtest.Call {
	return endpointtest.Call{Path: confirm, Body: `{"token":"` + token + `","newPassword":"` + password + `"}`}
}

func byCode(email, code, password string) endpointtest.Call {
	return endpointtest.Call{Path: confirm, Body: `{"email":"` + email + `","code":"` + code + `","newPassword":"` + password + `"}`}
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

const many = "RATE_LIMIT_CONFIRMATION=1000/10m"

// TestMain runs more tests at the same time than there are cores, because they wait for the delays of
// the responses.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "16")
	os.Exit(m.Run())
}

func TestRecovery(t *testing.T) {
	t.Parallel()
	endpointtest.EverySink(t, recovery.Function, play, many)
}

func play(t *testing.T, b *endpointtest.Fixture, sink *endpointtest.Sink) {
	g := b.Given(t, "ann.smith@example.com", secret)
	b.OpenSession(t, "ann.smith@example.com")
	if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{}, bson.D{{Key: "$set", Value: bson.D{{Key: "devices." + credentials.Digest(credentials.NewDevice()), Value: b.Clock.Now()}}}}); err != nil {
		t.Fatal(err)
	}
	named := func(c endpointtest.Case, name string, call endpointtest.Call) endpointtest.Case {
		c.Name, c.Call = name, call
		return c
	}
	const either = "Send either a token, or an email and a code."
	b.Play(t,
		named(invalid("token"), "nonsense is no token", byToken("nonsense", next)),
		named(invalid("code"), "a code without a request", byCode("ann.smith@example.com", "123456", next)),
		named(invalid("code"), "an unknown email gets the same response", byCode("unknown@example.com", "123456", next)),
		named(bad("token", either), "neither token nor code", endpointtest.Call{Path: confirm, Body: `{"newPassword":"` + next + `"}`}),
		named(bad("token", either), "an email without a code", endpointtest.Call{Path: confirm, Body: `{"email":"a@example.com","newPassword":"` + next + `"}`}),
		named(bad("token", either), "a token and a code", endpointtest.Call{Path: confirm, Body: `{"token":"x","email":"a@example.com","code":"123456","newPassword":"` + next + `"}`}),
		named(bad("newPassword", "Password is too easy to guess."), "a common password", byToken("x", "password1")),
		named(bad("newPassword", "Password must not be made of your email."), "parts of the email", byCode("ann.smith@example.com", "123456", "ann.smith")),
		named(bad("email", "email must be a string."), "a database operator is no email", endpointtest.Call{Body: `{"email":{"$ne":""}}`}),
		named(bad("email", "Email must be an address like name@example.com."), "a malformed email", request("ann@example")),
	)
	b.Play(t, endpointtest.At(confirm, nil, endpointtest.HostileBodies(byToken("x", next).Body))...)
	b.Play(t, endpointtest.HostileBodies(`{"email":7}`)...)
	b.Play(t, endpointtest.HostileRoutes(recovery.Function)...)
	b.Play(t, endpointtest.OtherMethods(confirm, "POST")...)

	sink.Reset()
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, request("unknown@example.com")))
	if got := sink.Types(); len(got) > 0 {
		t.Errorf("got the events %v for an unknown email, want none", got)
	}
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, request(" Ann.Smith@EXAMPLE.com")))
	mail := b.Mail(t, sink, event.Recovery)
	if mail.To != "ann.smith@example.com" || mail.UserID != g.User.ID || !mail.ExpiresAt.Equal(b.Clock.Now().Add(time.Hour).Truncate(time.Second)) {
		t.Errorf("got the mail %+v, want one to the user that expires in an hour", mail.RequestedMail)
	}
	endpointtest.Check(t, bad("newPassword", "Password must not be made of your email."), b.Do(t, byToken(mail.Token, "ann.smith")))

	sink.Reset()
	b.Clock.Advance(time.Second)
	now := b.Clock.Now()
	endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(mail.Token, next)))
	a := b.Stored(t, "ann.smith@example.com")
	if len(a.Sessions) != 0 || len(a.Pending) != 0 || len(a.Devices) != 0 || a.VerifiedAt == nil || !a.VerifiedAt.Equal(now) || a.Changes != 2 {
		t.Errorf("stored: %d sessions, %d pending, %d devices, verified at %v, %d changes; want 0, 0, 0, %v and 2", len(a.Sessions), len(a.Pending), len(a.Devices), a.VerifiedAt, a.Changes, now)
	}
	if e := a.Entries()[0]; e.Type != "recovered" || e.Place != "203.0.113.0/24" {
		t.Errorf("got the history entry %+v, want recovered with the network of the client", e)
	}
	types := sink.Types()
	slices.Sort(types)
	if want := []string{"mail.requested", "passwordchanged", "signedout", "signedout", "verified"}; !reflect.DeepEqual(types, want) {
		t.Errorf("got the events %v, want %v", types, want)
	}
	for _, e := range sink.Received() {
		if data := string(e.Data()); strings.HasSuffix(e.Type(), "passwordchanged.v1") && data != `{"userId":"`+g.User.ID+`","by":"recovery"}` ||
			strings.HasSuffix(e.Type(), "signedout.v1") && !strings.Contains(data, `"reason":"recovery"`) {
			t.Errorf("got the event %s %s", e.Type(), data)
		}
	}
	for range 2 {
		endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(mail.Token, next)))
		endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byCode("ann.smith@example.com", mail.Code, next)))
		endpointtest.Check(t, invalid("token"), b.Do(t, byToken(mail.Token, next+"!")))
		b.Clock.Advance(5 * time.Second)
	}
	b.Clock.Advance(time.Second)
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(mail.Token, next)))
	if again := b.Stored(t, "ann.smith@example.com"); again.Changes != a.Changes || again.Password != a.Password {
		t.Error("a repeated confirmation has changed the account")
	}
	if logs := b.Logs(); strings.Contains(logs, next) || strings.Contains(logs, mail.Token) || strings.Contains(logs, "ann.smith") {
		t.Error("a password, a token or an email is in the log")
	}
}

// Five codes an hour are compared for an email, with an account or without one.
func TestRecovery_ByCode(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, recovery.Function, sink.Setting())
	b.Given(t, "ann@example.com", secret)
	b.Do(t, request("ann@example.com"))
	code := b.Mail(t, sink, event.Recovery).Code
	limited := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		// the clock starts at 03:04:05.678, so the hour ends in 3355 s
		Want: http.Header{"Retry-After": {"3355"}, "Ratelimit": {`"code";r=0;t=3355`}, "Ratelimit-Policy": {`"code";q=5;w=3600`}}}
	for _, email := range []string{"ann@example.com", "unknown@example.com"} {
		for range 5 {
			endpointtest.Check(t, invalid("code"), b.Do(t, byCode(email, code[1:], next)))
		}
		endpointtest.Check(t, limited, b.Do(t, byCode(email, code, next)))
	}
	b.Clock.Advance(time.Hour - 6*time.Second) // the next window of codes, and the token is still valid
	endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byCode(" ANN@example.com", code, next)))
	if a := b.Stored(t, "ann@example.com"); a.VerifiedAt == nil || len(a.Sessions) != 0 {
		t.Errorf("verified at %v, %d sessions; want a time and 0", a.VerifiedAt, len(a.Sessions))
	}
}

func TestRecovery_UnusableAccount(t *testing.T) {
	t.Parallel()
	past := endpointtest.NewClock().Now().Add(-time.Second)
	for name, change := range map[string]bson.D{
		"disabled":                 {{Key: "disabledAt", Value: past}},
		"after the grace period":   {{Key: "deletesAt", Value: past}},
		"with another email":       {{Key: "email", Value: "other@example.com"}},
		"erased":                   {{Key: "erasedAt", Value: past}},
		"with an expired recovery": {{Key: "pending.recovery.expiresAt", Value: past}},
		"with a used recovery":     {{Key: "pending.recovery.nonce", Value: "ANOTHER"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := endpointtest.NewSink(t)
			b := endpointtest.New(t, recovery.Function, sink.Setting())
			g := b.Given(t, "ann@example.com", secret)
			b.Do(t, request("ann@example.com"))
			token := b.Mail(t, sink, event.Recovery).Token
			if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{}, bson.D{{Key: "$set", Value: change}}); err != nil {
				t.Fatal(err)
			}
			endpointtest.Check(t, invalid("token"), b.Do(t, byToken(token, next)))
			if name == "with an expired recovery" || name == "with a used recovery" {
				return
			}
			sink.Reset()
			endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, request("ann@example.com")))
			if got := sink.Types(); len(got) > 0 {
				t.Errorf("got the events %v, want none", got)
			}
			if a, err := b.Users.AccountByID(t.Context(), g.User.ID); err != nil || a.Changes != 1 || a.VerifiedAt != nil {
				t.Errorf("got %d changes, verified at %v, %v; want one change and no verification", a.Changes, a.VerifiedAt, err)
			}
		})
	}
}

// The owner of an email that an attacker has signed up recovers the account. Whatever the attacker has
// set before ends.
func TestRecovery_AfterPreHijacking(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, recovery.Function, sink.Setting())
	g := b.Given(t, "victim@example.com", secret)
	a := b.Stored(t, "victim@example.com")
	if err := b.Users.RequestEmailChange(t.Context(), a, b.Session(t, g.RefreshToken), "attacker@example.com", user.Origin{}, b.Clock.Now()); err != nil {
		t.Fatal(err)
	}
	change := b.Mail(t, sink, event.EmailChange)
	b.Do(t, request("victim@example.com"))
	endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(b.Mail(t, sink, event.Recovery).Token, next)))
	if _, err := b.Users.Claim(t.Context(), a.ID, event.EmailChange, func(p user.Pending) bool { return p.Nonce == change.Nonce }, b.Clock.Now()); err != user.ErrNotPending {
		t.Errorf("the change of the email that the attacker requested: got %v, want %v", err, user.ErrNotPending)
	}
	if _, err := b.Users.SignedIn(t.Context(), a.ID, b.Session(t, g.RefreshToken), b.Clock.Now()); err != user.ErrSessionEnded {
		t.Errorf("the session of the attacker: got %v, want %v", err, user.ErrSessionEnded)
	}
}

// An undo of a change of the email locks the password. A repeated confirmation has lost its effect.
func TestRecovery_RepeatedAfterUndo(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, recovery.Function, sink.Setting())
	b.Given(t, "ann@example.com", secret)
	b.Do(t, request("ann@example.com"))
	token := b.Mail(t, sink, event.Recovery).Token
	for range 2 {
		endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(token, next)))
	}
	if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{}, bson.D{{Key: "$set", Value: bson.D{{Key: "password", Value: user.LockedPassword}}}}); err != nil {
		t.Fatal(err)
	}
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(token, next)))
}

// 50 concurrent confirmations have one result. Only clients with the password of the first one succeed.
func TestRecovery_ParallelConfirms(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, recovery.Function, sink.Setting(), "RATE_LIMIT=off", "HASH_CONCURRENCY=50")
	b.Given(t, "ann@example.com", secret)
	b.Do(t, request("ann@example.com"))
	token := b.Mail(t, sink, event.Recovery).Token
	sink.Reset()
	succeeded := map[int]int{} // by password
	for i, a := range b.Race(t, 50, func(i int) endpointtest.Call { return byToken(token, fmt.Sprint(next, i%2)) }) {
		switch a.Status {
		case http.StatusOK:
			succeeded[i%2]++
		case http.StatusBadRequest, http.StatusServiceUnavailable:
		default:
			t.Errorf("got %d %s, want 200, 400 or 503", a.Status, a.Body)
		}
	}
	events := 0
	for _, kind := range sink.Types() {
		if kind == "passwordchanged" {
			events++
		}
	}
	if a := b.Stored(t, "ann@example.com"); len(succeeded) != 1 || a.Changes != 2 || events != 1 {
		t.Errorf("successes by password: %v; %d changes, %d events; want one password, 2 changes and 1 event", succeeded, a.Changes, events)
	}
}

// The owner has proved control of the email, so earlier failures do not delay the next sign-in.
func TestRecovery_ResetsAccountLimit(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	var checker *credentials.Checker
	f := recovery.Function
	f.Endpoints = append(slices.Clone(f.Endpoints), endpoint.Define(endpoint.Spec{ID: "probe", Method: http.MethodPost, Path: "/probe", Access: endpoint.Public, Success: http.StatusNoContent, Summary: "x"},
		func(cfg *config.Config) struct{} { checker = credentials.FromConfig(cfg); return struct{}{} },
		func(struct{}, context.Context, endpoint.None) (endpoint.None, error) { return endpoint.None{}, nil }))
	b := endpointtest.New(t, f, sink.Setting())
	b.Given(t, "ann@example.com", secret)
	signIn := func(password string) error {
		return checker.Check(t.Context(), credentials.Claim{Client: endpoint.Client{Peer: "192.0.2.1:1"}, Email: "ann@example.com", Password: password,
			Find: func(ctx context.Context) (user.Account, error) { return b.Users.Account(ctx, "ann@example.com") }},
			func(context.Context, credentials.Proof) error { return nil })
	}
	for range 12 {
		signIn("wrong")
	}
	if err := signIn(secret); err == nil {
		t.Fatal("the account has no limit after 10 failures")
	}
	b.Do(t, request("ann@example.com"))
	endpointtest.Check(t, ok(http.StatusOK, changed), b.Do(t, byToken(b.Mail(t, sink, event.Recovery).Token, next)))
	b.Clock.Advance(time.Second) // for which a process remembers a rejection
	if err := signIn(next); err != nil {
		t.Errorf("a sign-in with the new password: got %v, want nil", err)
	}
}
