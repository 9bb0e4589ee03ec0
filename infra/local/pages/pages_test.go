package pages_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"ticketing.com/auth/infra/local/pages"
)

// next answers the requests that are not for the pages, such as those of the API.
var next = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })

func request(method, target string) (*http.Response, string) {
	w := httptest.NewRecorder()
	pages.Handler(next).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	body, _ := io.ReadAll(w.Result().Body)
	return w.Result(), string(body)
}

func TestPages(t *testing.T) {
	for purpose, c := range map[string]struct {
		title, action  string
		password, code bool
	}{
		"verification": {"Confirm your email", "/api/users/verification/confirm", false, true},
		"recovery":     {"Choose a new password", "/api/users/recovery/confirm", true, true},
		"email":        {"Confirm your new email", "/api/users/email/confirm", false, true},
		"undo":         {"Undo the change of your email", "/api/users/email/undo", false, false},
	} {
		r, body := request("GET", "/confirm/"+purpose)
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/html; charset=utf-8" || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: got %d %v, want 200, text/html, no-store and no-referrer", purpose, r.StatusCode, r.Header)
		}
		for part, want := range map[string]bool{
			"<h1>" + c.title + "</h1>": true, `data-action="` + c.action + `"`: true, `<html lang="en">`: true, `role="status"`: true, " hidden>": true,
			`<label for="password">`: c.password, `autocomplete="new-password"`: c.password, "enter the code of the mail": c.code,
			"<script>": false, "style=": false, " action=": false, "onclick": false, "//": false,
		} {
			if strings.Contains(body, part) != want {
				t.Errorf("%s: got the page %s, want %q in it: %t", purpose, body, part, want)
			}
		}
		if n := strings.Count(body, "<button"); n != 1 {
			t.Errorf("%s: got %d buttons, want 1", purpose, n)
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(body, -1) {
			if r, body := request("GET", m[1]); r.StatusCode != http.StatusOK || body == "" {
				t.Errorf("%s refers to %s: got %d, want 200", purpose, m[1], r.StatusCode)
			}
		}
		policy := r.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; ") || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: got the policy %s, want one without inline code and frames", purpose, policy)
		}
	}
}

// Only the API changes something. The pages answer GET and HEAD alone, and send no request by
// themselves.
func TestPages_OtherPathsAndMethods(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		if r, _ := request(method, "/confirm/recovery"); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d %v, want 405", method, r.StatusCode, r.Header)
		}
	}
	for target, want := range map[string]int{
		"/confirm": http.StatusNotFound, "/confirm/": http.StatusNotFound, "/confirm/newdevice": http.StatusNotFound, "/confirm/recovery/": http.StatusNotFound, "/confirm/page.html": http.StatusNotFound,
		"/confirmation": http.StatusTeapot, "/api/users/recovery/confirm": http.StatusTeapot,
	} {
		if r, _ := request("GET", target); r.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, r.StatusCode, want)
		}
	}
	_, script := request("GET", "/confirm/confirm.js")
	if before, _, _ := strings.Cut(script, `addEventListener("submit"`); strings.Contains(before, "confirm();") || strings.Count(script, "await confirm()") != 1 {
		t.Errorf("got the script %s, want one call of confirm, in the handler of the button", script)
	}
}
