package openapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/ratelimit"
)

// refused are the examples of what a function refuses whatever its business: what its
// own door says of such requests, and the faults of its parts. The door is asked only
// what it answers before the handle is called, or what the handle answers before it
// needs anything.
func (f function) refused() []scene {
	var all []scene
	ask := func(name, summary string, x exchange) {
		all = append(all, f.asked(name, summary, x))
	}
	if f.takesBearer() {
		if !f.Anonymous {
			ask("no-token", "No token was sent.", exchange{})
		}
		ask("no-such-token", "The token was not made here.", exchange{Headers: map[string]string{"Authorization": "Bearer not.a.token"}})
		ask("empty-token", "The bearer token is empty.", exchange{Headers: map[string]string{"Authorization": "Bearer"}})
		ask("another-scheme", "The credentials are no bearer token.", exchange{Headers: map[string]string{"Authorization": "Basic YW5uOnNlY3JldA=="}})
	}
	ask("another-method", "The path has no such method.", exchange{Method: http.MethodPut})
	if f.takesBody() {
		ask("nothing", "All members are missing.", exchange{Body: "{}"})
		ask("no-object", "The body is JSON, but no object.", exchange{Body: "[]"})
		ask("too-large", "The body is over its limit.", exchange{Body: "{}", Length: endpoint.MaxBody + 1})
		ask("a-form", "The body is no JSON.", exchange{Headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, Body: "email=ann"})
	}
	if f.keyed() {
		ask("half-a-key", "The Idempotency-Key has one quote.", exchange{Headers: map[string]string{"Idempotency-Key": `"8e03978e`}, Body: "{}"})
	}
	if f.Method == http.MethodPost {
		ask("an-event", "A CloudEvent; those are taken elsewhere.", exchange{Headers: map[string]string{"Ce-Specversion": "1.0"}})
	}
	return append(all, f.faults()...)
}

// faults are what the parts of a function can come to, whoever calls it.
func (f function) faults() []scene {
	all := []scene{faulty("unforeseen", "A fault of the system itself.", errors.New("not foreseen"))}
	if slices.Contains(f.Required, "MONGODB_URI") {
		all = append(all, faulty("away", "The database does not answer.", apierror.Unreachable(nil)))
	}
	if slices.Contains(f.Optional, "HASH_CONCURRENCY") {
		all = append(all, faulty("busy", "More passwords are being checked than there is room for.", apierror.Busy(time.Second, nil)))
	}
	if f.givesDevice() {
		all = append(all, faulty("account-limit", "Too many sign-in attempts have failed, or are in flight.", apierror.Limited("account", 10, 15*time.Minute, 8*time.Second)))
	}
	if limit, is := ratelimit.Default(f.Name); is && f.counts() {
		all = append(all, faulty("too-many", "The address has used up what it may ask for.", apierror.Limited(limit.Name, limit.Quota, limit.Window, limit.Window/2)))
	}
	return all
}

// counts tells whether the function bounds how often one address may call it.
func (f function) counts() bool { return slices.Contains(f.Optional, "RATE_LIMIT") }

func faulty(name, summary string, err error) scene {
	r := endpoint.Refuse(apierror.From(err))
	return scene{name: name, summary: summary, status: r.Status, headers: particular(r.Header), answer: string(r.Body)}
}

// particular are the headers that not every answer has.
func particular(h http.Header) map[string]string {
	all := map[string]string{}
	for _, name := range []string{"Allow", "Retry-After", "RateLimit", "RateLimit-Policy", "WWW-Authenticate"} {
		if value := h.Get(name); value != "" {
			all[name] = value
		}
	}
	return all
}

// asked is the example of a request, with what the function answers to it.
func (f function) asked(name, summary string, x exchange) scene {
	got := f.answer(x.Method, x.Headers, x.Body+strings.Repeat(" ", max(0, x.Length-len(x.Body))))
	return scene{name: name, summary: summary, request: &x, status: got.StatusCode, headers: particular(got.Header), answer: got.body}
}

type answer struct {
	*http.Response
	body string
}

// answer is what the function's own door says.
func (f function) answer(method string, headers map[string]string, body string) answer {
	if method == "" {
		method = f.Method
	}
	r := httptest.NewRequest(method, f.Path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	f.door.ServeHTTP(w, r)
	return answer{w.Result(), w.Body.String()}
}
