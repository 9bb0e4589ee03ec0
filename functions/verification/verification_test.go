package verification_test

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/verification"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/testing/endpointtest"
)

const (
	secret    = "correct horse battery staple"
	confirm   = "/api/users/verification/confirm"
	requested = `{"message":"A mail is on its way."}`
	verified  = `{"message":"The email is verified."}`
)

func byToken(token string) endpointtest.Call {
	return endpointtest.Call{Path: confirm, Body: `{"token":"` + token + `"}`}
}

func byCode(code string, header http.Header) endpointtest.Call {
	return endpointtest.Call{Path: confirm, Body: `{"code":"` + code + `"}`, Header: header}
}

func ok(status int, json string) endpointtest.Case {
	return endpointtest.Case{Status: status, JSON: json}
}

func invalid(field string) endpointtest.Case {
	return ok(http.StatusBadRequest, endpointtest.FieldError(field, "This "+field+" is wrong, expired or used. Request a new mail."))
}

func noToken() endpointtest.Case {
	return endpointtest.Case{Status: http.StatusUnauthorized, JSON: endpointtest.Errors("A bearer token is needed."), Want: http.Header{"Www-Authenticate": {"Bearer"}}}
}

func TestVerification(t *testing.T) {
	t.Parallel()
	endpointtest.EverySink(t, verification.Function, play, "RATE_LIMIT_CONFIRMATION=1000/10m")
}

func play(t *testing.T, b *endpointtest.Fixture, sink *endpointtest.Sink) {
	g := b.Given(t, "ann@example.com", secret)
	bearer := endpointtest.Bearer(g.Token)
	named := func(c endpointtest.Case, name string, call endpointtest.Call) endpointtest.Case {
		c.Name, c.Call = name, call
		return c
	}
	b.Play(t,
		named(noToken(), "a request needs a token", endpointtest.Call{}),
		named(noToken(), "a code needs a token", byCode("123456", nil)),
		named(invalid("token"), "nonsense is no token", byToken("nonsense")),
		named(invalid("token"), "an empty token is rejected", byToken("")),
		named(ok(http.StatusBadRequest, endpointtest.FieldError("token", "Send either a token or a code.")), "neither", endpointtest.Call{Path: confirm, Body: `{}`}),
		named(ok(http.StatusBadRequest, endpointtest.FieldError("token", "Send either a token or a code.")), "both", endpointtest.Call{Path: confirm, Body: `{"token":"x","code":"123456"}`}),
		named(ok(http.StatusBadRequest, endpointtest.FieldError("token", "token must be a string.")), "a token of another type", endpointtest.Call{Path: confirm, Body: `{"token":{"$ne":""}}`}),
	)
	b.Play(t, endpointtest.HostileTokens(bearer)...)
	b.Play(t, endpointtest.At(confirm, nil, endpointtest.HostileTokens(bearer))...)
	b.Play(t, endpointtest.At(confirm, nil, endpointtest.HostileBodies(`{"token":"x"}`))...)
	b.Play(t, endpointtest.HostileRoutes(verification.Function)...)
	b.Play(t, endpointtest.OtherMethods(confirm, "POST")...)

	sink.Reset()
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, endpointtest.Call{Header: bearer}))
	mail := b.Mail(t, sink, event.Verification)
	now := b.Clock.Now()
	want := event.RequestedMail{UserID: g.User.ID, To: "ann@example.com", Template: event.Verification, Purpose: event.Verification,
		Nonce: mail.Nonce, ExpiresAt: now.Add(24 * time.Hour).Truncate(time.Second), At: now}
	if !reflect.DeepEqual(mail.RequestedMail, want) {
		t.Errorf("got the mail %+v, want %+v", mail.RequestedMail, want)
	}
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, endpointtest.Call{Header: bearer}))
	if again := b.Mail(t, sink, event.Verification); again.Token != mail.Token || len(b.Mails(t, sink, event.Verification)) != 2 {
		t.Errorf("a repeated request: got another token, want a second mail with the same one")
	}

	sink.Reset()
	b.Clock.Advance(time.Second)
	now = b.Clock.Now()
	endpointtest.Check(t, ok(http.StatusOK, verified), b.Do(t, byToken(mail.Token)))
	for range 2 {
		endpointtest.Check(t, ok(http.StatusOK, verified), b.Do(t, byToken(mail.Token)))
		endpointtest.Check(t, ok(http.StatusOK, verified), b.Do(t, byCode(mail.Code, bearer)))
		b.Clock.Advance(5 * time.Second)
	}
	b.Clock.Advance(time.Second)
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(mail.Token)))
	endpointtest.Check(t, ok(http.StatusConflict, endpointtest.Errors("The email is already verified.")), b.Do(t, endpointtest.Call{Header: bearer}))
	if types := sink.Types(); !reflect.DeepEqual(types, []string{"verified"}) || string(sink.Received()[0].Data()) != `{"userId":"`+g.User.ID+`","email":"ann@example.com"}` {
		t.Errorf("got the events %v, want one of a verified email", sink.Received())
	}
	a := b.Stored(t, "ann@example.com")
	if a.VerifiedAt == nil || !a.VerifiedAt.Equal(now) || len(a.Pending) != 0 || len(a.Sessions) != 1 {
		t.Errorf("stored: verified at %v, %d pending, %d sessions; want %v, 0 and 1", a.VerifiedAt, len(a.Pending), len(a.Sessions), now)
	}
	if e := a.Entries()[0]; e.Type != "verified" || e.Place != "203.0.113.0/24" {
		t.Errorf("got the history entry %+v, want verified with the network of the client", e)
	}
}

