// Package docs serves the references: the API at /openapi.yaml, with an interactive page at
// /docs, and the events at /asyncapi.yaml, with their JSON schemas at /schemas. All are for
// development. The local runner serves them, and the functions do not.
//
// The page is Swagger UI from the module github.com/swaggest/swgui. The binary contains all
// of its files. The page can load files from, and send requests to, its own origin only.
package docs

import (
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/swaggest/swgui/v5/static"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

// The paths of the page of the API, and of the event reference.
const (
	Path       = "/docs"
	EventsPath = "/asyncapi.yaml"
)

//go:embed index.html start.js
var page embed.FS

// policy restricts the page to its own origin. It allows data URLs for images, because
// Swagger UI has its icons in its style sheet and its code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// A file is a response body with its media type.
type file struct {
	contentType string
	read        func() ([]byte, error)
}

// Documents are the generated references.
type Documents struct {
	OpenAPI, AsyncAPI []byte
	Schemas           map[string][]byte // by path
}

// Handler returns a handler that serves documents and their page. It passes all other paths
// to next. next must drain its requests itself.
func Handler(documents Documents, next http.Handler) http.Handler {
	files := map[string]file{
		"/openapi.yaml":              {"application/yaml", generated(documents.OpenAPI)}, // RFC 9512
		EventsPath:                   {"application/yaml", generated(documents.AsyncAPI)},
		Path:                         {"text/html; charset=utf-8", embedded(page, "index.html")},
		"/docs/start.js":             {"text/javascript; charset=utf-8", embedded(page, "start.js")},
		"/docs/swagger-ui-bundle.js": {"text/javascript; charset=utf-8", compressed("swagger-ui-bundle.js.gz")},
		"/docs/swagger-ui.css":       {"text/css; charset=utf-8", compressed("swagger-ui.css.gz")},
		"/docs/favicon-32x32.png":    {"image/png", embedded(static.FS, "favicon-32x32.png")},
	}
	for path, document := range documents.Schemas {
		files[path] = file{"application/schema+json", generated(document)}
	}
	own := httpserver.Drain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			endpoint.Refuse(apierror.Method("GET, HEAD")).Write(w)
			return
		}
		files[r.URL.EscapedPath()].response().Write(w)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, found := files[r.URL.EscapedPath()]; found {
			own.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (f file) response() endpoint.Response {
	content, err := f.read()
	if err != nil {
		return endpoint.Refuse(apierror.From(err))
	}
	return endpoint.Response{Status: http.StatusOK, Body: content, Header: http.Header{
		"Content-Type":            {f.contentType},
		"X-Content-Type-Options":  {"nosniff"},
		"Cache-Control":           {"no-cache"},
		"Content-Security-Policy": {policy},
		"Referrer-Policy":         {"no-referrer"},
	}}
}

func generated(document []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return document, nil }
}

func embedded(files fs.ReadFileFS, name string) func() ([]byte, error) {
	return func() ([]byte, error) { return files.ReadFile(name) }
}

// compressed decompresses a file for each request. A visit requests it once.
func compressed(name string) func() ([]byte, error) {
	return func() ([]byte, error) {
		f, err := static.FS.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		decompressed, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return io.ReadAll(decompressed)
	}
}
