package httpserver_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"ticketing.com/auth/shared/httpserver"
)

// A client with the right to invoke the function can send any event. Every event must get a
// response in the common format. If the same request can be sent over HTTP, the responses
// must be equal.
func FuzzLambda(f *testing.F) {
	handler := httpserver.Handler(newConfig(io.Discard, nil), echo(nil), minimal)
	invoke := lambda.NewHandler(httpserver.Lambda(handler))
	const body = `{"name":"ann"}`
	for _, seed := range []struct{ method, path, query, name, value, body string }{
		{"POST", "/echo", "", "content-type", "application/json", body},
		{"POST", "/echo", "a=b&%zz", "content-type", "application/json; charset=utf-8", body},
		{"POST", "/echo", "", "content-type", "application/json,application/json", body},
		{"POST", "/echo", "", "content-type", "application/cloudevents+json", body},
		{"POST", "/echo", "", "ce-id", "1", body},
		{"POST", "/echo", "", "content-length", "0", body},
		{"POST", "/echo", "", "transfer-encoding", "chunked", "e\r\n" + body + "\r\n0\r\n\r\n"},
		{"POST", "/echo", "", "content-type", "application/json", strings.Repeat(" ", 16<<10) + body},
		{"POST", "/echo", "", "content-type", "application/json", "{\"name\":\"\xff\"}"},
		{"POST", "/echo", "", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ""},
		{"GET", "/minimal", "", "authorization", "Bearer x", ""},
		{"HEAD", "/minimal", "", "origin", "https://evil.example", ""},
		{"HEAD", "/nothing", "", "a\r\nb", "c\r\nd", ""},
		{"HEAD", "*", "", "", "", ""},
		{"get", "/minimal", "", "x", "", ""},
		{"OPTIONS", "*", "", "", "", ""},
		{"G T", "/minimal", "", "", "", ""},
		{"", "", "", "", "", ""},
		{"GET", "//minimal", "", "", "", ""},
		{"GET", "/minimal%3Fx", "", "", "", ""},
		{"GET", "/min%69mal", "", "", "", ""},
		{"GET", "/minimal?x", "", "", "", ""},
		{"GET", "/mini mal", "\x00", "", "", ""},
		{"GET", "http://x/minimal", "", "", "", ""},
		{"GET", "/%zz", "", "", "", ""},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.name, seed.value, seed.body, false, "203.0.113.9")
		f.Add(seed.method, seed.path, seed.query, seed.name, seed.value, seed.body, true, "::1")
	}
	f.Fuzz(func(t *testing.T, method, path, query, name, value, body string, encoded bool, ip string) {
		e := events.APIGatewayV2HTTPRequest{RawPath: path, RawQueryString: query, Headers: map[string]string{name: value}, Body: body, IsBase64Encoded: encoded}
		e.RequestContext.HTTP.Method, e.RequestContext.HTTP.SourceIP = method, ip
		if encoded && utf8.ValidString(body) && len(body)%2 == 0 { // otherwise the body is mostly invalid base64
			e.Body = base64.StdEncoding.EncodeToString([]byte(body))
		}
		payload, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := invoke.Invoke(t.Context(), payload)
		if err != nil {
			t.Fatalf("the handler returned an error: %v", err)
		}
		var got events.APIGatewayV2HTTPResponse
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		checkFormat(t, method, got)
		json.Unmarshal(payload, &e) // json.Marshal has replaced invalid UTF-8
		if want := viaHTTP(handler, e); want != nil {
			compare(t, e, got, want)
		}
	})
}

// checkFormat fails the test unless a response has the format of the API.
func checkFormat(t *testing.T, method string, got events.APIGatewayV2HTTPResponse) {
	t.Helper()
	h := got.Headers
	if h["Content-Type"] != "application/json" || h["X-Content-Type-Options"] != "nosniff" || h["Cache-Control"] != "no-store" {
		t.Errorf("got headers %v, want JSON, nosniff and no-store", h)
	}
	switch {
	case method == http.MethodHead:
		if got.Body != "" {
			t.Errorf("HEAD: got the body %s, want none", got.Body)
		}
	case got.StatusCode == http.StatusOK && json.Valid([]byte(got.Body)):
	case slices.Contains([]int{400, 404, 405, 413, 415}, got.StatusCode) && strings.HasPrefix(got.Body, `{"errors":[{"message":"`):
	default:
		t.Errorf("got %d %s, want 200 with JSON or a documented error", got.StatusCode, got.Body)
	}
}

