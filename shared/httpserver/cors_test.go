package httpserver_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ticketing.com/auth/shared/httpserver"
)

func TestCORS_OnlyNamedOriginsAreAllowed(t *testing.T) {
	for _, c := range []struct{ name, allowed, origin, want string }{
		{"none is allowed where none is named", "", "https://tickets.example", ""},
		{"one that is named is allowed", "https://a.example, https://tickets.example", "https://tickets.example", "https://tickets.example"},
		{"another is not", "https://tickets.example", "https://evil.example", ""},
		{"another scheme is another origin", "https://tickets.example", "http://tickets.example", ""},
		{"another port is another origin", "https://tickets.example", "https://tickets.example:444", ""},
		{"a longer name is another origin", "https://tickets.example", "https://tickets.example.evil", ""},
		{"an opaque origin is none", "https://tickets.example", "null", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := wiring(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": c.allowed})
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
					t.Errorf("%s: %v", r.Method, h)
				}
				if r == preflight && (h.Get("Access-Control-Allow-Headers") != "") != (c.want != "") {
					t.Errorf("preflight: %v", h)
				}
			}
		})
	}
}

func TestCORS_PreflightAllowsHeadersAndMethodsOfTheRoutes(t *testing.T) {
	cfg := wiring(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": "https://tickets.example"})
	handler := httpserver.Handler(cfg, echo(nil), needless)
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
		for _, asked := range c.headers {
			r.Header.Add("Access-Control-Request-Headers", asked)
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		h := answer.Result().Header
		if allowed := h.Get("Access-Control-Allow-Origin") != "" && h.Get("Access-Control-Allow-Methods") == c.method; allowed != c.allowed {
			t.Errorf("%s %q: %v", c.method, c.headers, h)
		}
		for _, asked := range c.headers {
			for name := range strings.SplitSeq(strings.ToLower(asked), ",") {
				if c.allowed && !strings.Contains(h.Get("Access-Control-Allow-Headers"), strings.TrimSpace(name)) {
					t.Errorf("%q: %s is not allowed: %v", c.headers, name, h)
				}
			}
		}
	}
}

// An origin in the setting counts as a browser sends it, or is refused at start.
func TestCORS_OriginsInTheSetting(t *testing.T) {
	const refused = ""
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
		"*":                              refused,
		"https://*":                      refused,
		"https://*.tickets.example":      refused,
		"null":                           refused,
		"tickets.example":                refused,
		"//tickets.example":              refused,
		"https:tickets.example":          refused,
		"https:///tickets.example":       refused,
		"https://":                       refused,
		"https://tickets.example/":       refused,
		"https://tickets.example/app":    refused,
		"https://tickets.example?":       refused,
		"https://tickets.example?a=b":    refused,
		"https://tickets.example#":       refused,
		"https://tickets.example#a":      refused,
		"https://ann@tickets.example":    refused,
		"https://ann:pw@tickets.example": refused,
		"https://@tickets.example":       refused,
		"https://tickets.example:x":      refused,
		"https://tickets.example:65536":  refused,
		"https://tickets.example:-1":     refused,
		"https://tickets.example https:": refused,
		"https://tickets%2eexample":      refused,
		"https://tickets\\example":       refused,
		"https://a..example":             refused,
		"https://.example":               refused,
		"https://xn--zzzzzzzz.example":   refused,
		"https://a\u200bb.example":       refused,
		"https://127.1":                  refused,
		"https://0x7f.0.0.1":             refused,
		"https://127.0.0.01":             refused,
		"https://2130706433":             refused,
		"https://::1":                    refused,
		"https://[::1":                   refused,
		"https://[::1%25lo]":             refused,
		"https://[127.0.0.1]":            refused,
		"https://[tickets.example]":      refused,
		"http://[::ffff:127.0.0.1]":      refused,
		"file:///":                       refused,
		"file://tickets.example":         refused,
		"ws://tickets.example":           refused,
		"wss://tickets.example":          refused,
		"data:text/html,x":               refused,
		"javascript://tickets.example":   refused,
		"capacitor://local host":         refused,
		"capacitor://localhost/":         refused,
	} {
		cfg := wiring(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": "https://a.example," + setting})
		handler := httpserver.Handler(cfg, echo(nil))
		if err := cfg.Err(); (err != nil) != (sent == refused) {
			t.Errorf("%s: %v", setting, err)
			continue
		} else if err != nil {
			continue
		}
		r := httptest.NewRequest(http.MethodGet, "/health/liveness", nil)
		r.Header.Set("Origin", sent)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if got := answer.Result().Header.Get("Access-Control-Allow-Origin"); got != sent {
			t.Errorf("%s: a page of %s is answered %q", setting, sent, got)
		}
	}
}
