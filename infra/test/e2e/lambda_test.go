package e2e_test

import (
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/lambda/lambdatest"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// A lambda is the process of a function with its own Lambda runtime API.
type lambda struct {
	*e2e.Process
	*lambdatest.Runtime
}

// startLambda starts a function as Lambda does, and waits until it requests the first event.
func startLambda(t *testing.T, name string, settings ...string) lambda {
	t.Helper()
	runtime := lambdatest.New(t)
	l := lambda{e2e.Launch(t, name, slices.Concat(settings, lambdaSettings(name, runtime))...), runtime}
	select {
	case <-l.Ready():
	case <-l.Done():
		t.Fatalf("%s exited before it requested an event: %s", name, l.Logs())
	case <-time.After(30 * time.Second):
		t.Fatalf("%s requests no event after 30 s: %s", name, l.Logs())
	}
	return l
}

// lambdaSettings returns some of the settings that Lambda adds.
func lambdaSettings(name string, runtime *lambdatest.Runtime) []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + runtime.Address, "AWS_LAMBDA_FUNCTION_NAME=" + name, "AWS_REGION=eu-central-1",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "LAMBDA_TASK_ROOT=/var/task", "_HANDLER=bootstrap", "TZ=:UTC",
	}
}

// startLambdas starts every function of a system a second time, with the same database and
// keys.
func startLambdas(t *testing.T, s *system) map[string]lambda {
	t.Helper()
	all := map[string]lambda{}
	for name, env := range s.env {
		all[name] = startLambda(t, name, env...)
	}
	return all
}

// A transport sends a request to a function.
type transport struct {
	name string
	send func(t *testing.T, function string, r *http.Request) answer
}

type answer struct {
	status int
	header http.Header
	body   string
}

// transportsOf returns the transports to one system: HTTP to its processes, and each gateway to
// its Lambda functions.
func transportsOf(s *system, lambdas map[string]lambda) []transport {
	through := func(gateway func(*lambdatest.Runtime) http.RoundTripper) func(*testing.T, string, *http.Request) answer {
		return func(t *testing.T, function string, r *http.Request) answer {
			t.Helper()
			r.URL.Scheme, r.URL.Host = "https", "gateway.example"
			return send(t, gateway(lambdas[function].Runtime), r)
		}
	}
	return []transport{
		{"HTTP", func(t *testing.T, function string, r *http.Request) answer {
			t.Helper()
			r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(s.processes[function].URL, "http://")
			return send(t, &http.Transport{DisableKeepAlives: true}, r)
		}},
		{"an HTTP API", through(func(r *lambdatest.Runtime) http.RoundTripper { return lambdatest.HTTPAPI(r) })},
		{"a Function URL", through(func(r *lambdatest.Runtime) http.RoundTripper { return lambdatest.FunctionURL(r) })},
		{"an HTTP API that encodes every body", through(func(r *lambdatest.Runtime) http.RoundTripper {
			g := lambdatest.HTTPAPI(r)
			g.Base64 = true
			return g
		})},
		{"an HTTP API with a named stage", through(func(r *lambdatest.Runtime) http.RoundTripper {
			g := lambdatest.HTTPAPI(r)
			g.Stage = "prod"
			return g
		})},
		{"an HTTP API with a stage named like a path", through(func(r *lambdatest.Runtime) http.RoundTripper {
			g := lambdatest.HTTPAPI(r)
			g.Stage = "api"
			return g
		})},
	}
}

func send(t *testing.T, roundTripper http.RoundTripper, r *http.Request) answer {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: roundTripper}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func TestLambda_SignoutTakesEffectImmediately(t *testing.T) {
	s := start(t, mongotest.URI(t))
	for _, d := range transportsOf(s, startLambdas(t, s))[1:] {
		t.Run("through "+d.name, func(t *testing.T) {
			call := func(function, method, bearer, body string, want int) string {
				t.Helper()
				header := http.Header{}
				if body != "" {
					header.Set("Content-Type", "application/json")
				}
				if bearer != "" {
					header.Set("Authorization", "Bearer "+bearer)
				}
				got := d.send(t, function, request(t, method, "/api/users/"+function, header, body))
				if got.status != want {
					t.Fatalf("%s: got %d %s, want %d", function, got.status, got.body, want)
				}
				return got.body
			}
			email := strings.ReplaceAll(d.name, " ", ".") + "@example.com"
			first := parseTokens(t, call("signup", "POST", "", credentials(email), http.StatusCreated))
			second := parseTokens(t, call("signin", "POST", "", credentials(email), http.StatusOK))
			if body := call("currentuser", "GET", second.Token, "", http.StatusOK); !strings.Contains(body, strings.ToLower(email)) {
				t.Errorf("currentuser: got %s, want the email %s", body, email)
			}
			call("signout", "POST", second.Token, "", http.StatusOK)
			call("currentuser", "GET", second.Token, "", http.StatusUnauthorized)
			call("refresh", "POST", "", `{"refreshToken":"`+second.RefreshToken+`"}`, http.StatusUnauthorized)
			call("signout", "POST", second.Token, "", http.StatusOK)
			call("currentuser", "GET", first.Token, "", http.StatusOK) // another session of the same user
			call("refresh", "POST", "", `{"refreshToken":"`+first.RefreshToken+`"}`, http.StatusOK)
		})
	}
}

