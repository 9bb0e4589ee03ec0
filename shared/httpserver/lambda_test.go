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

// Whatever the event, which anybody may send who may invoke the function: an answer
// as every answer is, and the one that the HTTP door gives where the same request can
// be written on its wire.
func FuzzLambdaDoor(f *testing.F) {
	handler := httpserver.Handler(wiring(io.Discard, nil), echo(nil), needless)
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
		{"GET", "/needless", "", "authorization", "Bearer x", ""},
		{"HEAD", "/needless", "", "origin", "https://evil.example", ""},
		{"HEAD", "/nothing", "", "a\r\nb", "c\r\nd", ""},
		{"HEAD", "*", "", "", "", ""},
		{"get", "/needless", "", "x", "", ""},
		{"OPTIONS", "*", "", "", "", ""},
		{"G T", "/needless", "", "", "", ""},
		{"", "", "", "", "", ""},
		{"GET", "//needless", "", "", "", ""},
		{"GET", "/needless%3Fx", "", "", "", ""},
		{"GET", "/need%6Cess", "", "", "", ""},
		{"GET", "/needless?x", "", "", "", ""},
		{"GET", "/need less", "\x00", "", "", ""},
		{"GET", "http://x/needless", "", "", "", ""},
		{"GET", "/%zz", "", "", "", ""},
	} {
		f.Add(seed.method, seed.path, seed.query, seed.name, seed.value, seed.body, false, "203.0.113.9")
		f.Add(seed.method, seed.path, seed.query, seed.name, seed.value, seed.body, true, "::1")
	}
	f.Fuzz(func(t *testing.T, method, path, query, name, value, body string, encoded bool, ip string) {
		e := events.APIGatewayV2HTTPRequest{RawPath: path, RawQueryString: query, Headers: map[string]string{name: value}, Body: body, IsBase64Encoded: encoded}
		e.RequestContext.HTTP.Method, e.RequestContext.HTTP.SourceIP = method, ip
		if encoded && utf8.ValidString(body) && len(body)%2 == 0 { // and sometimes what is no base64 at all
			e.Body = base64.StdEncoding.EncodeToString([]byte(body))
		}
		payload, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := invoke.Invoke(t.Context(), payload)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		var got events.APIGatewayV2HTTPResponse
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		inForm(t, method, got)
		json.Unmarshal(payload, &e) // text that is no UTF-8 does not get this far
		if want := overTheWire(handler, e); want != nil {
			same(t, e, got, want)
		}
	})
}

// inForm fails the test unless an answer is as the contract has it.
func inForm(t *testing.T, method string, got events.APIGatewayV2HTTPResponse) {
	t.Helper()
	h := got.Headers
	if h["Content-Type"] != "application/json" || h["X-Content-Type-Options"] != "nosniff" || h["Cache-Control"] != "no-store" {
		t.Errorf("headers %v", h)
	}
	switch {
	case method == http.MethodHead:
		if got.Body != "" {
			t.Errorf("HEAD has a body: %s", got.Body)
		}
	case got.StatusCode == http.StatusOK && json.Valid([]byte(got.Body)):
	case slices.Contains([]int{400, 404, 405, 413, 415}, got.StatusCode) && strings.HasPrefix(got.Body, `{"errors":[{"message":"`):
	default:
		t.Errorf("%d %s", got.StatusCode, got.Body)
	}
}

