package bearer

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestAuthorization(t *testing.T) {
	const none, invalid = "none", "invalid"
	long := strings.Repeat("a", 8<<10)
	for _, c := range []struct {
		name   string
		values []string
		want   string
	}{
		{"no header", nil, none},
		{"an empty header", []string{""}, none},
		{"another scheme", []string{"Basic YW5uOnNlY3JldA=="}, none},
		{"a longer scheme", []string{"BearerX a.b.c"}, none},
		{"the token alone", []string{"a.b.c"}, none},
		{"another scheme with parameters", []string{`Digest username="Bearer", realm="x"`}, none},
		{"a token", []string{"Bearer a.b.c"}, "a.b.c"},
		{"a scheme in lower case", []string{"bearer a.b.c"}, "a.b.c"},
		{"a scheme in mixed case", []string{"bEaReR a.b.c"}, "a.b.c"},
		{"white space around it", []string{" \tBearer \t a.b.c\t "}, "a.b.c"},
		{"all characters of token68", []string{"Bearer aZ09-._~+/=="}, "aZ09-._~+/=="},
		{"8 KiB", []string{"Bearer " + long}, long},
		{"a byte more", []string{"Bearer " + long + "a"}, invalid},
		{"the scheme alone", []string{"Bearer"}, invalid},
		{"the scheme and a space", []string{"Bearer "}, invalid},
		{"padding alone", []string{"Bearer =="}, invalid},
		{"padding in the middle", []string{"Bearer a=b"}, invalid},
		{"two tokens", []string{"Bearer a.b.c a.b.c"}, invalid},
		{"two headers", []string{"Bearer a.b.c", "Bearer a.b.c"}, invalid},
		{"an empty second header", []string{"Bearer a.b.c", ""}, invalid},
		{"another scheme as the second header", []string{"Bearer a.b.c", "Basic YQ=="}, invalid},
		{"two joined headers", []string{"Bearer a.b.c, Bearer a.b.c"}, invalid},
		{"another scheme and a token, joined", []string{"Basic YQ==, bearer\ta.b.c"}, invalid},
		{"a comma at the end", []string{"Bearer a.b.c,"}, invalid},
		{"a quoted token", []string{`Bearer "a.b.c"`}, invalid},
		{"a parameter", []string{`Bearer token="a.b.c"`}, invalid},
		{"a control character", []string{"Bearer a.b.c\x00"}, invalid},
		{"a line break", []string{"Bearer a.b\n.c"}, invalid},
		{"a character outside ASCII", []string{"Bearer a.b.cé"}, invalid},
		{"a no-break space", []string{"Bearer\u00a0a.b.c"}, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseAuthorization(c.values)
			switch {
			case err == ErrNoToken:
				got = none
			case err != nil:
				got = invalid
			}
			if got != c.want {
				t.Errorf("got %.40s (%v), want %.40s", got, err, c.want)
			}
		})
	}
}

// A parsed token is a part of the header and has no separator, so it means the same to every
// program. The error contains no part of the header.
func FuzzAuthorization(f *testing.F) {
	for _, s := range []string{"", "Bearer a.b.c", "bearer\ta=", "Basic x, Bearer y", "Bearer a b", "Bearer \x00secretsecret"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		raw, err := parseAuthorization([]string{value})
		if err != nil {
			e, ok := errors.AsType[*Error](err)
			if !ok || raw != "" || e.Status != http.StatusUnauthorized || len(value) > 20 && strings.Contains(e.Error(), value) {
				t.Errorf("got %q, %v; want no token and 401", raw, err)
			}
			return
		}
		if raw == "" || !strings.Contains(value, raw) || strings.ContainsAny(raw, " \t,;\"\r\n\x00") {
			t.Errorf("got the token %q of the header %q", raw, value)
		}
	})
}
