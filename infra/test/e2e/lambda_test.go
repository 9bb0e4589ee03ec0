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

// A lambda is a function's process in an execution environment of its own.
type lambda struct {
	*e2e.Process
	*lambdatest.Runtime
}

// startLambda starts a function as Lambda does, and waits until it asks for events.
func startLambda(t *testing.T, name string, settings ...string) lambda {
	t.Helper()
	runtime := lambdatest.New(t)
	l := lambda{e2e.Launch(t, name, slices.Concat(settings, lambdaSettings(name, runtime))...), runtime}
	select {
	case <-l.Ready():
	case <-l.Done():
		t.Fatalf("%s ended: %s", name, l.Logs())
	case <-time.After(30 * time.Second):
		t.Fatalf("%s asks for no event: %s", name, l.Logs())
	}
	return l
}

// lambdaSettings are some of those that Lambda adds to a function's own.
func lambdaSettings(name string, runtime *lambdatest.Runtime) []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + runtime.Address, "AWS_LAMBDA_FUNCTION_NAME=" + name, "AWS_REGION=eu-central-1",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "LAMBDA_TASK_ROOT=/var/task", "_HANDLER=bootstrap", "TZ=:UTC",
	}
}

// startLambdas starts every function of a system once more, on the same database
// with the same keys.
func startLambdas(t *testing.T, s *system) map[string]lambda {
	t.Helper()
	all := map[string]lambda{}
	for name, env := range s.env {
		all[name] = startLambda(t, name, env...)
	}
	return all
}

// A door sends a request to a function.
type door struct {
	name string
	send func(t *testing.T, function string, r *http.Request) answer
}

type answer struct {
	status int
	header http.Header
	body   string
}

// doorsOf are the ways to one system: its processes that serve HTTP, and those that
// serve Lambda behind each gateway.
func doorsOf(s *system, lambdas map[string]lambda) []door {
	through := func(gateway func(*lambdatest.Runtime) http.RoundTripper) func(*testing.T, string, *http.Request) answer {
		return func(t *testing.T, function string, r *http.Request) answer {
			t.Helper()
			r.URL.Scheme, r.URL.Host = "https", "gateway.example"
			return send(t, gateway(lambdas[function].Runtime), r)
		}
	}
	return []door{
		{"HTTP", func(t *testing.T, function string, r *http.Request) answer {
			t.Helper()
			r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(s.all[function].URL, "http://")
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
		{"an HTTP API whose stage is called as a path", through(func(r *lambdatest.Runtime) http.RoundTripper {
			g := lambdatest.HTTPAPI(r)
			g.Stage = "api"
			return g
		})},
	}
}

func send(t *testing.T, transport http.RoundTripper, r *http.Request) answer {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: transport}
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
	for _, d := range doorsOf(s, startLambdas(t, s))[1:] {
		t.Run("through "+d.name, func(t *testing.T) {
			ask := func(function, method, bearer, body string, want int) string {
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
					t.Fatalf("%s: %d %s", function, got.status, got.body)
				}
				return got.body
			}
			email := strings.ReplaceAll(d.name, " ", ".") + "@example.com"
			first := grant(t, ask("signup", "POST", "", credentials(email), http.StatusCreated))
			second := grant(t, ask("signin", "POST", "", credentials(email), http.StatusOK))
			if body := ask("currentuser", "GET", second.Token, "", http.StatusOK); !strings.Contains(body, strings.ToLower(email)) {
				t.Error(body)
			}
			ask("signout", "POST", second.Token, "", http.StatusOK)
			ask("currentuser", "GET", second.Token, "", http.StatusUnauthorized)
			ask("refresh", "POST", "", `{"refreshToken":"`+second.RefreshToken+`"}`, http.StatusUnauthorized)
			ask("signout", "POST", second.Token, "", http.StatusOK)
			ask("currentuser", "GET", first.Token, "", http.StatusOK) // another session of the same person
			ask("refresh", "POST", "", `{"refreshToken":"`+first.RefreshToken+`"}`, http.StatusOK)
		})
	}
}

