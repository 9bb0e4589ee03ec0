package life_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/account"
	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/functions/email"
	"ticketing.com/auth/functions/password"
	"ticketing.com/auth/functions/recovery"
	"ticketing.com/auth/functions/relay"
	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/functions/verification"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
)

const (
	secret = "correct horse battery staple"
	next   = "staple battery horse correct"
)

// A system is several functions in one fixture, with their sink.
type system struct {
	*endpointtest.Fixture
	*testing.T
	sink *endpointtest.Sink
}

func start(t *testing.T, settings ...string) system {
	t.Helper()
	all := endpoint.Function{Name: "life"}
	for _, f := range []endpoint.Function{signup.Function, signin.Function, currentuser.Function, account.Function, password.Function, verification.Function, recovery.Function, email.Function, relay.Function} {
		all.Needs = append(all.Needs, f.Needs...)
		all.Endpoints = append(all.Endpoints, f.Endpoints...)
		all.Receivers = append(all.Receivers, f.Receivers...)
	}
	sink := endpointtest.NewSink(t)
	return system{endpointtest.New(t, all, append(settings, "EVENTS=on", sink.Setting())...), t, sink}
}

func (s system) post(path, body string, g session.Grant) endpointtest.Answer {
	s.Helper()
	c := endpointtest.Call{Method: http.MethodPost, Path: "/api/users/" + path, Body: body}
	if g.Token != "" {
		c.Header = endpointtest.Bearer(g.Token)
	}
	return s.Do(s.T, c)
}

// want sends a request and compares the status.
func (s system) want(status int, path, body string, g session.Grant) endpointtest.Answer {
	s.Helper()
	a := s.post(path, body, g)
	if a.Status != status {
		s.Errorf("%s: got %d %s, want %d", path, a.Status, a.Body, status)
	}
	return a
}

func credentials(email, password string) string {
	return fmt.Sprintf(`{"email":%q,"password":%q}`, email, password)
}

func token(m endpointtest.Mail) string { return fmt.Sprintf(`{"token":%q}`, m.Token) }

func reset(m endpointtest.Mail, password string) string {
	return fmt.Sprintf(`{"token":%q,"newPassword":%q}`, m.Token, password)
}

func (s system) signup(email, password string) session.Grant {
	s.Helper()
	return s.want(http.StatusCreated, "signup", credentials(email, password), session.Grant{}).Grant(s.T)
}

func (s system) signin(status int, email, password string) endpointtest.Answer {
	s.Helper()
	return s.want(status, "signin", credentials(email, password), session.Grant{})
}

func (s system) relay() {
	s.Helper()
	s.Clock.Advance(5 * time.Second) // no delivery is in flight
	s.Deliver(s.T, endpointtest.Binary, endpointtest.Event(fmt.Sprint(s.Clock.Now()), "com.ticketing.users.relay.requested.v1", `{}`)).Expect(s.T, http.StatusOK, "", "")
}

func (s system) noErrors() {
	s.Helper()
	if logs := s.Logs(); strings.Contains(logs, `"level":"ERROR"`) || strings.Contains(logs, "@example.com") || strings.Contains(logs, secret) || strings.Contains(logs, next) {
		s.Errorf("an error, an email or a password is in the log: %s", logs)
	}
}

func TestAccount_VerifyAndRecover(t *testing.T) {
	s := start(t)
	g := s.signup("ann@example.com", secret)
	s.want(http.StatusOK, "verification/confirm", token(s.Mail(t, s.sink, event.Verification)), session.Grant{})
	if claims := s.Claims(t, s.signin(http.StatusOK, "ann@example.com", secret).Grant(t).Token); !claims.EmailVerified {
		t.Error("the claim email_verified of the next token is false, want true")
	}
	s.want(http.StatusAccepted, "recovery", `{"email":"ann@example.com"}`, session.Grant{})
	mail := s.Mail(t, s.sink, event.Recovery)
	s.want(http.StatusOK, "recovery/confirm", reset(mail, next), session.Grant{})
	s.want(http.StatusUnauthorized, "verification", "", g)
	s.signin(http.StatusUnauthorized, "ann@example.com", secret)
	second := s.signin(http.StatusOK, "ann@example.com", next).Grant(t)
	s.want(http.StatusOK, "password", `{"currentPassword":"`+next+`","newPassword":"`+secret+`"}`, second)
	s.signin(http.StatusUnauthorized, "ann@example.com", next)
	s.signin(http.StatusOK, "ann@example.com", secret)
	s.noErrors()
}