func TestVerification_ByCode(t *testing.T) { endpointtest.EverySink(t, verification.Function, codes) }

func codes(t *testing.T, b *endpointtest.Fixture, sink *endpointtest.Sink) {
	g := b.Given(t, "ann@example.com", secret)
	bearer := endpointtest.Bearer(g.Token)
	b.Do(t, endpointtest.Call{Header: bearer})
	mail := b.Mail(t, sink, event.Verification)
	other := fmt.Sprintf("%06d", (atoi(mail.Code)+1)%1_000_000)
	limited := endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
		// the clock starts at 03:04:05.678, so the hour ends in 3355 s
		Want: http.Header{"Retry-After": {"3355"}, "Ratelimit": {`"code";r=0;t=3355`}, "Ratelimit-Policy": {`"code";q=5;w=3600`}}}

	bob := b.Given(t, "bob@example.com", secret)
	endpointtest.Check(t, invalid("code"), b.Do(t, byCode(mail.Code, endpointtest.Bearer(bob.Token)))) // of another user
	for _, wrong := range []string{other, mail.Code[:5], mail.Code + "0", "", " " + mail.Code} {
		endpointtest.Check(t, invalid("code"), b.Do(t, byCode(wrong, bearer)))
	}
	endpointtest.Check(t, limited, b.Do(t, byCode(mail.Code, bearer)))
	b.Clock.Advance(time.Hour)
	fresh := endpointtest.Bearer(b.OpenSession(t, "ann@example.com").Token)
	endpointtest.Check(t, ok(http.StatusOK, verified), b.Do(t, byCode(mail.Code, fresh)))

	// a client without a valid session cannot use up the codes of the account
	carol := b.Given(t, "carol@example.com", secret)
	b.Do(t, endpointtest.Call{Header: endpointtest.Bearer(carol.Token)})
	if err := b.Users.End(t.Context(), carol.User.ID, b.Session(t, carol.RefreshToken)); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, byCode("000000", endpointtest.Bearer(carol.Token))))
	}
	next := endpointtest.Bearer(b.OpenSession(t, "carol@example.com").Token)
	endpointtest.Check(t, ok(http.StatusOK, verified), b.Do(t, byCode(b.Mail(t, sink, event.Verification).Code, next)))
}

func atoi(s string) (n int) {
	fmt.Sscanf(s, "%d", &n)
	return n
}

// A token is valid for one user, one purpose, one email and one time, and for an account that can be used.
func TestVerification_TokenOfAnother(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, verification.Function, sink.Setting())
	keys, err := confirmation.ParseKeys(confirmation.Confirming.Secret.Sample())
	if err != nil {
		t.Fatal(err)
	}
	pending := func(email string) endpointtest.Mail {
		g := b.Given(t, email, secret)
		b.Do(t, endpointtest.Call{Header: endpointtest.Bearer(g.Token)})
		return b.Mail(t, sink, event.Verification)
	}
	ann, bob := pending("ann@example.com"), pending("bob@example.com")
	subject := func(m endpointtest.Mail) confirmation.Subject {
		return confirmation.Subject{User: m.UserID, Purpose: m.Purpose, Nonce: m.Nonce, Expires: m.ExpiresAt, Email: m.To}
	}
	for name, change := range map[string]func(*confirmation.Subject){
		"the nonce of another user": func(s *confirmation.Subject) { s.Nonce = bob.Nonce },
		"another user":              func(s *confirmation.Subject) { s.User = bob.UserID },
		"an unknown user":           func(s *confirmation.Subject) { s.User = "unknown" },
		"another purpose":           func(s *confirmation.Subject) { s.Purpose = event.Recovery },
		"another email":             func(s *confirmation.Subject) { s.Email = bob.To },
		"a later expiry":            func(s *confirmation.Subject) { s.Expires = s.Expires.Add(time.Hour) },
	} {
		s := subject(ann)
		change(&s)
		if a := b.Do(t, byToken(keys.Token(s))); a.Status != http.StatusBadRequest {
			t.Errorf("%s: got %d %s, want 400", name, a.Status, a.Body)
		}
	}
	update := func(email string, change bson.D) {
		if _, err := b.Collection(t).UpdateOne(t.Context(), bson.D{{Key: "email", Value: email}}, change); err != nil {
			t.Fatal(err)
		}
	}
	update("ann@example.com", bson.D{{Key: "$set", Value: bson.D{{Key: "disabledAt", Value: b.Clock.Now()}}}})
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(ann.Token)))
	update("ann@example.com", bson.D{{Key: "$unset", Value: bson.D{{Key: "disabledAt", Value: ""}}}})
	update("ann@example.com", bson.D{{Key: "$set", Value: bson.D{{Key: "email", Value: "ann2@example.com"}}}})
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(ann.Token)))
	b.Clock.Advance(24*time.Hour - time.Second)
	endpointtest.Check(t, ok(http.StatusOK, verified), b.Do(t, byToken(bob.Token)))
	carol := pending("carol@example.com")
	b.Clock.Advance(24 * time.Hour)
	endpointtest.Check(t, invalid("token"), b.Do(t, byToken(carol.Token)))
	if got := b.Stored(t, "ann2@example.com").VerifiedAt; got != nil {
		t.Errorf("verified at %v, want never", got)
	}
}