func request(t *testing.T, method, path string, header http.Header, body string) *http.Request {
	t.Helper()
	var sent io.Reader // nil if there is no body
	if body != "" {
		sent = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, path, sent)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	return r
}

// The responses to the same requests must not differ between the transports in status, headers
// or body. {me} is a different user for each transport, {token} an access token of that user.
// The tests of the functions check the HTTP response itself. Here the status shows that the
// case tests the condition in its name.
func TestLambda_MatchesHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, mongotest.URI(t), "CORS_ALLOWED_ORIGINS=https://tickets.example")
	transports := transportsOf(s, startLambdas(t, s))
	users := map[string]testUser{}
	for _, d := range transports {
		me := strings.ToLower(strings.ReplaceAll(d.name, " ", ".")) + ".user"
		signedUp := d.send(t, "signup", request(t, "POST", "/api/users/signup", jsonBody, credentials(me+"@example.com")))
		users[d.name] = testUser{me, parseTokens(t, signedUp.body)}
	}
	good := `{"email":"{me}@example.com","password":"correct horse battery staple"}`
	bearer := http.Header{"Authorization": {"Bearer {token}"}}
	for _, c := range []struct {
		name, function, method, path string
		header                       http.Header
		body                         string
		status                       int
	}{
		{"a sign-up returns a session", "signup", "POST", "/api/users/signup", jsonBody, strings.Replace(good, "{me}", "new.{me}", 1), 201},
		{"a sign-in returns a session", "signin", "POST", "/api/users/signin", jsonBody, good, 200},
		{"a valid token returns the current user", "currentuser", "GET", "/api/users/currentuser", bearer, "", 200},
		{"no token returns no user", "currentuser", "GET", "/api/users/currentuser", nil, "", 200},
		{"HEAD has the headers of GET and no body", "currentuser", "HEAD", "/api/users/currentuser", bearer, "", 200},
		{"the key set is public and may be cached", "jwks", "GET", "/.well-known/jwks.json", nil, "", 200},
		{"HEAD of the key set may be cached as well", "jwks", "HEAD", "/.well-known/jwks.json", nil, "", 200},
		{"a liveness probe succeeds", "jwks", "GET", "/health/liveness", nil, "", 200},

		{"an email that is in use is rejected", "signup", "POST", "/api/users/signup", jsonBody, good, 400},
		{"all invalid fields are listed at once", "signup", "POST", "/api/users/signup", jsonBody, `{"email":"ann","password":"short"}`, 400},
		{"missing members are listed at once", "signin", "POST", "/api/users/signin", jsonBody, `{}`, 400},
		{"half an object is rejected", "signin", "POST", "/api/users/signin", jsonBody, `{"email":`, 400},
		{"a body that is not UTF-8 is rejected", "signup", "POST", "/api/users/signup", jsonBody, "{\"email\":\"\xff\xfe\"}", 400},
		{"an empty body is rejected", "signup", "POST", "/api/users/signup", jsonBody, "", 400},
		{"a wrong password is rejected", "signin", "POST", "/api/users/signin", jsonBody, strings.Replace(good, "correct", "wrong", 1), 401},
		{"a password beyond ASCII is compared byte for byte", "signin", "POST", "/api/users/signin", jsonBody, strings.Replace(good, "correct", "schön 🐎", 1), 401},

		{"a sign-out without a token is rejected", "signout", "POST", "/api/users/signout", nil, "", 401},
		{"a forged token is rejected", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer {token}A"}}, "", 401},
		{"another scheme is anonymous", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Basic {token}"}}, "", 200},
		{"a scheme in lower case is accepted", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"bearer {token}"}}, "", 200},
		{"a Bearer header behind a Basic header is rejected", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Basic YW5uOnB3", "Bearer {token}"}}, "", 401},
		{"two Authorization headers are rejected", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer {token}", "Bearer {token}"}}, "", 401},
		{"a second, empty Authorization header is rejected", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer {token}", ""}}, "", 401},
		{"a token over 8 KiB is rejected", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer " + strings.Repeat("a", 8<<10+1)}}, "", 401},
		{"a cookie carries no identity", "currentuser", "GET", "/api/users/currentuser", http.Header{"Cookie": {"session={token}; token={token}"}}, "", 200},
		{"a query carries no identity", "currentuser", "GET", "/api/users/currentuser?access_token={token}&token=%7B%7D", nil, "", 200},
		{"other headers carry no identity", "currentuser", "GET", "/api/users/currentuser", http.Header{"X-User-Id": {"{me}"}, "X-Forwarded-User": {"{me}"}}, "", 200},

		{"a request with an idempotency key succeeds", "signup", "POST", "/api/users/signup", keyed("{me}"), strings.Replace(good, "{me}", "keyed.{me}", 1), 201},
		{"its retry returns the same response", "signup", "POST", "/api/users/signup", keyed("{me}"), strings.Replace(good, "{me}", "keyed.{me}", 1), 201},
		{"another request with its key is rejected", "signup", "POST", "/api/users/signup", keyed("{me}"), strings.Replace(good, "{me}", "other.{me}", 1), 422},
		{"a request with two keys is rejected", "signup", "POST", "/api/users/signup", keyed("1", "2"), good, 400},

		{"an unknown path is not found", "signup", "POST", "/api/users", jsonBody, good, 404},
		{"a path with a trailing slash is not found", "signup", "POST", "/api/users/signup/", jsonBody, good, 404},
		{"a path with a double slash is not found", "signup", "POST", "//api/users/signup", jsonBody, good, 404},
		{"a path with an escaped letter is not found", "signup", "POST", "/api/users/s%69gnup", jsonBody, good, 404},
		{"a path with an escaped slash is not found", "currentuser", "GET", "/api%2Fusers/currentuser", nil, "", 404},
		{"a path with an escaped question mark is not found", "currentuser", "GET", "/api/users/currentuser%3Fx", nil, "", 404},
		{"a path with a dot segment is not found", "currentuser", "GET", "/api/../api/users/currentuser", nil, "", 404},
		{"a path of any bytes is not found", "jwks", "GET", "/%00%0A%20%22%25%2F%7F%C3%A9%FF%F0%9F%90%8E", nil, "", 404},
		{"a percent sign is not found", "jwks", "GET", "/100%25", nil, "", 404},
		{"the root path is not found", "jwks", "GET", "/", nil, "", 404},
		{"another method lists the allowed method", "signup", "DELETE", "/api/users/signup", nil, "", 405},
		{"a POST to a GET route lists HEAD too", "currentuser", "POST", "/api/users/currentuser", jsonBody, good, 405},

		{"a body of almost 16 KiB is accepted", "signin", "POST", "/api/users/signin", jsonBody, good + strings.Repeat(" ", 15<<10), 200},
		{"a body over 16 KiB is rejected", "signin", "POST", "/api/users/signin", jsonBody, good + strings.Repeat(" ", 16<<10), 413},
		{"another media type is rejected", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"text/plain"}}, good, 415},
		{"a binary body is rejected", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/octet-stream"}}, "\x00\xff\xfe", 415},
		{"a body without a media type is rejected", "signin", "POST", "/api/users/signin", nil, good, 415},
		{"a body with a content encoding is rejected", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, good, 415},
		{"two encodings with an unsupported one are rejected", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"identity", "br"}}, good, 415},
		{"the encoding identity is accepted", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"Identity"}}, good, 200},
		{"two media types are rejected", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json", "application/json"}}, good, 415},
		{"a parameter of the media type is accepted", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json; charset=utf-8"}}, good, 200},
		{"an event is rejected", "signup", "POST", "/api/users/signup", http.Header{"Content-Type": {"application/cloudevents+json"}}, good, 415},
		{"an event in binary mode is rejected", "signup", "POST", "/api/users/signup", http.Header{"Content-Type": {"application/json"}, "Ce-Id": {"1"}}, good, 415},

		{"a preflight of an allowed origin succeeds", "currentuser", "OPTIONS", "/api/users/currentuser", http.Header{"Origin": {"https://tickets.example"}, "Access-Control-Request-Method": {"GET"}}, "", 204},
		{"a preflight of another origin gets no CORS headers", "currentuser", "OPTIONS", "/api/users/currentuser", http.Header{"Origin": {"https://other.example"}, "Access-Control-Request-Method": {"GET"}}, "", 204},
		{"an allowed origin gets CORS headers", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Origin": {"https://tickets.example"}}, good, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want answer
			for _, d := range transports {
				if decodesToRoute[c.path] && strings.HasPrefix(d.name, "an HTTP API") {
					continue // it forwards the decoded path, which is a route
				}
				me := users[d.name]
				header := c.header.Clone()
				for name, values := range header {
					for i, value := range values {
						header[name][i] = me.expand(value)
					}
				}
				got := me.normalize(d.send(t, c.function, request(t, c.method, me.expand(c.path), header, me.expand(c.body))))
				switch {
				case d.name == "HTTP":
					want = got
					if got.status != c.status {
						t.Errorf("over %s: got %d %s, want %d", d.name, got.status, got.body, c.status)
					}
				case got.status != want.status || !maps.Equal(flat(got.header), flat(want.header)) || got.body != want.body:
					t.Errorf("through %s: got %d %v %s\nwant as over HTTP: %d %v %s", d.name, got.status, got.header, got.body, want.status, want.header, want.body)
				}
			}
		})
	}
}

