package bearer_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/bearer"
)

// user answers with the user of the request.
var user = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	claims, ok := bearer.FromContext(r.Context())
	fmt.Fprintf(w, "%s %t", claims.Subject, ok)
})

func call(h http.Handler, method string, authorization ...string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, "/?access_token=x", nil)
	r.Header["Authorization"] = authorization
	r.AddCookie(&http.Cookie{Name: "token", Value: "x"})
	r.Header.Set("X-User-Id", "bob")
	h.ServeHTTP(w, r)
	return w
}

// render returns everything that a client sees of an error.
func render(w *httptest.ResponseRecorder) string {
	h := w.Header()
	s := fmt.Sprint(w.Code, " ", h.Get("WWW-Authenticate"))
	if after := h.Get("Retry-After"); after != "" {
		s += "Retry-After " + after
	}
	if w.Code == 200 {
		return s + w.Body.String()
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := h.Get(name); got != want {
			s += " " + name + ": " + got
		}
	}
	return s + " " + w.Body.String()
}

func TestMiddleware(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	clock := func() time.Time { return now }
	f, down := newFixture(t, bearer.Config{Keys: jwks(t, 1), Now: clock}), newFixture(t, bearer.Config{KeysURL: keysURL, Now: clock})
	as := func(change func(*bearer.Claims)) string {
		return "Bearer " + issue(t, 1, func(c *bearer.Claims) { c.IssuedAt, c.AuthTime = now, now }, change)
	}
	valid := as(func(c *bearer.Claims) { c.Roles = []string{"seller"} })
	const (
		none    = `401 Bearer {"errors":[{"message":"A bearer token is needed."}]}`
		invalid = `401 Bearer error="invalid_token" {"errors":[{"message":"The token is not valid."}]}`
		role    = `403 Bearer error="insufficient_scope" {"errors":[{"message":"You are not allowed to do this."}]}`
		again   = ` {"errors":[{"message":"You must sign in again for this."}]}`
		stepUp  = `401 Bearer error="insufficient_user_authentication"`
	)
	required := f.Require(user)
	for _, c := range []struct {
		name          string
		handler       http.Handler
		authorization []string
		want          string
	}{
		{"no token", required, nil, none},
		{"another scheme", required, []string{"Basic YQ=="}, none},
		{"two headers", required, []string{valid, valid}, invalid},
		{"an unknown key", required, []string{"Bearer " + issue(t, 2)}, invalid},
		{"an expired token", required, []string{as(func(c *bearer.Claims) { c.IssuedAt = now.Add(-25 * time.Hour) })}, invalid},
		{"a valid token", required, []string{valid}, "200 ann true"},
		{"no keys", down.Require(user), []string{valid}, `503 Retry-After 5 {"errors":[{"message":"The service is unavailable. Try again shortly."}]}`},
		{"optional: no keys", down.Optional(user), []string{valid}, `503 Retry-After 5 {"errors":[{"message":"The service is unavailable. Try again shortly."}]}`},
		{"optional: no keys and no token", down.Optional(user), nil, "200  false"},
		{"optional: no token", f.Optional(user), nil, "200  false"},
		{"optional: another scheme", f.Optional(user), []string{"Basic YQ=="}, "200  false"},
		{"optional: an invalid token", f.Optional(user), []string{"Bearer x"}, invalid},
		{"optional: a valid token", f.Optional(user), []string{valid}, "200 ann true"},
		{"optional inside required", f.Require(f.Optional(user)), []string{valid}, "200 ann true"},
		{"one of the roles", f.Require(user, bearer.Roles("admin", "seller")), []string{valid}, "200 ann true"},
		{"none of the roles", f.Require(user, bearer.Roles("admin", "sell")), []string{valid}, role},
		{"one of two checks of roles", f.Require(user, bearer.Roles("seller"), bearer.Roles("admin")), []string{valid}, role},
		{"a role without a token", f.Require(user, bearer.Roles("admin")), nil, none},
		{"authenticated five minutes ago", f.Require(user, bearer.Fresh(5*time.Minute)),
			[]string{as(func(c *bearer.Claims) { c.AuthTime = now.Add(-5 * time.Minute) })}, "200 ann true"},
		{"authenticated earlier", f.Require(user, bearer.Fresh(5*time.Minute)),
			[]string{as(func(c *bearer.Claims) { c.AuthTime = now.Add(-301 * time.Second) })}, stepUp + `, max_age="300"` + again},
		{"authenticated ahead of the clock", f.Require(user, bearer.Fresh(5*time.Minute)),
			[]string{as(func(c *bearer.Claims) { c.AuthTime = now.Add(time.Minute) })}, stepUp + `, max_age="300"` + again},
		{"authenticated ahead of the clock, without a check", f.Require(user),
			[]string{as(func(c *bearer.Claims) { c.AuthTime = now.Add(time.Minute) })}, "200 ann true"},
		{"authenticated at an unknown time", f.Require(user, bearer.Fresh(5*time.Minute)),
			[]string{as(func(c *bearer.Claims) { c.AuthTime = time.Time{} })}, stepUp + `, max_age="300"` + again},
		{"a lower level", f.Require(user, bearer.Level("aal2")), []string{valid}, stepUp + `, acr_values="aal2"` + again},
		{"no level", f.Require(user, bearer.Level("aal1")), []string{as(func(c *bearer.Claims) { c.ACR = "" })}, stepUp + `, acr_values="aal1"` + again},
		{"an unknown level", f.Require(user, bearer.Level("aal1")), []string{as(func(c *bearer.Claims) { c.ACR = "aal9" })}, stepUp + `, acr_values="aal1"` + again},
		{"the level", f.Require(user, bearer.Level("aal2")), []string{as(func(c *bearer.Claims) { c.ACR = "aal2" })}, "200 ann true"},
		{"a higher level", f.Require(user, bearer.Level("aal2")), []string{as(func(c *bearer.Claims) { c.ACR = "phr" })}, "200 ann true"},
		{"the highest of two levels", f.Require(user, bearer.Level("phr"), bearer.Level("aal1")), []string{valid}, stepUp + `, acr_values="phr"` + again},
		{"the challenge names all needs", f.Require(user, bearer.Level("aal2"), bearer.Fresh(time.Hour), bearer.Fresh(time.Minute)),
			[]string{valid}, stepUp + `, acr_values="aal2", max_age="60"` + again},
		{"a missing role comes before the level", f.Require(user, bearer.Level("aal2"), bearer.Roles("admin")), []string{valid}, role},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := call(c.handler, "POST", c.authorization...)
			if s := render(got); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
			if head := call(c.handler, "HEAD", c.authorization...); c.want[:3] != "200" {
				got.Body.Reset()
				if render(head) != render(got) {
					t.Errorf("HEAD: got %s, want %s", render(head), render(got))
				}
			}
		})
	}
}

