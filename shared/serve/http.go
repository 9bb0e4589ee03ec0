package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// Handler wires endpoints and returns their HTTP door, and their event door behind
// it if the environment opens that. The wiring collects what is wrong; the handler
// must not serve while it has faults.
func Handler(w *app.Wiring, endpoints ...endpoint.Endpoint) http.Handler {
	events := w.EventDoor()
	d := &door{routes: map[string]*endpoint.Function{}, triggers: map[string]*endpoint.Function{}, log: w.Log()}
	for _, e := range endpoints {
		if e.Path == "" {
			w.RequireEvents()
		}
		f := e.Bind(w, events.Open || e.Path == "")
		if e.Path != "" {
			d.routes[e.Path] = f
		}
		if events.Open {
			for _, kind := range e.Trigger.Types {
				d.triggers[kind] = f
			}
		}
	}
	if len(d.triggers) > 0 {
		d.senders = newSenders(events, w.Now())
	}
	origins := w.AllowedOrigins()
	if len(origins) == 0 {
		return d
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Idempotency-Key", "Traceparent"},
		ExposedHeaders: []string{"Retry-After", "WWW-Authenticate"},
		MaxAge:         600,
	}).Handler(d)
}

// A door answers HTTP for some functions, each on its exact path, and takes events
// for those of them that want some.
type door struct {
	routes   map[string]*endpoint.Function // by path
	triggers map[string]*endpoint.Function // by event type; none where the event door is shut
	senders  *senders                      // who may send events
	log      *slog.Logger
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case isHealth(r):
		write(w, endpoint.Response{Status: http.StatusOK, Header: http.Header{"Cache-Control": {"no-store"}}})
	case len(d.triggers) > 0 && r.Method == http.MethodPost && r.URL.EscapedPath() == eventPath:
		d.serveEvent(w, r)
	default:
		ctx := telemetry.With(r.Context(), telemetry.Continue(r.Header.Get("Traceparent")))
		write(w, d.answer(ctx, r))
	}
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
	key, err := retryKey(r.Header.Values("Idempotency-Key"))
	if err != nil {
		return d.refuse(ctx, r, f.Spec, err)
	}
	return f.Invoke(ctx, &endpoint.Request{
		Method:        r.Method,
		ContentType:   r.Header.Values("Content-Type"),
		Length:        r.ContentLength,
		Body:          r.Body,
		Authorization: r.Header.Values("Authorization"),
		Key:           key,
	})
}

// retryKey makes the key of a request of its Idempotency-Key header
// (draft-ietf-httpapi-idempotency-key-header-07 §2.1: one Structured Field string;
// the quotes may be left out). It is a digest: what a caller sends as a key goes
// nowhere else.
func retryKey(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", nil
	}
	value := strings.TrimSpace(headers[0])
	if unquoted, ok := strings.CutPrefix(value, `"`); ok {
		value, ok = strings.CutSuffix(unquoted, `"`)
		if !ok {
			value = ""
		}
	}
	odd := func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }
	if len(headers) > 1 || value == "" || len(value) > maxRetryKey || strings.ContainsFunc(value, odd) {
		return "", fault.New(fault.Invalid, "Idempotency-Key must be one string of 1 to 255 printable ASCII characters.")
	}
	sum := sha256.Sum256([]byte("http\x00" + value))
	return hex.EncodeToString(sum[:16]), nil
}

// maxRetryKey is the longest Idempotency-Key, in characters.
const maxRetryKey = 255

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
