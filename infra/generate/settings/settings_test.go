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

// What is written here is the intention; it is compared with what the functions ask
// for.
func TestAFunctionIsGivenTheSecretsOfItsRoleAndNoOther(t *testing.T) {
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
			t.Errorf("%s needs %v: %v", e.Name, s.Required, err)
		}
	}
}

func TestAFunctionIsToldOfWhatItReadsAndNoMore(t *testing.T) {
	for _, e := range catalog.Functions() {
		s, err := settings.Of(e)
		if err != nil {
			t.Fatal(err)
		}
		hashes := e.Name == "signup" || e.Name == "signin"
		if slices.Contains(s.Optional, "HASH_MEMORY_KIB") != hashes {
			t.Errorf("%s hashes: %v", e.Name, s.Optional)
		}
		counts := hashes || e.Name == "refresh"
		if slices.Contains(s.Optional, "RATE_LIMIT") != counts || slices.Contains(s.Optional, "TRUSTED_PROXIES") != counts {
			t.Errorf("%s counts: %v", e.Name, s.Optional)
		}
		if !slices.Contains(s.Optional, "LOG_LEVEL") || !slices.IsSorted(s.Optional) {
			t.Errorf("%s: %v", e.Name, s.Optional)
		}
		for _, name := range s.Required {
			if slices.Contains(s.Optional, name) || slices.Contains(s.Optional, name+"_FILE") {
				t.Errorf("%s: %s is required and optional", e.Name, name)
			}
		}
	}
}

// Then the one who adds it learns where to add a sample.
func TestASettingOfANewKindIsAFault(t *testing.T) {
	e := endpoint.Define(endpoint.Spec{Name: "new", Method: "GET", Path: "/new"}, func(cfg *config.Config) endpoint.Handler[endpoint.None, endpoint.None] {
		cfg.Required("NEW_SETTING")
		return nil
	})
	if _, err := settings.Of(e); err == nil || !strings.Contains(err.Error(), "NEW_SETTING") {
		t.Error(err)
	}
}