// decodesToRoute has the paths that become a route when they are decoded.
var decodesToRoute = map[string]bool{"/api/users/s%69gnup": true, "/api%2Fusers/currentuser": true, "/api/users/currentuser%3Fx": true}

var jsonBody = http.Header{"Content-Type": {"application/json"}}

// keyed returns the headers of a JSON request with Idempotency-Key headers.
func keyed(keys ...string) http.Header {
	h := jsonBody.Clone()
	for _, key := range keys {
		h.Add("Idempotency-Key", `"`+key+`"`)
	}
	return h
}

// A testUser is the user of one transport.
type testUser struct {
	name string
	tokenPair
}

// expand replaces {me} and {token} by the values of the user.
func (u testUser) expand(s string) string {
	return strings.NewReplacer("{me}", u.name, "{token}", u.Token).Replace(s)
}

var ownValues = regexp.MustCompile(`"(id|token|refreshToken)":"[^"]+"`)

// normalize removes from a response the values of the user and the headers that may vary.
func (u testUser) normalize(a answer) answer {
	a.body = strings.ReplaceAll(ownValues.ReplaceAllString(a.body, `"$1":"…"`), u.name, "{me}")
	for _, varying := range []string{"Date", "Connection", "Content-Length"} {
		a.header.Del(varying)
	}
	if device := a.header.Get("Device-Token"); device != "" { // each client has a token of its own
		for _, name := range []string{"Device-Token", "Set-Cookie"} {
			a.header.Set(name, strings.ReplaceAll(a.header.Get(name), device, "{device}"))
		}
	}
	return a
}