// An attacker signs up with the email of a victim and requests a change of the email, before the victim
// uses the system.
func TestAccount_PreHijacking(t *testing.T) {
	s := start(t)
	attacker := s.signup("victim@example.com", secret)
	s.want(http.StatusAccepted, "email", `{"email":"attacker@example.com","currentPassword":"`+secret+`"}`, attacker)
	change := s.Mail(t, s.sink, event.EmailChange)
	s.want(http.StatusAccepted, "recovery", `{"email":"victim@example.com"}`, session.Grant{})
	s.want(http.StatusOK, "recovery/confirm", reset(s.Mail(t, s.sink, event.Recovery), next), session.Grant{})
	s.want(http.StatusBadRequest, "email/confirm", token(change), session.Grant{})
	s.want(http.StatusUnauthorized, "email", `{"email":"attacker@example.com","currentPassword":"`+secret+`"}`, attacker)
	s.signin(http.StatusUnauthorized, "victim@example.com", secret)
	s.signin(http.StatusOK, "victim@example.com", next)
	s.noErrors()
}

// An attacker with the password and a session of a victim moves the account to another email.
func TestAccount_Takeover(t *testing.T) {
	s := start(t)
	g := s.signup("victim@example.com", secret)
	s.want(http.StatusAccepted, "email", `{"email":"attacker@example.com","currentPassword":"`+secret+`"}`, g)
	s.want(http.StatusOK, "email/confirm", token(s.Mail(t, s.sink, event.EmailChange)), session.Grant{})
	undo := s.Mail(t, s.sink, event.EmailUndo)
	s.signin(http.StatusUnauthorized, "victim@example.com", secret)
	attacker := s.signin(http.StatusOK, "attacker@example.com", secret).Grant(t)
	s.want(http.StatusAccepted, "account/deletion", `{"currentPassword":"`+secret+`"}`, attacker)
	s.want(http.StatusOK, "email/undo", token(undo), session.Grant{})
	s.want(http.StatusUnauthorized, "email", `{"email":"attacker@example.com","currentPassword":"`+secret+`"}`, attacker)
	s.signin(http.StatusUnauthorized, "attacker@example.com", secret)
	for range 3 {
		s.signin(http.StatusUnauthorized, "victim@example.com", secret) // the password is locked
	}
	s.signin(http.StatusUnauthorized, "victim@example.com", "locked")
	s.want(http.StatusAccepted, "recovery", `{"email":"victim@example.com"}`, session.Grant{})
	s.want(http.StatusOK, "recovery/confirm", reset(s.Mail(t, s.sink, event.Recovery), next), session.Grant{})
	if got := s.signin(http.StatusOK, "victim@example.com", next).Grant(t).User.ID; got != g.User.ID {
		t.Errorf("got the user %s, want %s", got, g.User.ID)
	}
	s.noErrors()
}

func TestAccount_DeletedAndRestored(t *testing.T) {
	s := start(t)
	g := s.signup("ann@example.com", secret)
	s.want(http.StatusAccepted, "account/deletion", `{"currentPassword":"`+secret+`"}`, g)
	refused := s.signin(http.StatusForbidden, "ann@example.com", secret)
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusForbidden, JSON: endpointtest.Errors("This account will be deleted. Restore it to sign in.")}, refused)
	s.signin(http.StatusUnauthorized, "ann@example.com", "wrong password")
	s.want(http.StatusBadRequest, "signup", credentials("ann@example.com", secret), session.Grant{})
	s.relay() // the grace period has not ended
	s.want(http.StatusOK, "account/restore", credentials("ann@example.com", secret), session.Grant{})
	s.signin(http.StatusOK, "ann@example.com", secret)
	s.noErrors()
}

// A retry of a sign-up reveals no more than a new sign-up does.
func TestAccount_SignupRetriedDuringDeletion(t *testing.T) {
	s := start(t)
	call := endpointtest.Call{Method: http.MethodPost, Path: "/api/users/signup", Body: credentials("ann@example.com", secret), Header: http.Header{"Idempotency-Key": {"a-key-of-the-client"}}}
	g := s.Do(t, call).Grant(t)
	s.want(http.StatusAccepted, "account/deletion", `{"currentPassword":"`+secret+`"}`, g)
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusBadRequest, JSON: endpointtest.FieldError("email", "This email is in use.")}, s.Do(t, call))
	s.Clock.Advance(721 * time.Hour)
	s.relay()
	if a := s.Do(t, call); a.Status != http.StatusUnprocessableEntity {
		t.Errorf("the key of an erased account: got %d %s, want 422", a.Status, a.Body)
	}
	s.signup("ann@example.com", secret)
}