func request(t *testing.T, method, path string, header http.Header, body string) *http.Request {
	t.Helper()
	var sent io.Reader // nil where there is none
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

// The same requests, through every door: the answers must not differ in status,
// headers or body. {me} is another person at each door, {token} that person's
// token. What HTTP answers is tested in the functions; here the status tells that
// the case is what it says.
func TestLambda_MatchesHTTP(t *testing.T) {
	s := start(t, mongotest.URI(t), "CORS_ALLOWED_ORIGINS=https://tickets.example")
	doors := doorsOf(s, startLambdas(t, s))
	people := map[string]person{}
	for _, d := range doors {
		me := strings.ToLower(strings.ReplaceAll(d.name, " ", ".")) + ".door"
		signedUp := d.send(t, "signup", request(t, "POST", "/api/users/signup", jsonBody, credentials(me+"@example.com")))
		people[d.name] = person{me, grant(t, signedUp.body)}
	}
	good := `{"email":"{me}@example.com","password":"correct horse battery staple"}`
	bearer := http.Header{"Authorization": {"Bearer {token}"}}
	for _, c := range []struct {
		name, function, method, path string
		header                       http.Header
		body                         string
		status                       int
	}{
		{"a sign-up is answered with a session", "signup", "POST", "/api/users/signup", jsonBody, strings.Replace(good, "{me}", "new.{me}", 1), 201},
		{"a sign-in is answered with a session", "signin", "POST", "/api/users/signin", jsonBody, good, 200},
		{"the bearer of a token is told who they are", "currentuser", "GET", "/api/users/currentuser", bearer, "", 200},
		{"somebody without a token is nobody", "currentuser", "GET", "/api/users/currentuser", nil, "", 200},
		{"HEAD has the headers of GET and no body", "currentuser", "HEAD", "/api/users/currentuser", bearer, "", 200},
		{"the key set is public and may be cached", "jwks", "GET", "/.well-known/jwks.json", nil, "", 200},
		{"HEAD of the key set may be cached as well", "jwks", "HEAD", "/.well-known/jwks.json", nil, "", 200},
		{"a probe finds the function alive", "jwks", "GET", "/health/liveness", nil, "", 200},

		{"a used email is refused", "signup", "POST", "/api/users/signup", jsonBody, good, 400},
		{"all faulty fields are listed at once", "signup", "POST", "/api/users/signup", jsonBody, `{"email":"ann","password":"short"}`, 400},
		{"missing members are listed at once", "signin", "POST", "/api/users/signin", jsonBody, `{}`, 400},
		{"half an object is refused", "signin", "POST", "/api/users/signin", jsonBody, `{"email":`, 400},
		{"a body of other than UTF-8 is refused", "signup", "POST", "/api/users/signup", jsonBody, "{\"email\":\"\xff\xfe\"}", 400},
		{"an empty body is refused", "signup", "POST", "/api/users/signup", jsonBody, "", 400},
		{"a wrong password is refused", "signin", "POST", "/api/users/signin", jsonBody, strings.Replace(good, "correct", "wrong", 1), 401},
		{"a password beyond ASCII is taken byte for byte", "signin", "POST", "/api/users/signin", jsonBody, strings.Replace(good, "correct", "schön 🐎", 1), 401},

		{"a sign-out without a token is refused", "signout", "POST", "/api/users/signout", nil, "", 401},
		{"a forged token is refused", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer {token}A"}}, "", 401},
		{"another scheme is anonymous", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Basic {token}"}}, "", 200},
		{"a scheme in lower case counts", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"bearer {token}"}}, "", 200},
		{"an Authorization header behind another scheme's is refused", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Basic YW5uOnB3", "Bearer {token}"}}, "", 401},
		{"two Authorization headers are refused", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer {token}", "Bearer {token}"}}, "", 401},
		{"a second, empty Authorization header is refused", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer {token}", ""}}, "", 401},
		{"a token over 8 KiB is refused", "currentuser", "GET", "/api/users/currentuser", http.Header{"Authorization": {"Bearer " + strings.Repeat("a", 8<<10+1)}}, "", 401},
		{"a cookie carries no identity", "currentuser", "GET", "/api/users/currentuser", http.Header{"Cookie": {"session={token}; token={token}"}}, "", 200},
		{"a query carries no identity", "currentuser", "GET", "/api/users/currentuser?access_token={token}&token=%7B%7D", nil, "", 200},
		{"other headers carry no identity", "currentuser", "GET", "/api/users/currentuser", http.Header{"X-User-Id": {"{me}"}, "X-Forwarded-User": {"{me}"}}, "", 200},

		{"a request with a key is answered", "signup", "POST", "/api/users/signup", keyed("{me}"), strings.Replace(good, "{me}", "keyed.{me}", 1), 201},
		{"its retry is answered alike", "signup", "POST", "/api/users/signup", keyed("{me}"), strings.Replace(good, "{me}", "keyed.{me}", 1), 201},
		{"another request with its key is refused", "signup", "POST", "/api/users/signup", keyed("{me}"), strings.Replace(good, "{me}", "other.{me}", 1), 422},
		{"a request with two keys is refused", "signup", "POST", "/api/users/signup", keyed("1", "2"), good, 400},

		{"an unknown path is not found", "signup", "POST", "/api/users", jsonBody, good, 404},
		{"a trailing slash makes another path", "signup", "POST", "/api/users/signup/", jsonBody, good, 404},
		{"a double slash makes another path", "signup", "POST", "//api/users/signup", jsonBody, good, 404},
		{"an escaped letter makes another path", "signup", "POST", "/api/users/s%69gnup", jsonBody, good, 404},
		{"an escaped slash makes another path", "currentuser", "GET", "/api%2Fusers/currentuser", nil, "", 404},
		{"an escaped question mark makes another path", "currentuser", "GET", "/api/users/currentuser%3Fx", nil, "", 404},
		{"a detour makes another path", "currentuser", "GET", "/api/../api/users/currentuser", nil, "", 404},
		{"a path of any bytes is not found", "jwks", "GET", "/%00%0A%20%22%25%2F%7F%C3%A9%FF%F0%9F%90%8E", nil, "", 404},
		{"a percent sign is not found", "jwks", "GET", "/100%25", nil, "", 404},
		{"the root is no function's", "jwks", "GET", "/", nil, "", 404},
		{"another method is told what is allowed", "signup", "DELETE", "/api/users/signup", nil, "", 405},
		{"a POST to a GET route is told of HEAD as well", "currentuser", "POST", "/api/users/currentuser", jsonBody, good, 405},

		{"a body of almost 16 KiB is taken", "signin", "POST", "/api/users/signin", jsonBody, good + strings.Repeat(" ", 15<<10), 200},
		{"a body over 16 KiB is refused", "signin", "POST", "/api/users/signin", jsonBody, good + strings.Repeat(" ", 16<<10), 413},
		{"another media type is refused", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"text/plain"}}, good, 415},
		{"a binary body is refused", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/octet-stream"}}, "\x00\xff\xfe", 415},
		{"a body without a media type is refused", "signin", "POST", "/api/users/signin", nil, good, 415},
		{"a body that is encoded is refused", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}, good, 415},
		{"one of two encodings is refused", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"identity", "br"}}, good, 415},
		{"the encoding identity is none", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"Identity"}}, good, 200},
		{"two media types are refused", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json", "application/json"}}, good, 415},
		{"a parameter of the media type is allowed", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json; charset=utf-8"}}, good, 200},
		{"an event is refused", "signup", "POST", "/api/users/signup", http.Header{"Content-Type": {"application/cloudevents+json"}}, good, 415},
		{"an event in binary mode is refused", "signup", "POST", "/api/users/signup", http.Header{"Content-Type": {"application/json"}, "Ce-Id": {"1"}}, good, 415},

		{"a script of an allowed origin may call", "currentuser", "OPTIONS", "/api/users/currentuser", http.Header{"Origin": {"https://tickets.example"}, "Access-Control-Request-Method": {"GET"}}, "", 204},
		{"a script of another origin may not", "currentuser", "OPTIONS", "/api/users/currentuser", http.Header{"Origin": {"https://other.example"}, "Access-Control-Request-Method": {"GET"}}, "", 204},
		{"a script of an allowed origin may read the answer", "signin", "POST", "/api/users/signin", http.Header{"Content-Type": {"application/json"}, "Origin": {"https://tickets.example"}}, good, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want answer
			for _, d := range doors {
				if decodesToRoute[c.path] && strings.HasPrefix(d.name, "an HTTP API") {
					continue // which passes on the route itself
				}
				me := people[d.name]
				header := c.header.Clone()
				for name, values := range header {
					for i, value := range values {
						header[name][i] = me.in(value)
					}
				}
				got := me.out(d.send(t, c.function, request(t, c.method, me.in(c.path), header, me.in(c.body))))
				switch {
				case d.name == "HTTP":
					want = got
					if got.status != c.status {
						t.Errorf("over %s: %d %s", d.name, got.status, got.body)
					}
				case got.status != want.status || !maps.Equal(flat(got.header), flat(want.header)) || got.body != want.body:
					t.Errorf("through %s: %d %v %s\nover HTTP: %d %v %s", d.name, got.status, got.header, got.body, want.status, want.header, want.body)
				}
			}
		})
	}
}