func TestCheck_PanicsOnMisuse(t *testing.T) {
	for name, misuse := range map[string]func(){
		"no role":                func() { bearer.Roles() },
		"an unknown level":       func() { bearer.Level("aal3") },
		"an empty level":         func() { bearer.Level("") },
		"less than a second":     func() { bearer.Fresh(time.Millisecond) },
		"a negative maximum age": func() { bearer.Fresh(-time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("got no panic")
				}
			}()
			misuse()
		})
	}
}

// The middleware gives the verdicts of the file that all verifiers play.
func TestMiddleware_Vectors(t *testing.T) {
	document, err := os.ReadFile("testdata/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Issuer, Audience string
		Now              int64
		Keys             jsontext.Value `json:"jwks"`
		Tokens           []struct {
			Name, Token string
			Accepted    bool
		}
	}
	if err := json.Unmarshal(document, &all, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	if len(all.Tokens) < 300 {
		t.Fatalf("got %d tokens, want 300 at least", len(all.Tokens))
	}
	f := newFixture(t, bearer.Config{
		Keys: string(all.Keys), Issuer: all.Issuer, Audience: all.Audience, Now: func() time.Time { return time.Unix(all.Now, 0) },
	})
	accepted := 0
	for _, c := range all.Tokens {
		if strings.TrimSpace(c.Token) != c.Token {
			continue // white space around it belongs to the header
		}
		for range 2 { // the second time from the cache
			got, want := call(f.Require(user), "GET", "Bearer "+c.Token), "401"
			if c.Accepted {
				want = "200"
				accepted++
			}
			if s := render(got); !strings.HasPrefix(s, want) || !c.Accepted && !strings.Contains(s, `error="invalid_token"`) {
				t.Errorf("%s: got %s, want %s", c.Name, s, want)
			}
		}
	}
	if accepted == 0 {
		t.Error("no token was accepted")
	}
}

func BenchmarkMiddleware(b *testing.B) {
	f := newFixture(b, bearer.Config{Keys: jwks(b, 1), RevocationsURL: "http://auth/revocations"})
	f.set(answer(`{"cursor":"1","window":960,"sessions":[],"users":[]}`))
	h := f.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), bearer.Level("aal1"))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+issue(b, 1))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
