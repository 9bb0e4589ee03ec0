package serve

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/rs/cors"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/telemetry"
)

// Handler wires endpoints and returns their HTTP door. The wiring collects what
// is wrong; the handler must not serve while it has faults.
func Handler(w *app.Wiring, endpoints ...endpoint.Endpoint) http.Handler {
	d := &door{routes: map[string]*endpoint.Function{}, log: w.Log()}
	for _, e := range endpoints {
		d.routes[e.Path] = e.Bind(w)
	}
	origins := w.AllowedOrigins()
	if len(origins) == 0 {
		return d
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Traceparent"},
		ExposedHeaders: []string{"Retry-After", "WWW-Authenticate"},
		MaxAge:         600,
	}).Handler(d)
}

// A door answers HTTP for some functions, each on its exact path.
type door struct {
	routes map[string]*endpoint.Function
	log    *slog.Logger
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isHealth(r) {
		write(w, endpoint.Response{Status: http.StatusOK, Header: http.Header{"Cache-Control": {"no-store"}}})
		return
	}
	ctx := telemetry.With(r.Context(), telemetry.Continue(r.Header.Get("Traceparent")))
	write(w, d.answer(ctx, r))
}

// answer picks the function by the path as it was sent: an escaped letter, a
// trailing or a double slash make another path.
func (d *door) answer(ctx context.Context, r *http.Request) endpoint.Response {
	f := d.routes[r.URL.EscapedPath()]
	switch {
	case f == nil:
		return d.refuse(ctx, r, endpoint.Spec{Name: "-", Path: "-"}, fault.New(fault.NotFound, "There is nothing here."))
	case r.Method != f.Method && (r.Method != http.MethodHead || f.Method != http.MethodGet):
		return d.refuse(ctx, r, f.Spec, fault.Method(allow(f.Method)))
	case isEvent(r.Header):
		return d.refuse(ctx, r, f.Spec, fault.New(fault.UnsupportedMedia, "This address takes no events."))
	}
	return f.Invoke(ctx, &endpoint.Request{
		Method:        r.Method,
		ContentType:   r.Header.Values("Content-Type"),
		Length:        r.ContentLength,
		Body:          r.Body,
		Authorization: r.Header.Values("Authorization"),
	})
}

func (d *door) refuse(ctx context.Context, r *http.Request, spec endpoint.Spec, err error) endpoint.Response {
	return endpoint.Answer(ctx, d.log, spec, r.Method, func() (any, error) { return nil, err })
}

func write(w http.ResponseWriter, response endpoint.Response) {
	h := w.Header()
	for name, values := range response.Header {
		h[name] = values
	}
	h.Set("Content-Length", strconv.Itoa(len(response.Body)))
	if response.Status == http.StatusRequestEntityTooLarge {
		h.Set("Connection", "close") // or the server would read the rest to find the next request
	}
	w.WriteHeader(response.Status)
	w.Write(response.Body) // a caller that is gone has no use for the error; of HEAD net/http sends no body
}

// isHealth tells a probe (the paths are those of Knative's func). It never asks
// the database: one that is away must not have all functions restarted.
func isHealth(r *http.Request) bool {
	return (r.URL.Path == "/health/liveness" || r.URL.Path == "/health/readiness") &&
		(r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// isEvent tells a CloudEvent, well-formed or not: any attribute header of the
// binary mode, or the media types of the structured and the batched (CloudEvents
// HTTP Protocol Binding §3).
func isEvent(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Ce-") {
			return true
		}
	}
	return strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "application/cloudevents")
}

func allow(method string) string {
	if method == http.MethodGet {
		return "GET, HEAD"
	}
	return method
}
