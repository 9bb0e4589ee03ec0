package needs

import (
	"slices"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
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
		"introspect":  {"INTROSPECTION_CLIENTS", "MONGODB_URI", "VERIFYING_KEYS"},
		"revocations": {"MONGODB_URI"},
		"relay":       {"EVENTS", "K_SINK", "MONGODB_URI"},
		"mail":        {"EVENTS", "MAIL_KEYS", "MONGODB_URI", "SMTP_URL"},
	}
	for _, f := range catalog.Functions() {
		if got := Of(f).Required(); want[f.Name] != nil && !slices.Equal(got, want[f.Name]) {
			t.Errorf("%s: got the required settings %v, want %v", f.Name, got, want[f.Name])
		}
	}
}

// A function declares exactly the settings that its constructors read.
func TestOf_MatchesTheSettingsThatAreRead(t *testing.T) {
	for _, f := range catalog.Functions() {
		n := Of(f)
		_, read, err := bind(f, n.Samples())
		if err != nil {
			t.Errorf("%s with the declared settings: %v", f.Name, err)
		}
		declared := append(n.Required(), n.Optional...)
		for _, name := range read {
			isFile := slices.Contains(declared, strings.TrimSuffix(name, "_FILE"))
			isEvent := strings.HasPrefix(name, "EVENT_OIDC_") || name == "AWS_LAMBDA_RUNTIME_API" // only if EVENTS is on
			if !isFile && !isEvent && name != "THROTTLE" && !slices.Contains(declared, name) {    // THROTTLE is read only to reject it
				t.Errorf("%s reads %s: add a Need with it to its Needs", f.Name, name)
			}
		}
		for _, name := range declared {
			if !slices.Contains(read, name) {
				t.Errorf("%s declares %s, and does not read it", f.Name, name)
			}
		}
		for _, name := range n.Required() {
			without := n.Samples()
			delete(without, name)
			if _, _, err := bind(f, without); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s without %s: got the error %v, want one that names it", f.Name, name, err)
			}
		}
	}
}
