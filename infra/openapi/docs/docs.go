// Package docs serves the reference of the API: the document at /openapi.yaml, and at
// /docs a page that shows it and can call what it describes. Both are for development:
// the local runner puts them before its functions, and a function has neither.
//
// The page is Swagger UI as the module github.com/swaggest/swgui packs it. All of it is
// in the binary, and the page may load and call nothing but where it comes from.
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

// Path is where the page is.
const Path = "/docs"

//go:embed index.html start.js
var own embed.FS

// policy lets the page load what is here, and speak to what is here. Swagger UI has its
// icons in its style sheet and its code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// A file is something that is served at a path of its own.
type file struct {
	contentType string
	read        func() ([]byte, error)
}

// Handler serves a document and its page, and leaves all other paths to next, which drains
// its requests itself.
func Handler(document []byte, next http.Handler) http.Handler {
	files := map[string]file{
		"/openapi.yaml":              {"application/yaml", func() ([]byte, error) { return document, nil }}, // RFC 9512
		Path:                         {"text/html; charset=utf-8", of(own, "index.html")},
		"/docs/start.js":             {"text/javascript; charset=utf-8", of(own, "start.js")},
		"/docs/swagger-ui-bundle.js": {"text/javascript; charset=utf-8", packed("swagger-ui-bundle.js.gz")},
		"/docs/swagger-ui.css":       {"text/css; charset=utf-8", packed("swagger-ui.css.gz")},
		"/docs/favicon-32x32.png":    {"image/png", of(static.FS, "favicon-32x32.png")},
	}
	own := httpserver.Drain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			endpoint.Refuse(apierror.Method("GET, HEAD")).Write(w)
			return
		}
		files[r.URL.EscapedPath()].answer().Write(w)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, mine := files[r.URL.EscapedPath()]; mine {
			own.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (f file) answer() endpoint.Response {
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

func of(files fs.ReadFileFS, name string) func() ([]byte, error) {
	return func() ([]byte, error) { return files.ReadFile(name) }
}

// packed unpacks a file when it is asked for, which is once a visit.
func packed(name string) func() ([]byte, error) {
	return func() ([]byte, error) {
		f, err := static.FS.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		unpacked, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return io.ReadAll(unpacked)
	}
}
