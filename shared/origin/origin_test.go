package origin_test

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/origin"
)

func TestAgent(t *testing.T) {
	for header, want := range map[string]string{
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36":                   "Chrome on macOS",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1": "Safari on iOS",
		"Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0":                                                                  "Firefox on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120 Safari/537.36 Edg/120":                       "Edge on Windows",
		"curl/8.0":                              "",
		"":                                      "",
		"Mozilla/5.0 (Plan 9) Chrome/120.0.0.0": "Chrome",
		"Call 0900-123456 now, you won 1000 EUR/1": "",
		"<script>alert(1)</script>/1":              "",
	} {
		if got := origin.Agent(header); got != want {
			t.Errorf("%q: got %q, want %q", header, got, want)
		}
	}
}

func TestOrigin(t *testing.T) {
	for name, c := range map[string]struct {
		request         endpoint.Request
		place, language string
	}{
		"an event":         {endpoint.Request{}, "", ""},
		"IPv4":             {endpoint.Request{Client: endpoint.Client{Peer: "198.51.100.7:1"}, AcceptLanguage: []string{"de-AT, en;q=0.5"}}, "198.51.100.0/24", "de-AT"},
		"IPv6":             {endpoint.Request{Client: endpoint.Client{Peer: "[2001:db8:1:2::3]:1"}, AcceptLanguage: []string{"en;q=0.1,fr;q=0.9"}}, "2001:db8:1::/48", "fr"},
		"a forged address": {endpoint.Request{Client: endpoint.Client{Peer: "198.51.100.7:1", Forwarded: []string{"192.0.2.1"}}, AcceptLanguage: []string{"*"}}, "198.51.100.0/24", ""},
		"no language":      {endpoint.Request{Client: endpoint.Client{Peer: "198.51.100.7:1"}, AcceptLanguage: []string{"<script>"}}, "198.51.100.0/24", ""},
	} {
		cfg := config.New(func(setting string) (string, bool) {
			return map[string]string{"MONGODB_URI": "mongodb://127.0.0.1"}[setting], setting == "MONGODB_URI"
		},
			func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
		var o origin.Origin
		o.ConfigurePart(cfg)
		if err := cfg.Err(); err != nil {
			t.Fatal(err)
		}
		if err := o.ReadPart(context.Background(), &c.request); err != nil || o.From.Place != c.place || o.Language != c.language {
			t.Errorf("%s: got %q %q, %v; want %q %q", name, o.From.Place, o.Language, err, c.place, c.language)
		}
	}
}