// overTheWire is what the HTTP door answers to the request of an event, or nil where
// no such request can be.
func overTheWire(handler http.Handler, e events.APIGatewayV2HTTPRequest) *httptest.ResponseRecorder {
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
		case "Content-Length", "Transfer-Encoding", "Host", "Trailer": // of the wire itself: a gateway's are its own
			return nil
		}
		fmt.Fprintf(&header, "%s: %s\r\n", name, value)
	}
	wire := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", e.RequestContext.HTTP.Method, target, &header, len(body), body)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire)))
	if err != nil || r.Method != e.RequestContext.HTTP.Method || r.RequestURI != target || !strings.HasPrefix(target, "/") || strings.Contains(e.RawPath, "?") {
		return nil
	}
	for name, value := range e.Headers {
		if len(r.Header) != 1 || r.Header.Get(name) != value {
			return nil // more than it says, or less
		}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func same(t *testing.T, e events.APIGatewayV2HTTPRequest, got events.APIGatewayV2HTTPResponse, want *httptest.ResponseRecorder) {
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

// invoke sends an event as it is to a Lambda handler.
func invoke(t *testing.T, handler http.Handler, payload string) events.APIGatewayV2HTTPResponse {
	t.Helper()
	raw, err := httpserver.Lambda(handler).Invoke(t.Context(), []byte(payload))
	if err != nil {
		t.Fatalf("the function fails: %v", err)
	}
	var got events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// A JSON string can hold what no text is. The body of an HTTP request can as well, and is
// refused; it must not be stored as U+FFFD.
func TestLambda_TextThatIsNoUnicode(t *testing.T) {
	handler := httpserver.Handler(wiring(io.Discard, nil), echo(nil), private)
	const malformed = `{"errors":[{"message":"The body must be one JSON object."}]}`
	event := func(path, headers, query, body string) string {
		return `{"rawPath":"` + path + `","rawQueryString":"` + query + `","headers":{"content-type":"application/json"` + headers + `},"requestContext":{"http":{"method":"POST"}},"body":"` + body + `"}`
	}
	name := func(s string) string { return event("/echo", "", "", `{\"name\":\"`+s+`\"}`) }
	for what, c := range map[string]struct {
		payload, body string
		status        int
	}{
		"half a surrogate pair":               {name(`a\ud800b`), malformed, 400},
		"the other half":                      {name(`a\udc00b`), malformed, 400},
		"the halves the wrong way round":      {name(`\udc00\ud800`), malformed, 400},
		"a byte that is no UTF-8":             {name("a\xffb"), malformed, 400},
		"half a character":                    {name("a\xc3"), malformed, 400},
		"a surrogate in UTF-8":                {name("\xed\xa0\x80"), malformed, 400},
		"half a pair that JSON in JSON holds": {name(`a\\ud800b`), malformed, 400},
		"behind the object":                   {event("/echo", "", "", `{\"name\":\"ann\"}\ud800`), malformed, 400},
		"with the replacement character":      {name(`\ufffd\ud800`), malformed, 400},
		"in a body that is base64":            {strings.Replace(name(`\ud800`), `"requestContext"`, `"isBase64Encoded":true,"requestContext"`, 1), `{"errors":[{"message":"The request is malformed."}]}`, 400},
		"in a body that is too large":         {name(strings.Repeat("x", 16<<10) + `\ud800`), `{"errors":[{"message":"The body is larger than 16 KiB."}]}`, 413},
		"in a body that nobody reads":         {event("/private", `,"authorization":"Bearer x"`, "", `\ud800`), `"hello"`, 200},
		"in a body that is not asked for":     {event("/nothing", "", "", `\ud800`), `{"errors":[{"message":"There is nothing here."}]}`, 404},

		"a whole pair":                       {name(`\ud83d\udc0e`), `{"name":"🐎"}`, 200},
		"the replacement character":          {name(`\ufffd`), "{\"name\":\"\ufffd\"}", 200},
		"the replacement character in UTF-8": {name("\ufffd"), "{\"name\":\"\ufffd\"}", 200},

		"in a path":                  {event(`/echo\ud800`, "", "", ""), `{"errors":[{"message":"There is nothing here."}]}`, 404},
		"a byte in a path":           {event("/echo\xff", "", "", ""), `{"errors":[{"message":"There is nothing here."}]}`, 404},
		"in a query":                 {event("/private", `,"authorization":"Bearer x"`, "a=\\udc00\xff", ""), `"hello"`, 200},
		"in a token":                 {event("/private", `,"authorization":"Basic \ud800"`, "", ""), `{"errors":[{"message":"A bearer token is needed."}]}`, 401},
		"in the media type":          {event("/echo", `,"Content-Type":"\ud800"`, "", `{}`), `{"errors":[{"message":"The body must be application/json."}]}`, 415},
		"in the name of a header":    {event("/private", ",\"\xff\":\"\\ud800\",\"authorization\":\"Bearer x\"", "", ""), `"hello"`, 200},
		"where nothing looks for it": {strings.Replace(name("ann"), "{", `{"stageVariables":{"\ud800":"`+"\xff"+`"},`, 1), `{"name":"ann"}`, 200},
	} {
		if got := invoke(t, handler, c.payload); got.StatusCode != c.status || got.Body != c.body {
			t.Errorf("%s: %d %s", what, got.StatusCode, got.Body)
		}
	}
}

func TestLambda_StageIsNoPartOfThePath(t *testing.T) {
	handler := httpserver.Handler(wiring(io.Discard, nil), needless)
	for _, c := range []struct {
		stage, path string
		status      int
	}{
		{"prod", "/prod/needless", 200},
		{"prod", "/needless", 200}, // an emulator, or another gateway
		{"prod", "/prod/prod/needless", 404},
		{"prod", "/production/needless", 404},
		{"prod", "/PROD/needless", 404},
		{"prod", "/%70rod/needless", 404},
		{"prod", "/prod/needless/", 404},
		{"prod", "/prod//needless", 404},
		{"prod", "/prod", 404},
		{"prod", "/prod/", 404},
		{"prod", "/prod/health/liveness", 200},
		{"needless", "/needless/needless", 200},
		{"needless", "/needless", 404}, // the root of the API
		{"", "/needless", 200},
		{"$default", "/needless", 200},
		{"$default", "/$default/needless", 404},
		{"$default", "/prod/needless", 404},
	} {
		payload := fmt.Sprintf(`{"rawPath":%q,"requestContext":{"stage":%q,"http":{"method":"GET"}}}`, c.path, c.stage)
		if got := invoke(t, handler, payload); got.StatusCode != c.status {
			t.Errorf("stage %s, path %s: %d %s", c.stage, c.path, got.StatusCode, got.Body)
		}
	}
}

// An HTTP API decodes a path before it passes it on, a Function URL does not.
func TestLambda_UnknownPathWhateverItsBytes(t *testing.T) {
	handler := httpserver.Handler(wiring(io.Discard, nil), needless)
	for _, path := range []string{
		"/", "//", "//needless", "/needless/", "/needless%2F", "/need%6Cess", "/needless?", "/needless?a=b", "/needless#a", "/needless%3Fx",
		"/%zz", "/%", "/100%", "/a b", "/needless ", "/ needless", "/\n", "/needless\n", "/\r\n", "/\x00", "/\x7f", "/é", "/%C3%A9", "/\xff", "/%FF",
		"/🐎", "/\\", `/"`, "/<>", "/..", "/../needless", "/./needless", "/;", "/needless;a=b", "*", "/*", "/{path}", "/\u200b",
	} {
		quoted, _ := json.Marshal(path)
		got := invoke(t, handler, `{"rawPath":`+string(quoted)+`,"requestContext":{"http":{"method":"GET"}}}`)
		if got.StatusCode != http.StatusNotFound || got.Body != `{"errors":[{"message":"There is nothing here."}]}` {
			t.Errorf("%q: %d %s", path, got.StatusCode, got.Body)
		}
		inForm(t, "GET", got)
	}
}

func TestLambda_MalformedEvent(t *testing.T) {
	handler := httpserver.Handler(wiring(io.Discard, nil), needless, echo(nil))
	const get = `"requestContext":{"http":{"method":"GET"}}`
	for _, payload := range []string{
		``, ` `, `null`, `[]`, `"x"`, `1`, `{}`, `{"rawPath":`, `{` + get + `}x`, `{"rawPath":1,` + get + `}`, `{"rawPath":"needless",` + get + `}`, `{"rawPath":"",` + get + `}`,
		`{"rawPath":"/needless","rawPath":"/needless",` + get + `}`, `{"rawPath":"/needless","headers":[],` + get + `}`, `{"rawPath":"/needless","headers":{"a":1},` + get + `}`,
		`{"rawPath":"/needless","headers":{"a":"1","a":"2"},` + get + `}`, `{"rawPath":"/needless","cookies":"a=b",` + get + `}`, `{"rawPath":"/needless","isBase64Encoded":"true",` + get + `}`,
		`{"rawPath":"/needless","body":1,` + get + `}`, `{"rawPath":"/needless","body":{},` + get + `}`, `{"rawPath":"/needless","body":"*","isBase64Encoded":true,` + get + `}`,
		`{"rawPath":"/needless","rawQueryString":"\n",` + get + `}`, `{"rawPath":"/needless","rawQueryString":"a b",` + get + `}`,
		`{"rawPath":"/needless"}`, `{"rawPath":"/needless","requestContext":{"http":{"method":""}}}`, `{"rawPath":"/needless","requestContext":{"http":{"method":"G T"}}}`,
		`{"rawPath":"/needless","requestContext":{"http":{"method":"\ud800"}}}`, `{"rawPath":"/needless","requestContext":[]}`,
		`{"version":"1.0","path":"/needless","httpMethod":"GET"}`, `{"Records":[]}`, "\xff", `{"rawPath":"/needless"` + "\x00" + `}`,
	} {
		got := invoke(t, handler, payload)
		if got.StatusCode != http.StatusBadRequest || got.Body != `{"errors":[{"message":"The request is malformed."}]}` {
			t.Errorf("%q: %d %s", payload, got.StatusCode, got.Body)
		}
		inForm(t, "GET", got)
	}
}

// shown answers with what it sees of a request.
var shown = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
	http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
	w.Header().Set("Connection", "close")
	fmt.Fprintf(w, "%s %s %s %d %q %q", r.Host, r.RemoteAddr, r.URL.RawQuery, r.ContentLength, body, r.Header)
})

func TestLambda_Request(t *testing.T) {
	for name, c := range map[string]struct{ members, want string }{
		"nothing":                  {``, ` :0  0 "" map[]`},
		"names in any case":        {`,"headers":{"X-A":"1","x-b":"2"}`, ` :0  0 "" map["X-A":["1"] "X-B":["2"]]`},
		"a forwarded address":      {`,"headers":{"X-FORWARDED-FOR":"6.6.6.6"}`, ` :0  0 "" map[]`},
		"cookies":                  {`,"cookies":["a=1","b=2"]`, ` :0  0 "" map["Cookie":["a=1" "b=2"]]`},
		"a body":                   {`,"body":"hello"`, ` :0  5 "hello" map[]`},
		"a body of null":           {`,"body":null`, ` :0  0 "" map[]`},
		"no bytes":                 {`,"body":""`, ` :0  0 "" map[]`},
		"a body in base64":         {`,"body":"AP8=","isBase64Encoded":true`, ` :0  2 "\x00\xff" map[]`},
		"no bytes in base64":       {`,"body":"","isBase64Encoded":true`, ` :0  0 "" map[]`},
		"a length that is wrong":   {`,"headers":{"content-length":"99"},"body":"hello"`, ` :0  5 "hello" map["Content-Length":["99"]]`},
		"a query":                  {`,"rawQueryString":"a=%20&b=` + "\u00e9" + `;&%zz"`, ` :0 a=%20&b=é;&%zz 0 "" map[]`},
		"two tokens":               {`,"headers":{"authorization":"Bearer a,Bearer b"}`, ` :0  0 "" map["Authorization":["Bearer a" "Bearer b"]]`},
		"a token behind another":   {`,"headers":{"authorization":"Basic YTpi==, bearer b"}`, ` :0  0 "" map["Authorization":["Basic YTpi==" " bearer b"]]`},
		"a token behind an empty":  {`,"headers":{"authorization":",Bearer b"}`, ` :0  0 "" map["Authorization":["" "Bearer b"]]`},
		"a token before an empty":  {`,"headers":{"authorization":"Bearer b,"}`, ` :0  0 "" map["Authorization":["Bearer b" ""]]`},
		"credentials with commas":  {`,"headers":{"authorization":"Digest a=b, c = \"d\",e=f"}`, ` :0  0 "" map["Authorization":["Digest a=b, c = \"d\",e=f"]]`},
		"commas in another header": {`,"headers":{"x-a":"1,2"}`, ` :0  0 "" map["X-A":["1,2"]]`},
	} {
		got := invoke(t, shown, `{"rawPath":"/","requestContext":{"http":{"method":"POST"}}`+c.members+`}`)
		if got.Body != c.want || !slices.Equal(got.Cookies, []string{"a=1", "b=2"}) || len(got.Headers) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	got := invoke(t, shown, `{"rawPath":"/","requestContext":{"domainName":"api.example","http":{"method":"GET","sourceIp":"2001:db8::9"}}}`)
	if !strings.HasPrefix(got.Body, "api.example [2001:db8::9]:0 ") {
		t.Errorf("the gateway's own: %s", got.Body)
	}
	if got := invoke(t, shown, `{"rawPath":"/","requestContext":{"http":{"method":"HEAD"}}}`); got.Body != "" || got.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %+v", got)
	}
	twice := invoke(t, httpserver.Handler(wiring(io.Discard, nil), private), `{"rawPath":"/private","headers":{"authorization":"Bearer x","Authorization":"Bearer x"},"requestContext":{"http":{"method":"POST"}}}`)
	if twice.StatusCode != http.StatusUnauthorized {
		t.Errorf("two names that differ in case: %+v", twice)
	}
}

func TestLambda_BinaryAnswer(t *testing.T) {
	got := invoke(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "\xff\x00") }), `{"rawPath":"/","requestContext":{"http":{"method":"GET"}}}`)
	if !got.IsBase64Encoded || got.Body != "/wA=" {
		t.Errorf("%+v", got)
	}
}