func TestVerification_EndedSession(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, verification.Function)
	g := b.Given(t, "ann@example.com", secret)
	if err := b.Users.End(t.Context(), g.User.ID, b.Session(t, g.RefreshToken)); err != nil {
		t.Fatal(err)
	}
	endpointtest.Check(t, endpointtest.InvalidToken(endpointtest.Case{}), b.Do(t, endpointtest.Call{Header: endpointtest.Bearer(g.Token)}))
}

// Users without a pending confirmation do not use up each other's codes.
func TestVerification_CodesOfOthers(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, verification.Function, sink.Setting())
	ann := endpointtest.Bearer(b.Given(t, "ann@example.com", secret).Token)
	b.Do(t, endpointtest.Call{Header: ann})
	code := b.Mail(t, sink, event.Verification).Code
	other := endpointtest.Bearer(b.Given(t, "bob@example.com", secret).Token)
	for range 5 {
		endpointtest.Check(t, invalid("code"), b.Do(t, byCode("000000", other)))
	}
	for range 2 { // the second one gets the same answer
		endpointtest.Check(t, ok(http.StatusOK, verified), b.Do(t, byCode(code, ann)))
	}
}

func TestVerification_MailLimit(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, verification.Function, sink.Setting())
	b.Given(t, "ann@example.com", secret)
	bearer := func() http.Header { return endpointtest.Bearer(b.OpenSession(t, "ann@example.com").Token) }
	refused := func(after, policy string) endpointtest.Case {
		return endpointtest.Case{Status: http.StatusTooManyRequests, JSON: endpointtest.Errors("Too many requests. Try again later."),
			Want: http.Header{"Retry-After": {after}, "Ratelimit": {`"mail";r=0;t=` + after}, "Ratelimit-Policy": {`"mail";` + policy}}}
	}
	for range 3 { // three an hour
		for range 3 {
			endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, endpointtest.Call{Header: bearer()}))
			b.Clock.Advance(time.Minute)
		}
		endpointtest.Check(t, refused("3420", "q=3;w=3600"), b.Do(t, endpointtest.Call{Header: bearer()}))
		b.Clock.Advance(57 * time.Minute)
	}
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, endpointtest.Call{Header: bearer()}))
	endpointtest.Check(t, refused("75600", "q=10;w=86400"), b.Do(t, endpointtest.Call{Header: bearer()})) // ten a day
	b.Clock.Advance(21 * time.Hour)
	endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, endpointtest.Call{Header: bearer()}))
	b.Clock.Advance(2 * time.Minute)
	for range 2 {
		endpointtest.Check(t, ok(http.StatusAccepted, requested), b.Do(t, endpointtest.Call{Header: bearer()}))
	}
	endpointtest.Check(t, refused("3480", "q=3;w=3600"), b.Do(t, endpointtest.Call{Header: bearer()})) // both; the hour is longer
	if n := len(b.Mails(t, sink, event.Verification)); n != 13 {
		t.Errorf("%d mails were requested, want 13", n)
	}
	if n := len(b.Stored(t, "ann@example.com").Mailed[event.Verification]); n > 10 {
		t.Errorf("%d times are stored, want at most 10", n)
	}
}

func TestVerification_ParallelConfirms(t *testing.T) {
	t.Parallel()
	sink := endpointtest.NewSink(t)
	b := endpointtest.New(t, verification.Function, sink.Setting(), "RATE_LIMIT=off")
	g := b.Given(t, "ann@example.com", secret)
	b.Do(t, endpointtest.Call{Header: endpointtest.Bearer(g.Token)})
	mail := b.Mail(t, sink, event.Verification)
	confirmed := 0
	for _, a := range b.Race(t, 50, func(int) endpointtest.Call { return byToken(mail.Token) }) {
		switch a.Status {
		case http.StatusOK:
			confirmed++
		case http.StatusServiceUnavailable: // a busy machine
		default:
			t.Errorf("got %d %s, want 200 or 503", a.Status, a.Body)
		}
	}
	a := b.Stored(t, "ann@example.com")
	events := 0
	for _, kind := range sink.Types() {
		if kind == "verified" {
			events++
		}
	}
	if confirmed == 0 || a.Changes != 2 || events != 1 { // the request and one confirmation
		t.Errorf("got %d successes, %d changes and %d events; want at least one success, 2 changes and 1 event", confirmed, a.Changes, events)
	}
}
