package e2e_test

import (
	"net/http"
	"slices"
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// A function serves its own path and the paths of the probes. All other paths are not found:
// those of other functions and of debug and status pages.
func TestFunctions_UnknownPathsNotFound(t *testing.T) {
	s := startAll(t, mongotest.URI(t))
	paths := []string{
		"/", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/vars", "/debug/requests", "/metrics", "/healthz",
		"/readyz", "/livez", "/health", "/status", "/version", "/info", "/env", "/actuator", "/config", "/openapi.yaml", "/asyncapi.yaml",
		"/schemas/com.ticketing.user.signedup.v1.json", "/swagger",
		"/favicon.ico", "/robots.txt", "/.git/config", "/.env", "/api", "/api/users", "/api/users/", "/admin",
	}
	own := map[string][]string{}
	for _, f := range catalog.Functions() {
		for _, e := range f.Endpoints {
			paths, own[f.Name] = append(paths, e.Path), append(own[f.Name], e.Path)
		}
	}
	for name, p := range s.processes {
		for _, path := range paths {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				status, header, body, err := e2e.Call(t.Context(), method, p.URL+path, "", "")
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(own[name], path) {
					continue
				}
				if status != http.StatusNotFound || body != `{"errors":[{"message":"There is nothing here."}]}` ||
					header.Get("Server") != "" || header.Get("X-Powered-By") != "" {
					t.Errorf("%s %s %s: got %d %v %s, want 404", name, method, path, status, header, body)
				}
			}
		}
	}
}
