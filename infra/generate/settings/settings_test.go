package settings_test

import (
	"slices"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/settings"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// The expected settings are the design: each function gets only the secrets that it needs.
func TestOf_Required(t *testing.T) {
	want := map[string][]string{
		"signup":      {"MONGODB_URI", "SIGNING_KEYS"},
		"signin":      {"MONGODB_URI", "SIGNING_KEYS"},
		"refresh":     {"MONGODB_URI", "SIGNING_KEYS"},
		"signout":     {"MONGODB_URI", "VERIFYING_KEYS"},
		"currentuser": {"MONGODB_URI", "VERIFYING_KEYS"},
		"jwks":        {"VERIFYING_KEYS"},
		"relay":       {"EVENTS", "K_SINK", "MONGODB_URI"},
	}
	for _, e := range catalog.Functions() {
		s, err := settings.Of(e)
		if err != nil || !slices.Equal(s.Required, want[e.Name]) {
			t.Errorf("%s: got the required settings %v and %v, want %v", e.Name, s.Required, err, want[e.Name])
		}
	}
}

func TestOf_Optional(t *testing.T) {
	for _, e := range catalog.Functions() {
		s, err := settings.Of(e)
		if err != nil {
			t.Fatal(err)
		}
		hashes := e.Name == "signup" || e.Name == "signin"
		if slices.Contains(s.Optional, "HASH_MEMORY_KIB") != hashes {
			t.Errorf("%s: got the optional settings %v, want HASH_MEMORY_KIB among them: %v", e.Name, s.Optional, hashes)
		}
		limited := hashes || e.Name == "refresh"
		if slices.Contains(s.Optional, "THROTTLE") {
			t.Errorf("%s: got the optional settings %v, want no THROTTLE", e.Name, s.Optional)
		}
		if slices.Contains(s.Optional, "RATE_LIMIT") != limited || slices.Contains(s.Optional, "TRUSTED_PROXIES") != limited {
			t.Errorf("%s: got the optional settings %v, want RATE_LIMIT and TRUSTED_PROXIES among them: %v", e.Name, s.Optional, limited)
		}
		if !slices.Contains(s.Optional, "LOG_LEVEL") || !slices.IsSorted(s.Optional) {
			t.Errorf("%s: got the optional settings %v, want them sorted and with LOG_LEVEL", e.Name, s.Optional)
		}
		for _, name := range s.Required {
			if slices.Contains(s.Optional, name) || slices.Contains(s.Optional, name+"_FILE") {
				t.Errorf("%s: %s is both required and optional", e.Name, name)
			}
		}
	}
}

// The error names the setting and where to add a sample.
func TestOf_UnknownSetting(t *testing.T) {
	e := endpoint.Define(endpoint.Spec{Name: "new", Method: "GET", Path: "/new"}, func(cfg *config.Config) endpoint.Handler[endpoint.None, endpoint.None] {
		cfg.Required("NEW_SETTING")
		return nil
	})
	if _, err := settings.Of(e); err == nil || !strings.Contains(err.Error(), "NEW_SETTING") {
		t.Errorf("got %v, want an error that names NEW_SETTING", err)
	}
}
