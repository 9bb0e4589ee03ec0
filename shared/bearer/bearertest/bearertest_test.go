package bearertest_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"ticketing.com/auth/shared/bearer"
	"ticketing.com/auth/shared/bearer/bearertest"
)

// This is how a service tests its own handlers.
func TestAuth(t *testing.T) {
	auth := bearertest.New(t)
	service := auth.Verifier().Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := bearer.FromContext(r.Context())
		w.Header().Set("User", claims.Subject)
	}), bearer.Roles("admin"), bearer.Level("aal2"), bearer.Fresh(5*time.Minute))
	admin := func(c *bearer.Claims) {
		c.Subject, c.Session, c.Roles, c.ACR = "bob", "5e55", []string{"admin"}, "aal2"
	}
	valid := auth.Token(admin)
	call := func(token string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		service.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct {
		name, token string
		status      int
	}{
		{"no token", "", 401},
		{"a token of another system", bearertest.New(t).Token(admin), 401},
		{"an expired token", auth.Token(admin, func(c *bearer.Claims) { c.IssuedAt = auth.Now().Add(-time.Hour) }), 401},
		{"no role", auth.Token(), 403},
		{"a lower level", auth.Token(admin, func(c *bearer.Claims) { c.ACR = "aal1" }), 401},
		{"an old authentication", auth.Token(admin, func(c *bearer.Claims) { c.AuthTime = auth.Now().Add(-time.Hour) }), 401},
		{"a valid token", valid, 200},
	} {
		if got := call(c.token); got.Code != c.status {
			t.Errorf("%s: got %d, want %d", c.name, got.Code, c.status)
		}
	}
	if got := call(valid).Header().Get("User"); got != "bob" {
		t.Errorf("got the user %q, want bob", got)
	}
	auth.Revoke("5e55")
	if got := call(valid); got.Code != 401 {
		t.Errorf("after the sign-out: got %d, want 401", got.Code)
	}
	other := auth.Token(admin, func(c *bearer.Claims) { c.Session = "0e55" })
	if got := call(other); got.Code != 200 {
		t.Errorf("another session after the sign-out: got %d, want 200", got.Code)
	}
	auth.Advance(6 * time.Minute)
	if got := call(other); got.Code != 401 {
		t.Errorf("six minutes later: got %d, want 401", got.Code)
	}
}

// A service with the clock of the machine, such as a process, takes its settings from Getenv.
func TestAuth_Getenv(t *testing.T) {
	auth := bearertest.New(t)
	v, err := bearer.FromEnv(func(name string) string {
		if name == "VERIFYING_KEYS" {
			return ""
		}
		if name == "VERIFYING_KEYS_URL" {
			return auth.URL + "/.well-known/jwks.json"
		}
		return auth.Getenv(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	if claims, err := v.Verify(t.Context(), []string{"Bearer " + auth.Token()}); err != nil || claims.Email != "ann@example.com" {
		t.Errorf("got %+v, %v; want the claims of Ann", claims, err)
	}
}