// decodesToRoute are paths that are no route, until they are decoded.
var decodesToRoute = map[string]bool{"/api/users/s%69gnup": true, "/api%2Fusers/currentuser": true, "/api/users/currentuser%3Fx": true}

var jsonBody = http.Header{"Content-Type": {"application/json"}}

// keyed are the headers of a request with Idempotency-Key headers.
func keyed(keys ...string) http.Header {
	h := jsonBody.Clone()
	for _, key := range keys {
		h.Add("Idempotency-Key", `"`+key+`"`)
	}
	return h
}

// A person is who calls at one door.
type person struct {
	name string
	granted
}

// in makes a request this person's own.
func (p person) in(s string) string {
	return strings.NewReplacer("{me}", p.name, "{token}", p.Token).Replace(s)
}

var oneself = regexp.MustCompile(`"(id|token|refreshToken)":"[^"]+"`)

// out makes an answer anybody's.
func (p person) out(a answer) answer {
	a.body = strings.ReplaceAll(oneself.ReplaceAllString(a.body, `"$1":"…"`), p.name, "{me}")
	for _, ofTheWire := range []string{"Date", "Connection", "Content-Length"} {
		a.header.Del(ofTheWire)
	}
	return a
}

// flat joins the values of each header, as a gateway must (RFC 9110 §5.3).
func flat(h http.Header) map[string]string {
	flat := map[string]string{}
	for name, values := range h {
		flat[name] = strings.Join(values, ", ")
	}
	return flat
}

