package identity_test

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/identity"
)

func TestService_Settings(t *testing.T) {
	const secret = "0123456789abcdef"
	for name, c := range map[string]struct{ value, want string }{
		"one service":            {"tickets:" + secret, ""},
		"several, on lines":      {"tickets:" + secret + "\n orders:" + secret + "\r\n", ""},
		"open":                   {" open\n", ""},
		"open and a service":     {"open tickets:" + secret, "must be name:secret"},
		"a short secret":         {"tickets:" + secret[1:], "must be name:secret"},
		"a long secret":          {"tickets:" + strings.Repeat("a", 257), "must be name:secret"},
		"no secret":              {"tickets", "must be name:secret"},
		"no name":                {":" + secret, "must be name:secret"},
		"a name in upper case":   {"Tickets:" + secret, "must be name:secret"},
		"a character to escape":  {"tickets:" + secret + "%", "must be name:secret"},
		"a name twice":           {"tickets:" + secret + " tickets:" + secret + "x", "has a name twice"},
		"the setting is missing": {"", "INTROSPECTION_CLIENTS"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.New(func(setting string) (string, bool) {
				if setting == "INTROSPECTION_CLIENTS" {
					return c.value, true
				}
				return "", false
			},
				func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
			new(identity.Service).ConfigurePart(cfg)
			err := cfg.Err()
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret[1:])) {
				t.Errorf("got error %v, want %q and no secret", err, c.want)
			}
		})
	}
}