// flat joins the values of each header, as a gateway must (RFC 9110 section 5.3).
func flat(h http.Header) map[string]string {
	flat := map[string]string{}
	for name, values := range h {
		flat[name] = strings.Join(values, ", ")
	}
	return flat
}

// A client that may invoke the function can send any event. The function answers and keeps
// running.
func TestLambda_MalformedEvent(t *testing.T) {
	keys := start(t, mongotest.URI(t)).env["jwks"]
	l := startLambda(t, "jwks", keys...)
	const context = `"requestContext":{"http":{"method":"GET"}}`
	rejected := `"statusCode":400`
	for _, c := range []struct {
		name, event, payload string
	}{
		{"an object without members is rejected", `{}`, rejected},
		{"null is rejected", `null`, rejected},
		{"a test event of the console is rejected", `{"key1":"value1","key2":"value2"}`, rejected},
		{"an event in payload format 1.0 is rejected", `{"version":"1.0","resource":"/x","path":"/.well-known/jwks.json","httpMethod":"GET","headers":{},"multiValueHeaders":{},"requestContext":{"httpMethod":"GET"},"body":null}`, rejected},
		{"an event of a message queue is rejected", `{"Records":[{"messageId":"1","body":"{}","eventSource":"aws:sqs"}]}`, rejected},
		{"a path without a slash is rejected", `{"rawPath":"x",` + context + `}`, rejected},
		{"a path with a line feed is not found", `{"rawPath":"/\n",` + context + `}`, `"statusCode":404`},
		{"a query with a line feed is rejected", `{"rawPath":"/","rawQueryString":"\n",` + context + `}`, rejected},
		{"a method with a space is rejected", `{"rawPath":"/","requestContext":{"http":{"method":"GET /"}}}`, rejected},
		{"a body that is not base64 is rejected", `{"rawPath":"/","body":"*","isBase64Encoded":true,` + context + `}`, rejected},
		{"a header with a line feed is dropped", `{"rawPath":"/","headers":{"a\r\nb":"c\r\nd"},` + context + `}`, `"statusCode":404`},
		{"an array is rejected", `[]`, rejected},
		{"a string is rejected", `"x"`, rejected},
		{"a number for a path is rejected", `{"rawPath":1}`, rejected},
		{"half an object is rejected", `{"rawPath":`, rejected},
		{"an empty event is rejected", ``, rejected},
		{"text that is not Unicode is rejected", `{"rawPath":"/","headers":{"\ud800":"\udc00"},"requestContext":{"http":{"method":"\ud800"}}}`, rejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := l.Invoke(t.Context(), []byte(c.event))
			if err != nil || got.Error != "" || !strings.Contains(string(got.Payload), c.payload) {
				t.Errorf("got the error %q, payload %s, %v; want a payload with %s", got.Error, got.Payload, err, c.payload)
			}
			after := send(t, lambdatest.HTTPAPI(l.Runtime), request(t, "GET", "https://gateway.example/.well-known/jwks.json", nil, ""))
			if after.status != http.StatusOK {
				t.Errorf("the next event: got %d %s, want 200", after.status, after.body)
			}
		})
	}
}

