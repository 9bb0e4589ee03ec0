package introspect_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/functions/introspect"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/endpointtest"
)

func TestIntrospect(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, introspect.Function, play)
}

func basic(credentials string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))}}
}

// tickets are the credentials of the service in the tests.
func tickets() http.Header { return basic(identity.Clients.Secret.Sample()) }

func form(access string) string { return url.Values{"token": {access}}.Encode() }

func play(t *testing.T, b *endpointtest.Fixture) {
	g := b.Given(t, "ann@example.com", "a password")
	claims := b.Claims(t, g.Token)
	active := fmt.Sprintf(`{"active":true,"token_type":"Bearer","iss":"ticketing","aud":"ticketing","sub":%q,"sid":%q,"jti":%q,"client_id":"web",`+
		`"iat":%d,"exp":%d,"auth_time":%d,"amr":["pwd"],"acr":"aal1","email":"ann@example.com","email_verified":false}`,
		g.User.ID, claims.Session, claims.ID, claims.IssuedAt.Unix(), claims.ExpiresAt.Unix(), claims.AuthTime.Unix())
	const inactive = `{"active":false}`
	answer := func(name, body, want string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Header: tickets(), Body: body}, Status: http.StatusOK, JSON: want}
	}
	b.Play(t,
		answer("a valid token is active", form(g.Token), active),
		answer("again", form(g.Token), active),
		answer("a hint is ignored", form(g.Token)+"&token_type_hint=refresh_token", active),
		answer("an unknown member is ignored", form(g.Token)+"&x=1&x=2", active),
		answer("a refresh token is not active", form(g.RefreshToken), inactive),
		answer("a forged token is not active", form(g.Token[:len(g.Token)-8]+"AAAAAAAA"), inactive),
		answer("a word is not active", form("nonsense"), inactive),
		answer("an empty token is not active", "token=", inactive),
		endpointtest.Case{Name: "the media type has parameters", Call: endpointtest.Call{Body: form(g.Token),
			Header: with(tickets(), "Content-Type", "Application/X-WWW-Form-Urlencoded; charset=UTF-8")}, Status: http.StatusOK, JSON: active},
	)
	invalid := func(name, body, want string) endpointtest.Case {
		c := answer(name, body, want)
		c.Status = http.StatusBadRequest
		return c
	}
	b.Play(t,
		invalid("the token is missing", "x=y", endpointtest.FieldError("token", "token is missing.")),
		invalid("two tokens", form(g.Token)+"&"+form(g.Token), endpointtest.FieldError("token", "token must occur once.")),
		invalid("a malformed escape", "token=%zz", endpointtest.Errors("The form is malformed.")),
		invalid("a token over 8 KiB", form(strings.Repeat("a", 8<<10+1)), endpointtest.FieldError("token", "token must be at most 8192 bytes of UTF-8 without NUL.")),
		invalid("a NUL", "token=a%00", endpointtest.FieldError("token", "token must be at most 8192 bytes of UTF-8 without NUL.")),
		invalid("invalid UTF-8", "token=%ff", endpointtest.FieldError("token", "token must be at most 8192 bytes of UTF-8 without NUL.")),
		endpointtest.Case{Name: "a body over 16 KiB", Call: endpointtest.Call{Header: tickets(), Body: form(g.Token) + "&x=" + strings.Repeat("a", 16<<10)},
			Status: http.StatusRequestEntityTooLarge, JSON: endpointtest.Errors("The body is larger than 16 KiB.")},
		endpointtest.Case{Name: "JSON", Call: endpointtest.Call{Header: with(tickets(), "Content-Type", "application/json"), Body: `{"token":"x"}`},
			Status: http.StatusUnsupportedMediaType, JSON: endpointtest.Errors("The body must be application/x-www-form-urlencoded.")},
		endpointtest.Case{Name: "no body", Call: endpointtest.Call{Header: tickets()},
			Status: http.StatusUnsupportedMediaType, JSON: endpointtest.Errors("The body must be application/x-www-form-urlencoded.")},
	)
	name, secret, _ := strings.Cut(identity.Clients.Secret.Sample(), ":")
	for title, header := range map[string]http.Header{
		"no credentials":               {},
		"a wrong secret":               basic(name + ":" + secret + "x"),
		"a wrong name":                 basic("orders:" + secret),
		"no secret":                    basic(name + ":"),
		"no colon":                     basic(name),
		"no base64":                    {"Authorization": {"Basic !"}},
		"another scheme":               {"Authorization": {"Bearer " + secret}},
		"the user's own token":         endpointtest.Bearer(g.Token),
		"the credentials twice":        {"Authorization": append(tickets()["Authorization"], tickets()["Authorization"]...)},
		"a malformed escape in a part": basic(name + ":%zz"),
	} {
		b.Play(t, endpointtest.Case{Name: title + " is rejected", Call: endpointtest.Call{Header: header, Body: form(g.Token)},
			Status: http.StatusUnauthorized, JSON: endpointtest.Errors("The credentials of a service are needed."),
			Want: http.Header{"Www-Authenticate": {`Basic realm="services"`}}})
	}
	b.Play(t, endpointtest.Case{Name: "escaped credentials", Call: endpointtest.Call{Header: basic(name + ":" + strings.ReplaceAll(secret, "-", "%2D")), Body: form(g.Token)},
		Status: http.StatusOK, JSON: active})
	b.Play(t, endpointtest.HostileRoutes(introspect.Function)...)
}

func with(h http.Header, name, value string) http.Header {
	h = maps.Clone(h)
	h.Set(name, value)
	return h
}

// The answer is exact: it has the state of the database.
func TestIntrospect_EndedSession(t *testing.T) {
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
		"the token has expired": func(_ *testing.T, b *endpointtest.Fixture, _ session.Grant) { b.Clock.Advance(16 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := endpointtest.New(t, introspect.Function)
			g := b.Given(t, "ann@example.com", "a password")
			call := endpointtest.Call{Header: tickets(), Body: form(g.Token)}
			if a := b.Do(t, call); !strings.Contains(a.Body, `"active":true`) {
				t.Fatalf("before: got %s, want an active token", a.Body)
			}
			end(t, b, g)
			endpointtest.Check(t, endpointtest.Case{Status: http.StatusOK, JSON: `{"active":false}`}, b.Do(t, call))
		})
	}
}

func TestIntrospect_Open(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, introspect.Function, "INTROSPECTION_CLIENTS=open")
	endpointtest.Check(t, endpointtest.Case{Status: http.StatusOK, JSON: `{"active":false}`}, b.Do(t, endpointtest.Call{Body: form("x")}))
}
