package bearer_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/bearer"
)

func TestFromEnv_Problems(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	private, _ := encode(t, key(1))
	const url = " must be an http or https URL without a user and a fragment"
	for name, c := range map[string]struct {
		env  string // NAME=value, separated by spaces
		want string // with the errors of the keys cut at the colon
	}{
		"no keys":                     {"", "VERIFYING_KEYS, VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL must be set"},
		"keys that are no set":        {"VERIFYING_KEYS=hunter2", "VERIFYING_KEYS is not a public JWK Set"},
		"private keys":                {"VERIFYING_KEYS=" + private, "VERIFYING_KEYS is not a public JWK Set"},
		"keys and a file":             {"VERIFYING_KEYS=x VERIFYING_KEYS_FILE=" + file, "VERIFYING_KEYS and VERIFYING_KEYS_FILE are both set"},
		"a file that is no set":       {"VERIFYING_KEYS_FILE=" + file, "VERIFYING_KEYS_FILE is not the path of a public JWK Set"},
		"a file that does not exist":  {"VERIFYING_KEYS_FILE=" + file + "hunter2", "VERIFYING_KEYS_FILE is not the path of a public JWK Set"},
		"a file that does not end":    {"VERIFYING_KEYS_FILE=/dev/zero", "VERIFYING_KEYS_FILE is not the path of a public JWK Set"},
		"a folder":                    {"VERIFYING_KEYS_FILE=/", "VERIFYING_KEYS_FILE is not the path of a public JWK Set"},
		"a path as a URL":             {"VERIFYING_KEYS_URL=/hunter2", "VERIFYING_KEYS_URL" + url},
		"a URL of a file":             {"VERIFYING_KEYS_URL=file:///hunter2", "VERIFYING_KEYS_URL" + url},
		"a URL without a host":        {"VERIFYING_KEYS_URL=http:///hunter2", "VERIFYING_KEYS_URL" + url},
		"a URL with a password":       {"VERIFYING_KEYS_URL=http://a:hunter2@b/", "VERIFYING_KEYS_URL" + url},
		"a URL with a fragment":       {"VERIFYING_KEYS_URL=http://b/#hunter2", "VERIFYING_KEYS_URL" + url},
		"a URL that cannot be parsed": {"VERIFYING_KEYS_URL=http://hunter2:x/", "VERIFYING_KEYS_URL" + url},
		"strict without a feed":       {"VERIFYING_KEYS_URL=http://a REVOCATIONS_STRICT=on", "REVOCATIONS_STRICT is on without REVOCATIONS_URL"},
		"introspection alone":         {"VERIFYING_KEYS_URL=http://a INTROSPECTION_URL=http://a", "INTROSPECTION_URL is set without REVOCATIONS_URL"},
		"a secret alone":              {"VERIFYING_KEYS_URL=http://a REVOCATIONS_URL=http://a INTROSPECTION_SECRET=a:hunter2", "INTROSPECTION_SECRET is set without INTROSPECTION_URL"},
		"a secret without a name":     {"VERIFYING_KEYS_URL=http://a REVOCATIONS_URL=http://a INTROSPECTION_URL=http://a INTROSPECTION_SECRET=:hunter2", "INTROSPECTION_SECRET must have the form name:secret"},
		"all problems": {"REVOCATIONS_URL=x REVOCATIONS_STRICT=hunter2 INTROSPECTION_URL=ftp://x INTROSPECTION_SECRET=hunter2",
			"REVOCATIONS_STRICT must be on or off\nVERIFYING_KEYS, VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL must be set\n" +
				"INTROSPECTION_SECRET must have the form name:secret\nINTROSPECTION_URL" + url + "\nREVOCATIONS_URL" + url},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := bearer.FromEnv(lookup(c.env), func(c *bearer.Config) { c.Log = slog.New(slog.DiscardHandler) })
			if err == nil || v != nil {
				t.Fatalf("got %v, %v; want an error", v, err)
			}
			got := err.Error()
			if !strings.Contains(c.want, "\n") {
				got, _, _ = strings.Cut(got, ": ")
			}
			if got != c.want || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %q, want %q", err, c.want)
			}
		})
	}
}

func lookup(env string) func(string) string {
	return func(name string) string {
		for _, setting := range strings.Fields(env) {
			if value, ok := strings.CutPrefix(setting, name+"="); ok {
				return " " + value + "\n"
			}
		}
		return ""
	}
}

func TestFromEnv_Valid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(jwks(t, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	late := func(c *bearer.Config) { c.Now = func() time.Time { return time.Now().Add(24 * time.Hour) } }
	for name, c := range map[string]struct {
		env     string
		options []func(*bearer.Config)
		status  int
	}{
		"the defaults":     {"", nil, 200},
		"other names":      {"TOKEN_ISSUER=ticketing TOKEN_AUDIENCE=ticketing REVOCATIONS_STRICT=off", nil, 200},
		"another issuer":   {"TOKEN_ISSUER=https://other.example", nil, 401},
		"another audience": {"TOKEN_AUDIENCE=other", nil, 401},
		"an option":        {"", []func(*bearer.Config){late}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			for _, keys := range []string{"VERIFYING_KEYS=" + jwks(t, 1), "VERIFYING_KEYS_FILE=" + file} {
				v, err := bearer.FromEnv(lookup(keys+" "+c.env), c.options...)
				if err != nil {
					t.Fatal(err)
				}
				_, err = v.Verify(t.Context(), []string{"Bearer " + issue(t, 1)})
				if got := statusOf(t, err); got != c.status {
					t.Errorf("got %d (%v), want %d", got, err, c.status)
				}
			}
		})
	}
}