// A function with invalid settings exits as it does outside of Lambda, before it requests an
// event. In AWS its log has the list, and the invocation fails with Runtime.ExitError.
func TestLambda_InvalidSettings(t *testing.T) {
	wrong := []string{"MONGODB_URI=postgres://db", "TOKEN_ISSUER=x", "ACCESS_TOKEN_TTL=soon", "LOG_LEVEL=loud", "PORT=http"}
	code, want := e2e.MustFail(t, wrong, "signin")
	if code != 2 || strings.Count(want, "\n") != 1+5 {
		t.Fatalf("outside of Lambda: got exit code %d, %q; want 2 and five problems", code, want)
	}
	runtime := lambdatest.New(t)
	code, got := e2e.MustFail(t, slices.Concat(wrong, lambdaSettings("signin", runtime)), "signin")
	if code != 2 || got != want {
		t.Errorf("got exit code %d, %q; want 2, %q", code, got, want)
	}
	if n := runtime.Requests(); n > 0 {
		t.Errorf("got %d requests for events, want none", n)
	}
}

func TestLambda_SIGTERM(t *testing.T) {
	keys := start(t, mongotest.URI(t)).env["jwks"]
	fastest := time.Hour // a busy machine delays some of them
	for range 10 {
		l := startLambda(t, "jwks", keys...)
		began := time.Now()
		if code := l.Signal(syscall.SIGTERM); code != 0 || l.Logs() != "" {
			t.Errorf("got exit code %d and the log %q, want 0 and none", code, l.Logs())
		}
		fastest = min(fastest, time.Since(began))
	}
	if fastest > 300*time.Millisecond { // the shortest time that Lambda grants
		t.Errorf("the fastest of ten functions took %s to exit, want at most 300 ms", fastest)
	}
}

// Lambda freezes a process after its response. When the process resumes minutes later, its
// connections have been closed, and it has not noticed.
func TestLambda_ResumeAfterFreeze(t *testing.T) {
	t.Parallel()
	server := mongotest.Server(t)
	s := start(t, server.URI())
	l := startLambda(t, "signin", s.env["signin"]...)
	s.post(t, "signup", "", credentials("ann@example.com"))
	signin := func() answer {
		t.Helper()
		return send(t, lambdatest.HTTPAPI(l.Runtime), request(t, "POST", "https://gateway.example/api/users/signin", jsonBody, credentials("ann@example.com")))
	}
	if got := signin(); got.status != http.StatusOK {
		t.Fatalf("signin before the freeze: got %d %s, want 200", got.status, got.body)
	}
	l.Send(syscall.SIGSTOP)
	server.Kill()
	server.Start()
	l.Send(syscall.SIGCONT)
	if got := signin(); got.status != http.StatusOK {
		t.Errorf("signin after the freeze: got %d %s, want 200: %s", got.status, got.body, l.Logs())
	}
	if code := l.Signal(os.Interrupt); code != 0 {
		t.Errorf("got exit code %d, want 0: %s", code, l.Logs())
	}
}