// Whoever may invoke the function may send it anything.
func TestLambda_MalformedEvent(t *testing.T) {
	keys := start(t, mongotest.URI(t)).env["jwks"]
	l := startLambda(t, "jwks", keys...)
	const context = `"requestContext":{"http":{"method":"GET"}}`
	refused := `"statusCode":400`
	for _, c := range []struct {
		name, event, payload string
	}{
		{"an object without members is refused", `{}`, refused},
		{"null is refused", `null`, refused},
		{"a test event of the console is refused", `{"key1":"value1","key2":"value2"}`, refused},
		{"an event in payload format 1.0 is refused", `{"version":"1.0","resource":"/x","path":"/.well-known/jwks.json","httpMethod":"GET","headers":{},"multiValueHeaders":{},"requestContext":{"httpMethod":"GET"},"body":null}`, refused},
		{"an event of a queue is refused", `{"Records":[{"messageId":"1","body":"{}","eventSource":"aws:sqs"}]}`, refused},
		{"a path without a slash is refused", `{"rawPath":"x",` + context + `}`, refused},
		{"a path with a line feed is not found", `{"rawPath":"/\n",` + context + `}`, `"statusCode":404`},
		{"a query with a line feed is refused", `{"rawPath":"/","rawQueryString":"\n",` + context + `}`, refused},
		{"a method with a space is refused", `{"rawPath":"/","requestContext":{"http":{"method":"GET /"}}}`, refused},
		{"a body that is no base64 is refused", `{"rawPath":"/","body":"*","isBase64Encoded":true,` + context + `}`, refused},
		{"a header with a line feed reaches nobody", `{"rawPath":"/","headers":{"a\r\nb":"c\r\nd"},` + context + `}`, `"statusCode":404`},
		{"an array is refused", `[]`, refused},
		{"a string is refused", `"x"`, refused},
		{"a number for a path is refused", `{"rawPath":1}`, refused},
		{"half an object is refused", `{"rawPath":`, refused},
		{"nothing is refused", ``, refused},
		{"text that is no Unicode is refused", `{"rawPath":"/","headers":{"\ud800":"\udc00"},"requestContext":{"http":{"method":"\ud800"}}}`, refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := l.Invoke(t.Context(), []byte(c.event))
			if err != nil || got.Error != "" || !strings.Contains(string(got.Payload), c.payload) {
				t.Errorf("got %s %s %v", got.Error, got.Payload, err)
			}
			after := send(t, lambdatest.HTTPAPI(l.Runtime), request(t, "GET", "https://gateway.example/.well-known/jwks.json", nil, ""))
			if after.status != http.StatusOK {
				t.Errorf("the next event: %d %s", after.status, after.body)
			}
		})
	}
}