// viaHTTP returns the response of the HTTP handler to the request in an event. It returns nil
// if HTTP/1.1 cannot represent the request.
func viaHTTP(handler http.Handler, e events.APIGatewayV2HTTPRequest) *httptest.ResponseRecorder {
	target, body := e.RawPath, []byte(e.Body)
	if e.RawQueryString != "" {
		target += "?" + e.RawQueryString
	}
	if e.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
			return nil
		}
	}
	var header strings.Builder
	for name, value := range e.Headers {
		switch http.CanonicalHeaderKey(name) {
		case "Content-Length", "Transfer-Encoding", "Host", "Trailer": // of one connection: the gateway does not forward them
			return nil
		}
		fmt.Fprintf(&header, "%s: %s\r\n", name, value)
	}
	message := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", e.RequestContext.HTTP.Method, target, &header, len(body), body)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(message)))
	if err != nil || r.Method != e.RequestContext.HTTP.Method || r.RequestURI != target || !strings.HasPrefix(target, "/") || strings.Contains(e.RawPath, "?") {
		return nil
	}
	for name, value := range e.Headers {
		if len(r.Header) != 1 || r.Header.Get(name) != value {
			return nil // the bytes are not exactly this header
		}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func compare(t *testing.T, e events.APIGatewayV2HTTPRequest, got events.APIGatewayV2HTTPResponse, want *httptest.ResponseRecorder) {
	t.Helper()
	headers := map[string]string{}
	for name, values := range want.Header() {
		headers[name] = strings.Join(values, ", ")
	}
	delete(headers, "Content-Length")
	delete(headers, "Connection")
	body := want.Body.String()
	if e.RequestContext.HTTP.Method == http.MethodHead {
		body = ""
	}
	if got.StatusCode != want.Code || got.Body != body || !maps.Equal(got.Headers, headers) {
		t.Errorf("%+v\nLambda: %d %v %s\nHTTP:   %d %v %s", e, got.StatusCode, got.Headers, got.Body, want.Code, headers, body)
	}
}

// invoke calls a Lambda handler with an event and returns the response.
func invoke(t *testing.T, handler http.Handler, payload string) events.APIGatewayV2HTTPResponse {
	t.Helper()
	raw, err := httpserver.Lambda(handler).Invoke(t.Context(), []byte(payload))
	if err != nil {
		t.Fatalf("the handler returned an error: %v", err)
	}
	var got events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// A JSON string can contain text that is not Unicode. As over HTTP, the function must reject
// such a body and must not store U+FFFD instead.
func TestLambda_InvalidUnicode(t *testing.T) {
	handler := httpserver.Handler(newConfig(io.Discard, nil), echo(nil), private)
	const malformed = `{"errors":[{"message":"The body must be one JSON object."}]}`
	event := func(path, headers, query, body string) string {
		return `{"rawPath":"` + path + `","rawQueryString":"` + query + `","headers":{"content-type":"application/json"` + headers + `},"requestContext":{"http":{"method":"POST"}},"body":"` + body + `"}`
	}
	named := func(s string) string { return event("/echo", "", "", `{\"name\":\"`+s+`\"}`) }
	for name, c := range map[string]struct {
		payload, body string
		status        int
	}{
		"half a surrogate pair":           {named(`a\ud800b`), malformed, 400},
		"a low surrogate":                 {named(`a\udc00b`), malformed, 400},
		"the halves in the wrong order":   {named(`\udc00\ud800`), malformed, 400},
		"an invalid UTF-8 byte":           {named("a\xffb"), malformed, 400},
		"half a character":                {named("a\xc3"), malformed, 400},
		"a surrogate in UTF-8":            {named("\xed\xa0\x80"), malformed, 400},
		"half a pair in JSON within JSON": {named(`a\\ud800b`), malformed, 400},
		"after the object":                {event("/echo", "", "", `{\"name\":\"ann\"}\ud800`), malformed, 400},
		"with the replacement character":  {named(`\ufffd\ud800`), malformed, 400},
		"in a body that is base64":        {strings.Replace(named(`\ud800`), `"requestContext"`, `"isBase64Encoded":true,"requestContext"`, 1), `{"errors":[{"message":"The request is malformed."}]}`, 400},
		"in a body that is too large":     {named(strings.Repeat("x", 16<<10) + `\ud800`), `{"errors":[{"message":"The body is larger than 16 KiB."}]}`, 413},
		"in a body that is not read":      {event("/private", `,"authorization":"Bearer x"`, "", `\ud800`), `"hello"`, 200},
		"in a body for an unknown path":   {event("/nothing", "", "", `\ud800`), `{"errors":[{"message":"There is nothing here."}]}`, 404},

		"a whole pair":                       {named(`\ud83d\udc0e`), `{"name":"🐎"}`, 200},
		"the replacement character":          {named(`\ufffd`), "{\"name\":\"\ufffd\"}", 200},
		"the replacement character in UTF-8": {named("\ufffd"), "{\"name\":\"\ufffd\"}", 200},

		"in a path":                  {event(`/echo\ud800`, "", "", ""), `{"errors":[{"message":"There is nothing here."}]}`, 404},
		"a byte in a path":           {event("/echo\xff", "", "", ""), `{"errors":[{"message":"There is nothing here."}]}`, 404},
		"in a query":                 {event("/private", `,"authorization":"Bearer x"`, "a=\\udc00\xff", ""), `"hello"`, 200},
		"in a token":                 {event("/private", `,"authorization":"Basic \ud800"`, "", ""), `{"errors":[{"message":"A bearer token is needed."}]}`, 401},
		"in the media type":          {event("/echo", `,"Content-Type":"\ud800"`, "", `{}`), `{"errors":[{"message":"The body must be application/json."}]}`, 415},
		"in the name of a header":    {event("/private", ",\"\xff\":\"\\ud800\",\"authorization\":\"Bearer x\"", "", ""), `"hello"`, 200},
		"in a member that is unused": {strings.Replace(named("ann"), "{", `{"stageVariables":{"\ud800":"`+"\xff"+`"},`, 1), `{"name":"ann"}`, 200},
	} {
		if got := invoke(t, handler, c.payload); got.StatusCode != c.status || got.Body != c.body {
			t.Errorf("%s: got %d %s, want %d %s", name, got.StatusCode, got.Body, c.status, c.body)
		}
	}
}

func TestLambda_RemovesStageFromPath(t *testing.T) {
	handler := httpserver.Handler(newConfig(io.Discard, nil), minimal)
	for _, c := range []struct {
		stage, path string
		status      int
	}{
		{"prod", "/prod/minimal", 200},
		{"prod", "/minimal", 200}, // an emulator, or another gateway
		{"prod", "/prod/prod/minimal", 404},
		{"prod", "/production/minimal", 404},
		{"prod", "/PROD/minimal", 404},
		{"prod", "/%70rod/minimal", 404},
		{"prod", "/prod/minimal/", 404},
		{"prod", "/prod//minimal", 404},
		{"prod", "/prod", 404},
		{"prod", "/prod/", 404},
		{"prod", "/prod/health/liveness", 200},
		{"minimal", "/minimal/minimal", 200},
		{"minimal", "/minimal", 404}, // the root of the API
		{"", "/minimal", 200},
		{"$default", "/minimal", 200},
		{"$default", "/$default/minimal", 404},
		{"$default", "/prod/minimal", 404},
	} {
		payload := fmt.Sprintf(`{"rawPath":%q,"requestContext":{"stage":%q,"http":{"method":"GET"}}}`, c.path, c.stage)
		if got := invoke(t, handler, payload); got.StatusCode != c.status {
			t.Errorf("stage %s, path %s: got %d %s, want %d", c.stage, c.path, got.StatusCode, got.Body, c.status)
		}
	}
}

// An HTTP API decodes the path of a request. A Function URL does not.
func TestLambda_UnknownPath(t *testing.T) {
	handler := httpserver.Handler(newConfig(io.Discard, nil), minimal)
	for _, path := range []string{
		"/", "//", "//minimal", "/minimal/", "/minimal%2F", "/min%69mal", "/minimal?", "/minimal?a=b", "/minimal#a", "/minimal%3Fx",
		"/%zz", "/%", "/100%", "/a b", "/minimal ", "/ minimal", "/\n", "/minimal\n", "/\r\n", "/\x00", "/\x7f", "/é", "/%C3%A9", "/\xff", "/%FF",
		"/🐎", "/\\", `/"`, "/<>", "/..", "/../minimal", "/./minimal", "/;", "/minimal;a=b", "*", "/*", "/{path}", "/\u200b",
	} {
		quoted, _ := json.Marshal(path)
		got := invoke(t, handler, `{"rawPath":`+string(quoted)+`,"requestContext":{"http":{"method":"GET"}}}`)
		if got.StatusCode != http.StatusNotFound || got.Body != `{"errors":[{"message":"There is nothing here."}]}` {
			t.Errorf("%q: got %d %s, want 404", path, got.StatusCode, got.Body)
		}
		checkFormat(t, "GET", got)
	}
}

func TestLambda_MalformedEvent(t *testing.T) {
	handler := httpserver.Handler(newConfig(io.Discard, nil), minimal, echo(nil))
	const get = `"requestContext":{"http":{"method":"GET"}}`
	for _, payload := range []string{
		``, ` `, `null`, `[]`, `"x"`, `1`, `{}`, `{"rawPath":`, `{` + get + `}x`, `{"rawPath":1,` + get + `}`, `{"rawPath":"minimal",` + get + `}`, `{"rawPath":"",` + get + `}`,
		`{"rawPath":"/minimal","rawPath":"/minimal",` + get + `}`, `{"rawPath":"/minimal","headers":[],` + get + `}`, `{"rawPath":"/minimal","headers":{"a":1},` + get + `}`,
		`{"rawPath":"/minimal","headers":{"a":"1","a":"2"},` + get + `}`, `{"rawPath":"/minimal","cookies":"a=b",` + get + `}`, `{"rawPath":"/minimal","isBase64Encoded":"true",` + get + `}`,
		`{"rawPath":"/minimal","body":1,` + get + `}`, `{"rawPath":"/minimal","body":{},` + get + `}`, `{"rawPath":"/minimal","body":"*","isBase64Encoded":true,` + get + `}`,
		`{"rawPath":"/minimal","rawQueryString":"\n",` + get + `}`, `{"rawPath":"/minimal","rawQueryString":"a b",` + get + `}`,
		`{"rawPath":"/minimal"}`, `{"rawPath":"/minimal","requestContext":{"http":{"method":""}}}`, `{"rawPath":"/minimal","requestContext":{"http":{"method":"G T"}}}`,
		`{"rawPath":"/minimal","requestContext":{"http":{"method":"\ud800"}}}`, `{"rawPath":"/minimal","requestContext":[]}`,
		`{"version":"1.0","path":"/minimal","httpMethod":"GET"}`, `{"Records":[]}`, "\xff", `{"rawPath":"/minimal"` + "\x00" + `}`,
	} {
		got := invoke(t, handler, payload)
		if got.StatusCode != http.StatusBadRequest || got.Body != `{"errors":[{"message":"The request is malformed."}]}` {
			t.Errorf("%q: got %d %s, want 400", payload, got.StatusCode, got.Body)
		}
		checkFormat(t, "GET", got)
	}
}

// dump writes the properties of its request.
var dump = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
	http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
	w.Header().Set("Connection", "close")
	fmt.Fprintf(w, "%s %s %s %d %q %q", r.Host, r.RemoteAddr, r.URL.RawQuery, r.ContentLength, body, r.Header)
})

