package httpserver_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ticketing.com/auth/shared/httpserver"
)

func TestCORS_Origin(t *testing.T) {
	for _, c := range []struct{ name, allowed, origin, want string }{
		{"an empty setting allows no origin", "", "https://tickets.example", ""},
		{"a listed origin is allowed", "https://a.example, https://tickets.example", "https://tickets.example", "https://tickets.example"},
		{"an origin that is not listed is rejected", "https://tickets.example", "https://evil.example", ""},
		{"another scheme is another origin", "https://tickets.example", "http://tickets.example", ""},
		{"another port is another origin", "https://tickets.example", "https://tickets.example:444", ""},
		{"a longer name is another origin", "https://tickets.example", "https://tickets.example.evil", ""},
		{"an opaque origin is rejected", "https://tickets.example", "null", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := newConfig(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": c.allowed})
			handler := httpserver.Handler(cfg, echo(nil))
			if err := cfg.Err(); err != nil {
				t.Fatal(err)
			}
			preflight := httptest.NewRequest(http.MethodOptions, "/echo", nil)
			preflight.Header.Set("Access-Control-Request-Method", "POST")
			preflight.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
			post := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(`{"name":"ann"}`))
			post.Header.Set("Content-Type", "application/json")
			for _, r := range []*http.Request{preflight, post} {
				r.Header.Set("Origin", c.origin)
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, r)
				h := answer.Result().Header
				if got := h.Get("Access-Control-Allow-Origin"); got != c.want || h.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("%s: got %v, want Access-Control-Allow-Origin %q", r.Method, h, c.want)
				}
				if r == preflight && (h.Get("Access-Control-Allow-Headers") != "") != (c.want != "") {
					t.Errorf("preflight: got %v, want Access-Control-Allow-Headers only for an allowed origin", h)
				}
			}
		})
	}
}

func TestCORS_Preflight(t *testing.T) {
	cfg := newConfig(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": "https://tickets.example"})
	handler := httpserver.Handler(cfg, echo(nil), minimal)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method  string
		headers []string
		allowed bool
	}{
		{"POST", nil, true},
		{"GET", nil, true},
		{"HEAD", nil, true},
		{"DELETE", nil, false},
		{"PUT", nil, false},
		{"POST", []string{"authorization,baggage,content-type,idempotency-key,traceparent,tracestate"}, true},
		{"POST", []string{"traceparent, tracestate, baggage"}, true},
		{"POST", []string{"Traceparent", "Baggage", "traceparent"}, true},
		{"POST", []string{""}, true},
		{"POST", []string{"authorization,,content-type"}, true},
		{"POST", []string{"content-type,"}, true},
		{"POST", []string{", ,baggage, \t,", "", "content-type"}, true},
		{"POST", []string{" , ,"}, true},
		{"POST", []string{"authorization,,x-user-id"}, false},
		{"POST", []string{"traceparent,x-user-id"}, false},
		{"POST", []string{"*"}, false},
	} {
		r := httptest.NewRequest(http.MethodOptions, "/echo", nil)
		r.Header.Set("Origin", "https://tickets.example")
		r.Header.Set("Access-Control-Request-Method", c.method)
		for _, requested := range c.headers {
			r.Header.Add("Access-Control-Request-Headers", requested)
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		h := answer.Result().Header
		if allowed := h.Get("Access-Control-Allow-Origin") != "" && h.Get("Access-Control-Allow-Methods") == c.method; allowed != c.allowed {
			t.Errorf("%s %q: got %v, want allowed: %v", c.method, c.headers, h, c.allowed)
		}
		for _, requested := range c.headers {
			for name := range strings.SplitSeq(strings.ToLower(requested), ",") {
				if c.allowed && !strings.Contains(h.Get("Access-Control-Allow-Headers"), strings.TrimSpace(name)) {
					t.Errorf("%q: got %v, want %s to be allowed", c.headers, h, name)
				}
			}
		}
	}
}

// A script of another origin sends and reads the device token and reads the rate limits.
func TestCORS_DeviceToken(t *testing.T) {
	cfg := newConfig(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": "https://tickets.example"})
	handler := httpserver.Handler(cfg, echo(nil))
	preflight := httptest.NewRequest(http.MethodOptions, "/echo", nil)
	preflight.Header.Set("Access-Control-Request-Method", "POST")
	preflight.Header.Set("Access-Control-Request-Headers", "content-type,device-token")
	post := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(`{"name":"ann"}`))
	for _, c := range []struct {
		r            *http.Request
		header, want string
	}{
		{preflight, "Access-Control-Allow-Headers", "content-type,device-token"},
		{post, "Access-Control-Expose-Headers", "Device-Token, Ratelimit, Ratelimit-Policy, Retry-After, Www-Authenticate"},
	} {
		c.r.Header.Set("Origin", "https://tickets.example")
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, c.r)
		if got := answer.Result().Header.Get(c.header); got != c.want {
			t.Errorf("%s: got %s %q, want %q", c.r.Method, c.header, got, c.want)
		}
	}
}

