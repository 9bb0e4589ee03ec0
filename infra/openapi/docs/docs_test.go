package docs_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"ticketing.com/auth/infra/openapi/docs"
	"ticketing.com/auth/shared/httpserver"
)

var documents = docs.Documents{
	OpenAPI:  []byte("openapi: 3.1.0\n"),
	AsyncAPI: []byte("asyncapi: 3.0.0\n"),
	Schemas:  map[string][]byte{"/schemas/hello.v1.json": []byte("{}\n")},
}

// next responds to the requests that are not for the docs.
var next = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })

func request(t *testing.T, method, target string) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	docs.Handler(documents, next).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

func TestHandler_Documents(t *testing.T) {
	for path, want := range map[string]struct{ contentType, body string }{
		"/openapi.yaml":          {"application/yaml", "openapi: 3.1.0\n"},
		"/asyncapi.yaml":         {"application/yaml", "asyncapi: 3.0.0\n"},
		"/schemas/hello.v1.json": {"application/schema+json", "{}\n"},
	} {
		if r, body := request(t, "GET", path); r.StatusCode != http.StatusOK || body != want.body || r.Header.Get("Content-Type") != want.contentType {
			t.Errorf("%s: got %d %v %s, want 200 and %v", path, r.StatusCode, r.Header, body, want)
		}
	}
}

func TestHandler_OtherPathsAndMethods(t *testing.T) {
	for _, target := range []string{"/", "/docs/", "//docs", "/docs/index.html", "/docs/swagger-ui.js", "/docs/../docs", "/doc%73", "/DOCS", "/openapi.yaml/", "/openapi.json", "/asyncapi.json", "/schemas", "/schemas/", "/schemas/hello.v1", "/schemas/other.v1.json", "/schemas/../openapi.yaml", "/api/users/signup"} {
		if r, _ := request(t, "GET", target); r.StatusCode != http.StatusTeapot {
			t.Errorf("%s: got %d, want %d from the next handler", target, r.StatusCode, http.StatusTeapot)
		}
	}
	if r, body := request(t, "POST", docs.Path); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" || !strings.HasPrefix(body, `{"errors":[`) {
		t.Errorf("POST: got %d %v %s, want 405 with Allow: GET, HEAD and an error", r.StatusCode, r.Header, body)
	}
}

// A TCP reset must not destroy the response to a request with an unread body.
func TestDocs_LargeBodyIsAnswered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- httpserver.Serve(ctx, listener, docs.Handler(documents, next), slog.New(slog.DiscardHandler))
	}()
	body := strings.Repeat(" ", 4<<20)
	for path, want := range map[string]int{docs.Path: http.StatusMethodNotAllowed, "/openapi.yaml": http.StatusMethodNotAllowed, "/schemas/hello.v1.json": http.StatusMethodNotAllowed} {
		for i := range 20 {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_, written := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || written != nil || response.StatusCode != want {
				t.Errorf("%s, request %d: %v %v %v, want %d", path, i, response, written, err, want)
			}
			conn.Close()
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// The page works without a network. The handler serves all files that it refers to, with the
// media types that browsers require. The content security policy forbids other hosts.
func TestPage_NeedsNoOtherHost(t *testing.T) {
	r, page := request(t, "GET", docs.Path)
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %v, want 200 and text/html", r.StatusCode, r.Header)
	}
	if strings.Contains(page, "//") || strings.Contains(page, "<script>") || strings.Contains(page, "style=") {
		t.Errorf("the page names a host or has inline code: %s", page)
	}
	types := map[string]string{"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "png": "image/png", "yaml": "application/yaml"}
	references := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(references) != 5 {
		t.Errorf("the page refers to %q, want 5 files", references)
	}
	for _, m := range references {
		got, body := request(t, "GET", m[1])
		if want := types[m[1][strings.LastIndex(m[1], ".")+1:]]; got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != want || body == "" {
			t.Errorf("%s: got %d %v, want 200, %s and a body", m[1], got.StatusCode, got.Header, want)
		}
	}
	for directive := range strings.SplitSeq(r.Header.Get("Content-Security-Policy"), "; ") {
		name, sources, _ := strings.Cut(directive, " ")
		for source := range strings.FieldsSeq(sources) {
			if allowed := source == "'none'" || source == "'self'" || source == "data:" && name == "img-src"; !allowed {
				t.Errorf("the directive %s allows %s", name, source)
			}
		}
	}
	if !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'; ") {
		t.Errorf("got %v, want a policy that begins with default-src 'none'", r.Header)
	}
}

func TestStyleSheet_NeedsNoOtherHost(t *testing.T) {
	_, sheet := request(t, "GET", "/docs/swagger-ui.css")
	for _, m := range regexp.MustCompile(`(?i)(?:url\(|@import)\s*["']?([^"')]{0,12})`).FindAllStringSubmatch(sheet, -1) {
		if !strings.HasPrefix(m[1], "data:") {
			t.Errorf("the style sheet loads %s, want data URLs only", m[0])
		}
	}
}

// By default, Swagger UI sends the address of the document to a validator on another host. It
// also shows any document that a link names.
func TestPage_DisablesRemoteDefaultsOfSwaggerUI(t *testing.T) {
	_, script := request(t, "GET", "/docs/start.js")
	for _, want := range []string{`url: "/openapi.yaml"`, "validatorUrl: null", "queryConfigEnabled: false"} {
		if !strings.Contains(script, want) {
			t.Errorf("start.js does not contain %s: %s", want, script)
		}
	}
}
