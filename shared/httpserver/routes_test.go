package httpserver_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/lambda"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

// answering returns an endpoint that returns its method, its path and the parameter.
func answering(method, path string) endpoint.Endpoint {
	spec := endpoint.Spec{Method: method, Path: path, Access: endpoint.Public, Success: http.StatusOK}
	if !strings.Contains(path, "{") {
		return endpoint.Define(spec, newNothing, func(nothing, context.Context, endpoint.None) (string, error) { return method + " " + path, nil })
	}
	type in struct {
		ID string `path:"id"`
	}
	return endpoint.Define(spec, newNothing, func(_ nothing, _ context.Context, in in) (string, error) {
		return method + " " + path + " " + in.ID, nil
	})
}

func tickets(settings map[string]string) http.Handler {
	return httpserver.Handler(newConfig(io.Discard, settings), endpoint.Function{Name: "tickets", Endpoints: []endpoint.Endpoint{
		answering("GET", "/api/tickets/{id}"), answering("PATCH", "/api/tickets/{id}"), answering("POST", "/api/tickets/{id}/transfer"),
		answering("GET", "/api/tickets"), answering("POST", "/api/tickets"), answering("DELETE", "/api/tickets/mine"),
	}})
}

func TestRoutes(t *testing.T) {
	handler := tickets(nil)
	const nothing = `{"errors":[{"message":"There is nothing here."}]}`
	const notAllowed = `{"errors":[{"message":"This method is not allowed here."}]}`
	long := strings.Repeat("a", 128)
	for _, c := range []struct {
		request string
		status  int
		body    string
		allow   string
	}{
		{"GET /api/tickets", 200, `"GET /api/tickets"`, ""},
		{"HEAD /api/tickets", 200, `"GET /api/tickets"`, ""}, // the server omits the body
		{"POST /api/tickets", 200, `"POST /api/tickets"`, ""},
		{"PUT /api/tickets", 405, notAllowed, "GET, HEAD, POST"},
		{"GET /api/tickets?id=1", 200, `"GET /api/tickets"`, ""},
		{"GET /api/tickets/a-B_9", 200, `"GET /api/tickets/{id} a-B_9"`, ""},
		{"HEAD /api/tickets/1", 200, `"GET /api/tickets/{id} 1"`, ""},
		{"PATCH /api/tickets/1", 200, `"PATCH /api/tickets/{id} 1"`, ""},
		{"POST /api/tickets/1", 405, notAllowed, "GET, HEAD, PATCH"},
		{"DELETE /api/tickets/mine", 200, `"DELETE /api/tickets/mine"`, ""},
		{"GET /api/tickets/mine", 405, notAllowed, "DELETE"}, // a path without a parameter has priority
		{"POST /api/tickets/1/transfer", 200, `"POST /api/tickets/{id}/transfer 1"`, ""},
		{"GET /api/tickets/1/transfer", 405, notAllowed, "POST"},
		{"GET /api/tickets/" + long, 200, `"GET /api/tickets/{id} ` + long + `"`, ""},
		{"GET /api/tickets/" + long + "a", 404, nothing, ""},
		{"GET /api/tickets/", 404, nothing, ""},
		{"GET /api/tickets/1/", 404, nothing, ""},
		{"GET /api/tickets/a/b", 404, nothing, ""},
		{"GET /api/ticketsX", 404, nothing, ""},
		{"GET /api/tickets/a%2Fb", 404, nothing, ""},
		{"GET /api/tickets/%61", 404, nothing, ""},
		{"GET /api/tickets/a.b", 404, nothing, ""},
		{"GET /api/tickets/..", 404, nothing, ""},
		{"GET /api/tickets//transfer", 404, nothing, ""},
		{"POST /api/tickets//transfer", 404, nothing, ""},
		{"GET /api/tickets/{id}", 404, nothing, ""},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s: got %d %s, Allow %q; want %d %s, %q", c.request, w.Code, w.Body, w.Header().Get("Allow"), c.status, c.body, c.allow)
		}
	}
}

func TestRoutes_OverLambda(t *testing.T) {
	payload := `{"version":"2.0","rawPath":"/prod/api/tickets/7","rawQueryString":"","headers":{},"requestContext":{"stage":"prod","http":{"method":"PATCH"}}}`
	got, err := lambda.NewHandler(httpserver.Lambda(tickets(nil))).Invoke(t.Context(), []byte(payload))
	if err != nil || !strings.Contains(string(got), `"body":"\"PATCH /api/tickets/{id} 7\""`) {
		t.Errorf("got %s %v", got, err)
	}
}

// Scripts of an allowed origin may use the methods of all routes.
func TestCORS_MethodsOfRoutes(t *testing.T) {
	handler := tickets(map[string]string{"CORS_ALLOWED_ORIGINS": "https://tickets.example"})
	for method, want := range map[string]string{"GET": "GET", "POST": "POST", "PATCH": "PATCH", "DELETE": "DELETE", "PUT": ""} {
		r := httptest.NewRequest(http.MethodOptions, "/api/tickets/1", nil)
		r.Header.Set("Origin", "https://tickets.example")
		r.Header.Set("Access-Control-Request-Method", method)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if got := w.Header().Get("Access-Control-Allow-Methods"); got != want {
			t.Errorf("%s: got Access-Control-Allow-Methods %q, want %q", method, got, want)
		}
	}
}
