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

const document = "openapi: 3.1.0\n"

// beyond answers what is not of the docs.
var beyond = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })

func ask(t *testing.T, method, target string) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	docs.Handler([]byte(document), beyond).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

func TestTheDocumentIsServedAsItIs(t *testing.T) {
	if r, body := ask(t, "GET", "/openapi.yaml"); r.StatusCode != http.StatusOK || body != document || r.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v %s", r.StatusCode, r.Header, body)
	}
}

func TestOnlyItsOwnPathsAreOfTheDocs(t *testing.T) {
	for _, target := range []string{"/", "/docs/", "//docs", "/docs/index.html", "/docs/swagger-ui.js", "/docs/../docs", "/doc%73", "/DOCS", "/openapi.yaml/", "/openapi.json", "/api/users/signup"} {
		if r, _ := ask(t, "GET", target); r.StatusCode != http.StatusTeapot {
			t.Errorf("%s: %d", target, r.StatusCode)
		}
	}
	if r, body := ask(t, "POST", docs.Path); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" || !strings.HasPrefix(body, `{"errors":[`) {
		t.Errorf("POST: %d %v %s", r.StatusCode, r.Header, body)
	}
}

// A TCP reset must not destroy the response to a request whose body is not read.
func TestDocs_LargeBodyIsAnswered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- httpserver.Serve(ctx, listener, docs.Handler([]byte(document), beyond), slog.New(slog.DiscardHandler))
	}()
	body := strings.Repeat(" ", 4<<20)
	for path, want := range map[string]int{docs.Path: http.StatusMethodNotAllowed, "/openapi.yaml": http.StatusMethodNotAllowed} {
		for i := range 20 {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_, written := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || written != nil || answer.StatusCode != want {
				t.Errorf("%s, request %d: %v %v %v, want %d", path, i, answer, written, err, want)
			}
			conn.Close()
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// The page works without a network: all that it refers to is here, and of the type the
// browser wants; nothing in it names another host, and it is forbidden to.
func TestThePageNeedsNoOtherHost(t *testing.T) {
	r, page := ask(t, "GET", docs.Path)
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	if strings.Contains(page, "//") || strings.Contains(page, "<script>") || strings.Contains(page, "style=") {
		t.Errorf("it names a host, or has code of its own: %s", page)
	}
	types := map[string]string{"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "png": "image/png", "yaml": "application/yaml"}
	references := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(references) != 5 {
		t.Errorf("it refers to %q", references)
	}
	for _, m := range references {
		got, body := ask(t, "GET", m[1])
		if want := types[m[1][strings.LastIndex(m[1], ".")+1:]]; got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != want || body == "" {
			t.Errorf("%s: %d %v", m[1], got.StatusCode, got.Header)
		}
	}
	for directive := range strings.SplitSeq(r.Header.Get("Content-Security-Policy"), "; ") {
		name, sources, _ := strings.Cut(directive, " ")
		for source := range strings.FieldsSeq(sources) {
			if may := source == "'none'" || source == "'self'" || source == "data:" && name == "img-src"; !may {
				t.Errorf("%s allows %s", name, source)
			}
		}
	}
	if !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'; ") {
		t.Errorf("what is not named is allowed: %v", r.Header)
	}
}

func TestTheStyleSheetNeedsNoOtherHost(t *testing.T) {
	_, sheet := ask(t, "GET", "/docs/swagger-ui.css")
	for _, m := range regexp.MustCompile(`(?i)(?:url\(|@import)\s*["']?([^"')]{0,12})`).FindAllStringSubmatch(sheet, -1) {
		if !strings.HasPrefix(m[1], "data:") {
			t.Errorf("it loads %s", m[0])
		}
	}
}

// The defaults of Swagger UI would ask another host what it thinks of the document, and
// show the document of any link.
func TestThePageIsStartedWithoutTheDefaultsThatLeaveIt(t *testing.T) {
	_, start := ask(t, "GET", "/docs/start.js")
	for _, want := range []string{`url: "/openapi.yaml"`, "validatorUrl: null", "queryConfigEnabled: false"} {
		if !strings.Contains(start, want) {
			t.Errorf("it lacks %s: %s", want, start)
		}
	}
}