// The server converts an origin in the setting to the form that browsers send, or rejects it.
func TestCORS_Setting(t *testing.T) {
	const rejected = ""
	for setting, sent := range map[string]string{
		"https://tickets.example":        "https://tickets.example",
		"HTTPS://Tickets.EXAMPLE":        "https://tickets.example",
		"https://tickets.example:443":    "https://tickets.example",
		"https://tickets.example:0443":   "https://tickets.example",
		"https://tickets.example:":       "https://tickets.example",
		"http://tickets.example:80":      "http://tickets.example",
		"https://tickets.example:80":     "https://tickets.example:80",
		"https://tickets.example:08443":  "https://tickets.example:8443",
		"http://localhost:3000":          "http://localhost:3000",
		"https://münchen.example":        "https://xn--mnchen-3ya.example",
		"https://MÜNCHEN.example":        "https://xn--mnchen-3ya.example",
		"https://XN--MNCHEN-3YA.example": "https://xn--mnchen-3ya.example",
		"https://straße.example":         "https://xn--strae-oqa.example",
		"https://ｔickets。example":        "https://tickets.example",
		"https://a_b.example":            "https://a_b.example",
		"https://a--b.example":           "https://a--b.example",
		"http://127.0.0.1:8080":          "http://127.0.0.1:8080",
		"http://[::1]:8080":              "http://[::1]:8080",
		"http://[2001:DB8:0:0:0:0:0:0]":  "http://[2001:db8::]",
		"capacitor://localhost":          "capacitor://localhost",
		"Capacitor://localhost":          "capacitor://localhost",
		"moz-extension://0a1b2c3d":       "moz-extension://0a1b2c3d",
		"*":                              rejected,
		"https://*":                      rejected,
		"https://*.tickets.example":      rejected,
		"null":                           rejected,
		"tickets.example":                rejected,
		"//tickets.example":              rejected,
		"https:tickets.example":          rejected,
		"https:///tickets.example":       rejected,
		"https://":                       rejected,
		"https://tickets.example/":       rejected,
		"https://tickets.example/app":    rejected,
		"https://tickets.example?":       rejected,
		"https://tickets.example?a=b":    rejected,
		"https://tickets.example#":       rejected,
		"https://tickets.example#a":      rejected,
		"https://ann@tickets.example":    rejected,
		"https://ann:pw@tickets.example": rejected,
		"https://@tickets.example":       rejected,
		"https://tickets.example:x":      rejected,
		"https://tickets.example:65536":  rejected,
		"https://tickets.example:-1":     rejected,
		"https://tickets.example https:": rejected,
		"https://tickets%2eexample":      rejected,
		"https://tickets\\example":       rejected,
		"https://a..example":             rejected,
		"https://.example":               rejected,
		"https://xn--zzzzzzzz.example":   rejected,
		"https://a\u200bb.example":       rejected,
		"https://127.1":                  rejected,
		"https://0x7f.0.0.1":             rejected,
		"https://127.0.0.01":             rejected,
		"https://2130706433":             rejected,
		"https://::1":                    rejected,
		"https://[::1":                   rejected,
		"https://[::1%25lo]":             rejected,
		"https://[127.0.0.1]":            rejected,
		"https://[tickets.example]":      rejected,
		"http://[::ffff:127.0.0.1]":      rejected,
		"file:///":                       rejected,
		"file://tickets.example":         rejected,
		"ws://tickets.example":           rejected,
		"wss://tickets.example":          rejected,
		"data:text/html,x":               rejected,
		"javascript://tickets.example":   rejected,
		"capacitor://local host":         rejected,
		"capacitor://localhost/":         rejected,
	} {
		cfg := newConfig(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": "https://a.example," + setting})
		handler := httpserver.Handler(cfg, echo(nil))
		if err := cfg.Err(); (err != nil) != (sent == rejected) {
			t.Errorf("%s: got error %v, want rejected: %v", setting, err, sent == rejected)
			continue
		} else if err != nil {
			continue
		}
		r := httptest.NewRequest(http.MethodGet, "/health/liveness", nil)
		r.Header.Set("Origin", sent)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if got := answer.Result().Header.Get("Access-Control-Allow-Origin"); got != sent {
			t.Errorf("%s: a request from %s: Access-Control-Allow-Origin %q", setting, sent, got)
		}
	}
}