func TestLambda_Request(t *testing.T) {
	for name, c := range map[string]struct{ members, want string }{
		"an empty request":         {``, ` :0  0 "" map[]`},
		"names in any case":        {`,"headers":{"X-A":"1","x-b":"2"}`, ` :0  0 "" map["X-A":["1"] "X-B":["2"]]`},
		"a forwarded address":      {`,"headers":{"X-FORWARDED-FOR":"6.6.6.6"}`, ` :0  0 "" map[]`},
		"cookies":                  {`,"cookies":["a=1","b=2"]`, ` :0  0 "" map["Cookie":["a=1" "b=2"]]`},
		"a body":                   {`,"body":"hello"`, ` :0  5 "hello" map[]`},
		"a body of null":           {`,"body":null`, ` :0  0 "" map[]`},
		"an empty body":            {`,"body":""`, ` :0  0 "" map[]`},
		"a body in base64":         {`,"body":"AP8=","isBase64Encoded":true`, ` :0  2 "\x00\xff" map[]`},
		"an empty body in base64":  {`,"body":"","isBase64Encoded":true`, ` :0  0 "" map[]`},
		"a wrong length":           {`,"headers":{"content-length":"99"},"body":"hello"`, ` :0  5 "hello" map["Content-Length":["99"]]`},
		"a query":                  {`,"rawQueryString":"a=%20&b=` + "\u00e9" + `;&%zz"`, ` :0 a=%20&b=é;&%zz 0 "" map[]`},
		"two tokens":               {`,"headers":{"authorization":"Bearer a,Bearer b"}`, ` :0  0 "" map["Authorization":["Bearer a" "Bearer b"]]`},
		"a token after another":    {`,"headers":{"authorization":"Basic YTpi==, bearer b"}`, ` :0  0 "" map["Authorization":["Basic YTpi==" " bearer b"]]`},
		"a token after an empty":   {`,"headers":{"authorization":",Bearer b"}`, ` :0  0 "" map["Authorization":["" "Bearer b"]]`},
		"a token before an empty":  {`,"headers":{"authorization":"Bearer b,"}`, ` :0  0 "" map["Authorization":["Bearer b" ""]]`},
		"credentials with commas":  {`,"headers":{"authorization":"Digest a=b, c = \"d\",e=f"}`, ` :0  0 "" map["Authorization":["Digest a=b, c = \"d\",e=f"]]`},
		"commas in another header": {`,"headers":{"x-a":"1,2"}`, ` :0  0 "" map["X-A":["1,2"]]`},
	} {
		got := invoke(t, dump, `{"rawPath":"/","requestContext":{"http":{"method":"POST"}}`+c.members+`}`)
		if got.Body != c.want || !slices.Equal(got.Cookies, []string{"a=1", "b=2"}) || len(got.Headers) != 0 {
			t.Errorf("%s: got %+v, want %s and two cookies", name, got, c.want)
		}
	}
	got := invoke(t, dump, `{"rawPath":"/","requestContext":{"domainName":"api.example","http":{"method":"GET","sourceIp":"2001:db8::9"}}}`)
	if !strings.HasPrefix(got.Body, "api.example [2001:db8::9]:0 ") {
		t.Errorf("got %s, want the host and the address of the gateway", got.Body)
	}
	if got := invoke(t, dump, `{"rawPath":"/","requestContext":{"http":{"method":"HEAD"}}}`); got.Body != "" || got.StatusCode != http.StatusOK {
		t.Errorf("HEAD: got %+v, want 200 without a body", got)
	}
	twice := invoke(t, httpserver.Handler(newConfig(io.Discard, nil), private), `{"rawPath":"/private","headers":{"authorization":"Bearer x","Authorization":"Bearer x"},"requestContext":{"http":{"method":"POST"}}}`)
	if twice.StatusCode != http.StatusUnauthorized {
		t.Errorf("two Authorization headers in different case: got %+v, want 401", twice)
	}
}

func TestLambda_BinaryResponse(t *testing.T) {
	got := invoke(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "\xff\x00") }), `{"rawPath":"/","requestContext":{"http":{"method":"GET"}}}`)
	if !got.IsBase64Encoded || got.Body != "/wA=" {
		t.Errorf("got %+v, want the body in base64", got)
	}
}
