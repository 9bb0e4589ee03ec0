package httpserver

import (
	"cmp"
	"net/http"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/telemetry"
)

// end ends the span of a request. The span has the declared path, because the path as sent can
// contain an id.
func (h *handler) end(span trace.Span, r *http.Request, status int) {
	path, method := "", cmp.Or(endpoint.StandardMethod(r.Method), "_OTHER")
	if route, _ := h.routes.find(r.URL.EscapedPath()); route != nil {
		path = route.path
	} else if h.events != nil && r.URL.EscapedPath() == eventPath {
		path = eventPath
	}
	name := cmp.Or(endpoint.StandardMethod(r.Method), "HTTP")
	if path != "" {
		name += " " + path
		span.SetAttributes(semconv.HTTPRoute(path))
	}
	span.SetName(name)
	span.SetAttributes(semconv.HTTPRequestMethodKey.String(method), semconv.HTTPResponseStatusCode(status))
	telemetry.End(span, status >= http.StatusInternalServerError)
}

// A statusWriter records the status of a response.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
