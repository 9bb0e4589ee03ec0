package openapi

import (
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/ratelimit"
)

// errorSamples returns samples of the errors that follow from the declaration of the
// function. Client errors are recorded from the HTTP handler of the function. Each request
// fails before the function uses a dependency such as the database.
func (f operationOf) errorSamples() []sample {
	var all []sample
	record := func(name, summary string, x request) {
		all = append(all, f.record(name, summary, x))
	}
	if f.Access == endpoint.Service {
		record("no-service", "The request has no credentials of a service.", request{Body: "token=x"})
	} else if f.Access != endpoint.Public {
		if f.Access == endpoint.Required {
			record("no-token", "The request has no token.", request{})
		}
		record("invalid-token", "The service did not issue this token.", request{Headers: map[string]string{"Authorization": "Bearer not.a.token"}})
		record("empty-token", "The bearer token is empty.", request{Headers: map[string]string{"Authorization": "Bearer"}})
		record("unsupported-scheme", "The credentials are not a bearer token.", request{Headers: map[string]string{"Authorization": "Basic YW5uOnNlY3JldA=="}})
	}
	record("unsupported-method", "The path does not support this method.", request{Method: f.unsupported()})
	if f.Form() != nil {
		record("missing-members", "All members are missing.", request{Headers: service(), Body: "x=y"})
		record("too-large", "The body exceeds the size limit.", request{Headers: service(), Body: "x=y", Length: endpoint.MaxBody + 1})
		record("unsupported-type", "The body is not a form.", request{Headers: map[string]string{"Authorization": service()["Authorization"], "Content-Type": "application/json"}, Body: "{}"})
	} else if f.HasBody() {
		record("missing-members", "All members are missing.", request{Body: "{}"})
		record("not-an-object", "The body is JSON, but not an object.", request{Body: "[]"})
		record("too-large", "The body exceeds the size limit.", request{Body: "{}", Length: endpoint.MaxBody + 1})
		record("unsupported-type", "The body is not JSON.", request{Headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, Body: "email=ann"})
	}
	if f.IsKeyed() {
		record("malformed-key", "The Idempotency-Key has only one quotation mark.", request{Headers: map[string]string{"Idempotency-Key": `"8e03978e`}, Body: "{}"})
	}
	if f.Method == http.MethodPost {
		record("cloudevent", "The operation does not accept CloudEvents.", request{Headers: map[string]string{"Ce-Specversion": "1.0"}})
	}
	return append(all, f.otherErrors()...)
}

// otherErrors returns samples of the errors that the dependencies and the rate limits of the
// function cause.
func (f operationOf) otherErrors() []sample {
	var all []sample
	if f.function == "jwks" && slices.Contains(f.Refuses, apierror.NotFound) {
		all = append(all, errorSample("no-document", "TOKEN_ISSUER is not an https URL without a path.", apierror.New(apierror.NotFound, "There is nothing here.")))
	}
	all = append(all, errorSample("internal-error", "An error in the service.", errors.New("unexpected")))
	if f.UsesDatabase() {
		all = append(all, errorSample("database-unavailable", "The database does not respond.", apierror.Unreachable(nil)))
	}
	if f.Hashes {
		all = append(all, errorSample("overloaded", "The queue for password checks is full.", apierror.Busy(time.Second, nil)))
	}
	if f.checksPassword() {
		all = append(all, errorSample("account-limit", "Too many sign-in attempts to the account failed or are in flight.", apierror.Limited("account", 10, 15*time.Minute, 8*time.Second)))
	}
	if limit, is := ratelimit.Default(f.Limited); is {
		all = append(all, errorSample("address-limit", "The client address exceeded its rate limit.", apierror.Limited(limit.Name, limit.Quota, limit.Window, limit.Window/2)))
	}
	return all
}

// unsupported returns a method that the path does not support.
func (f operationOf) unsupported() string {
	for _, method := range []string{http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if !slices.Contains(f.methods, method) {
			return method
		}
	}
	return http.MethodPost
}

func errorSample(name, summary string, err error) sample {
	r := endpoint.Refuse(apierror.From(err))
	return sample{name: name, summary: summary, status: r.Status, headers: specificHeaders(r.Header), response: string(r.Body)}
}

// specificHeaders returns the headers that not every response has.
func specificHeaders(h http.Header) map[string]string {
	all := map[string]string{}
	for _, name := range []string{"Allow", "Retry-After", "RateLimit", "RateLimit-Policy", "WWW-Authenticate"} {
		if value := h.Get(name); value != "" {
			all[name] = value
		}
	}
	return all
}

// record returns the sample of a request with the response of the function.
func (f operationOf) record(name, summary string, x request) sample {
	sent := maps.Clone(x.Headers)
	if f.Access == endpoint.Required && x.Body != "" && x.Headers["Authorization"] == "" {
		sent, x.Headers = withToken(sent, sampleToken()), withToken(x.Headers, first)
	}
	got := f.call(x.Method, sent, x.Body+strings.Repeat(" ", max(0, x.Length-len(x.Body))))
	return sample{name: name, summary: summary, request: &x, status: got.StatusCode, headers: specificHeaders(got.Header), response: got.body}
}

func withToken(headers map[string]string, access string) map[string]string {
	all := map[string]string{"Authorization": "Bearer " + access}
	maps.Copy(all, headers)
	return all
}

// sampleToken returns a token that the handler accepts. The document has a placeholder in its
// place, because the token depends on the time.
func sampleToken() string {
	keys, err := token.ParsePrivate([]byte(accesstoken.Signing.Secret.Sample()))
	if err != nil {
		panic(err) // the sample is valid
	}
	access, err := token.NewIssuer(keys, "ticketing", "ticketing", "web", time.Hour).
		Issue(token.Claims{Subject: "ann", Session: "5e55", ID: "t", Email: "ann@example.com", IssuedAt: time.Now()})
	if err != nil {
		panic(err)
	}
	return access
}

// service returns the header with the credentials of the sample of INTROSPECTION_CLIENTS.
func service() map[string]string {
	return map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(identity.Clients.Secret.Sample()))}
}

type recorded struct {
	*http.Response
	body string
}

// call sends a request to the HTTP handler of the function. An empty method means the
// function's own.
func (f operationOf) call(method string, headers map[string]string, body string) recorded {
	if method == "" {
		method = f.Method
	}
	r := httptest.NewRequest(method, strings.ReplaceAll(strings.ReplaceAll(f.Path, "{", ""), "}", ""), strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", f.mediaType())
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return recorded{w.Result(), w.Body.String()}
}