// A function whose settings are wrong ends as it does elsewhere, before it asks for
// an event. In AWS the list is in the function's log, and the invocation fails with
// Runtime.ExitError.
func TestLambda_InvalidSettings(t *testing.T) {
	wrong := []string{"MONGODB_URI=postgres://db", "TOKEN_ISSUER=x", "ACCESS_TOKEN_TTL=soon", "LOG_LEVEL=loud", "PORT=http"}
	code, want := e2e.MustFail(t, wrong, "signin")
	if code != 2 || strings.Count(want, "\n") != 1+5 {
		t.Fatalf("elsewhere: exit code %d: %s", code, want)
	}
	runtime := lambdatest.New(t)
	code, got := e2e.MustFail(t, slices.Concat(wrong, lambdaSettings("signin", runtime)), "signin")
	if code != 2 || got != want {
		t.Errorf("exit code %d: %s", code, got)
	}
	if n := runtime.Requests(); n > 0 {
		t.Errorf("it has asked for events: %d requests", n)
	}
}

func TestLambda_SIGTERM(t *testing.T) {
	keys := start(t, mongotest.URI(t)).env["jwks"]
	for range 10 {
		l := startLambda(t, "jwks", keys...)
		began := time.Now()
		if code := l.Signal(syscall.SIGTERM); code != 0 || l.Logs() != "" {
			t.Errorf("exit code %d: %s", code, l.Logs())
		}
		if took := time.Since(began); took > 300*time.Millisecond { // what Lambda grants at the least
			t.Errorf("it took %s", took)
		}
	}
}

// Lambda freezes a process after its answer. When it goes on, minutes later, its
// connections are dead, and it does not know.
func TestLambda_ResumeAfterFreeze(t *testing.T) {
	server := mongotest.Server(t)
	s := start(t, server.URI())
	l := startLambda(t, "signin", s.env["signin"]...)
	s.post(t, "signup", "", credentials("ann@example.com"))
	signin := func() answer {
		t.Helper()
		return send(t, lambdatest.HTTPAPI(l.Runtime), request(t, "POST", "https://gateway.example/api/users/signin", jsonBody, credentials("ann@example.com")))
	}
	if got := signin(); got.status != http.StatusOK {
		t.Fatal(got.status, got.body)
	}
	l.Send(syscall.SIGSTOP)
	server.Kill()
	server.Start()
	l.Send(syscall.SIGCONT)
	if got := signin(); got.status != http.StatusOK {
		t.Error(got.status, got.body, l.Logs())
	}
	if code := l.Signal(os.Interrupt); code != 0 {
		t.Errorf("exit code %d: %s", code, l.Logs())
	}
}
