// Package pages serves the pages that the links in mails lead to. It is for development: a
// deployment has pages of its own, at PUBLIC_URL.
//
// The token of a link is in the fragment, which a browser sends to no server. A page describes its
// effect, and sends the token to the API only after the user presses the button. So a request for a
// page changes nothing: link scanners and prefetching cannot use up a token.
package pages

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"strings"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/httpserver"
)

// Path is the path above the pages.
const Path = "/confirm"

// A page asks the user to confirm something.
type page struct {
	Title    string
	About    string // the effect of the button
	Button   string
	Done     string // shown if the response has no message
	Action   string // the route that takes the token
	Password bool   // the user chooses a new password
	Code     bool   // the mail also has a code
}

var byPurpose = map[event.Purpose]page{
	event.Verification: {Title: "Confirm your email", About: "This confirms that you receive mails at this address.",
		Button: "Confirm my email", Done: "Your email is confirmed.", Action: "/api/users/verification/confirm", Code: true},
	event.Recovery: {Title: "Choose a new password", About: "This sets a new password and signs you out on all devices.",
		Button: "Set the new password", Done: "Your password is changed. Sign in with it.", Action: "/api/users/recovery/confirm", Password: true, Code: true},
	event.EmailChange: {Title: "Confirm your new email", About: "This makes this address the email of your account.",
		Button: "Use this email", Done: "Your email is changed.", Action: "/api/users/email/confirm", Code: true},
	event.EmailUndo: {Title: "Undo the change of your email", About: "This restores the earlier email of your account and signs you out on all devices.",
		Button: "Restore my earlier email", Done: "Your earlier email is restored. Reset your password now.", Action: "/api/users/email/undo"},
}

var (
	//go:embed page.html confirm.js page.css
	files  embed.FS
	layout = template.Must(template.ParseFS(files, "page.html"))
)

// policy allows no inline code, and requests to the own origin only.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns a handler that serves the pages, and passes all other paths to next. next must
// drain its requests itself.
func Handler(next http.Handler) http.Handler {
	own := httpserver.Drain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(r).Write(w) }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.EscapedPath(); path == Path || strings.HasPrefix(path, Path+"/") {
			own.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(r *http.Request) endpoint.Response {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return endpoint.Refuse(apierror.Method("GET, HEAD"))
	}
	name := strings.TrimPrefix(r.URL.EscapedPath(), Path+"/")
	switch name {
	case "confirm.js":
		return file(name, "text/javascript; charset=utf-8")
	case "page.css":
		return file(name, "text/css; charset=utf-8")
	}
	p, found := byPurpose[event.Purpose(name)]
	if !found {
		return endpoint.Refuse(apierror.New(apierror.NotFound, "There is nothing here."))
	}
	var out bytes.Buffer
	if err := layout.Execute(&out, p); err != nil {
		return endpoint.Refuse(apierror.From(err))
	}
	return Response("text/html; charset=utf-8", policy, out.Bytes())
}

func file(name, contentType string) endpoint.Response {
	content, err := files.ReadFile(name)
	if err != nil {
		return endpoint.Refuse(apierror.From(err))
	}
	return Response(contentType, policy, content)
}

// Response returns a response with a page, or with a part of one, that has a Content-Security-Policy.
func Response(contentType, policy string, body []byte) endpoint.Response {
	return endpoint.Response{Status: http.StatusOK, Body: body, Header: http.Header{
		"Content-Type":            {contentType},
		"X-Content-Type-Options":  {"nosniff"},
		"Cache-Control":           {"no-store"},
		"Content-Security-Policy": {policy},
		"Referrer-Policy":         {"no-referrer"},
	}}
}
