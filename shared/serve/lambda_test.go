package serve_test

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

	"ticketing.com/auth/shared/serve"
)

// Whatever the event, which anybody may send who may invoke the function: an answer
// as every answer is, and the one that the HTTP door gives where the same request can
// be written on its wire.
func FuzzLambdaDoor(f *testing.F) {
	handler := serve.Handler(wiring(io.Discard, nil), echo(nil), needless)
	invoke := lambda.NewHandler(serve.Lambda(handler))
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