func TestAccount_Erased(t *testing.T) {
	for _, grace := range []time.Duration{720 * time.Hour, 0} {
		t.Run(grace.String(), func(t *testing.T) {
			s := start(t, fmt.Sprint("DELETE_GRACE=", grace))
			request := endpointtest.Event("the-signup", "com.ticketing.user.signup.requested.v1", credentials("ann@example.com", secret))
			s.Deliver(t, endpointtest.Binary, request).Expect(t, http.StatusOK, "com.ticketing.user.signup.accepted.v1", `{"user":{"id":"*","email":"ann@example.com"}}`)
			g := s.signin(http.StatusOK, "ann@example.com", secret).Grant(t)
			id := g.User.ID
			s.want(http.StatusAccepted, "account/deletion", `{"currentPassword":"`+secret+`"}`, g)
			s.Clock.Advance(grace)
			if grace > 0 {
				s.signin(http.StatusUnauthorized, "ann@example.com", secret) // before the relay has erased it
				s.want(http.StatusUnauthorized, "account/restore", credentials("ann@example.com", secret), session.Grant{})
				s.relay()
			}
			s.signin(http.StatusUnauthorized, "ann@example.com", secret)
			s.relay()
			s.relay()
			deleted := 0
			for _, e := range s.sink.Received() {
				if e.Type() == "com.ticketing.user.deleted.v1" && string(e.Data()) == `{"userId":"`+id+`"}` {
					deleted++
				}
			}
			if deleted != 1 {
				t.Errorf("got %d events of the deletion, want 1", deleted)
			}

			var tombstone bson.D
			if err := s.Collection(t).FindOne(t.Context(), bson.D{{Key: "_id", Value: id}}).Decode(&tombstone); err != nil {
				t.Fatal(err)
			}
			var members []string
			for _, m := range tombstone {
				members = append(members, m.Key)
			}
			slices.Sort(members)
			if want := []string{"_id", "changes", "email", "ended", "endedAt", "erasedAt", "removeAt"}; !slices.Equal(members, want) {
				t.Errorf("the tombstone has the members %v, want %v", members, want)
			}
			if text := fmt.Sprint(tombstone); strings.Contains(text, "ann") || strings.Contains(text, "203.0.113") || strings.Contains(text, "argon2") {
				t.Errorf("the tombstone %s has personal data", text)
			}

			for range 2 { // a late delivery does not create the account again
				s.Deliver(t, endpointtest.Binary, request).Expect(t, http.StatusOK, "com.ticketing.user.signup.refused.v1", `{"errors":[{"message":"*"}]}`)
			}
			s.signin(http.StatusUnauthorized, "ann@example.com", secret)
			if again := s.signup("ann@example.com", secret); again.User.ID == id {
				t.Error("the new account has the id of the erased one")
			}
			s.noErrors()
		})
	}
}

// A sink that is down does not prevent the deletion. The relay delivers the events later.
func TestAccount_ErasedWhileSinkIsDown(t *testing.T) {
	s := start(t, "DELETE_GRACE=0")
	g := s.signup("ann@example.com", secret)
	s.sink.Answer(func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) })
	s.want(http.StatusAccepted, "account/deletion", `{"currentPassword":"`+secret+`"}`, g)
	s.sink.Answer(nil)
	s.sink.Reset()
	s.relay()
	types := s.sink.Types()
	slices.Sort(types)
	if want := []string{"deleted", "deletionrequested", "mail.requested", "signedout"}; !slices.Equal(types, want) {
		t.Errorf("got the events %v, want %v", types, want)
	}
	var tombstone bson.D
	if err := s.Collection(t).FindOne(t.Context(), bson.D{{Key: "_id", Value: g.User.ID}}).Decode(&tombstone); err != nil || strings.Contains(fmt.Sprint(tombstone), "@example.com") {
		t.Errorf("the tombstone %v has personal data, or %v", tombstone, err)
	}
}
