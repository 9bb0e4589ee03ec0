package serve

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/cors"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/telemetry"
)

// Handler wires endpoints and returns their HTTP door, with their event door behind
// it if EVENTS opens that. The wiring collects what is wrong; the handler must not
// serve while it has faults.
func Handler(w *app.Wiring, endpoints ...endpoint.Endpoint) http.Handler {
	d := &door{routes: map[string]*endpoint.Function{}, log: w.Log()}
	open := Events(w)
	takers := map[string]*endpoint.Function{}
	var events endpoint.EventDoor
	for _, e := range endpoints {
		if e.Path == "" && !open {
			w.Fault("EVENTS", "must be on: "+e.Name+" takes nothing else")
		}
		f := e.Bind(w, open || e.Path == "")
		if e.Path != "" {
			d.routes[e.Path] = f
		}
		for _, kind := range e.Trigger.Types {
			takers[kind], events = f, e.EventDoor
		}
	}
	if open && events != nil {
		d.events = events(w, takers)
		checkSenders(w, len(endpoints) > 1)
	}
	return crossOrigin(w, d)
}

// Events returns whether the process takes events: EVENTS.
func Events(w *app.Wiring) bool {
	switch w.Text("EVENTS", "off") {
	case "on", "insecure":
		return true
	case "off":
	default:
		w.Fault("EVENTS", "must be on, insecure or off")
	}
	return false
}

// checkSenders rejects EVENTS=on without OIDC where the public reaches the event path:
// in a process that serves several functions, and on AWS Lambda. A single function on
// Knative is reached there only from inside the cluster.
func checkSenders(w *app.Wiring, several bool) {
	anonymous := w.Text("EVENT_OIDC_ISSUER", "")+w.Text("EVENT_OIDC_AUDIENCE", "") == "" // wiring the events rejects one of them alone
	if w.Text("EVENTS", "") == "on" && anonymous && (several || w.Text(lambdaSetting, "") != "") {
		w.Fault("EVENTS", "must not be on without EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE where the public reaches the event path: any client could create accounts and end sessions. Set both, or set EVENTS to off, or to insecure to take events from any client")
	}
}

// crossOrigin lets the scripts of some web origins call: CORS_ALLOWED_ORIGINS,
// separated by commas. Each is named in full: a pattern would let in whoever gets
// hold of one name under it.
func crossOrigin(w *app.Wiring, next http.Handler) http.Handler {
	var origins []string
	for s := range strings.SplitSeq(w.Text("CORS_ALLOWED_ORIGINS", ""), ",") {
		origin := strings.TrimSpace(s)
		if origin == "" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || origin != u.Scheme+"://"+u.Host || strings.Contains(origin, "*") {
			w.Fault("CORS_ALLOWED_ORIGINS", "must list origins such as https://tickets.example, separated by commas")
		}
		origins = append(origins, origin)
	}
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Idempotency-Key", "Traceparent"},
		ExposedHeaders: []string{"RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"},
		MaxAge:         600,
	}).Handler(next)
}

// eventPath is where the functions take events, each at the root of its own
// service, which the public routes do not reach.
const eventPath = "/"

// A door answers HTTP for some functions, each on its exact path.
type door struct {
	routes map[string]*endpoint.Function // by path
	events http.Handler                  // nil where the event door is shut
	log    *slog.Logger
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := telemetry.With(r.Context(), telemetry.Continue(r.Header.Get("Traceparent")))
	body := &watched{ReadCloser: r.Body, done: r.ContentLength == 0}
	r.Body = body
	w = &polite{w, body, len(r.TransferEncoding) > 0}
	if d.events != nil && r.Method == http.MethodPost && r.URL.EscapedPath() == eventPath {
		d.events.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	d.answer(ctx, r).Write(w)
}

// A polite writer tells a caller whose body was not read to its end that the
// connection closes. Else the server would wait for the rest, to find the next
// request after it.
//
// After chunks it closes as well. Where a request has a length beside them net/http
// takes the chunks and hides the length; a proxy that took the length would see
// another request behind it than the server does (RFC 9112 §6.1: "MUST close").
type polite struct {
	http.ResponseWriter
	body    *watched
	chunked bool
}

// WriteHeader implements http.ResponseWriter.
func (p *polite) WriteHeader(status int) {
	if p.chunked {
		p.Header().Set("Connection", "close")
	}
	if !p.body.done {
		p.Header().Set("Connection", "close")
		// a caller in the middle of sending must be able to see the answer before
		// the reset; where the wire has no deadline nobody waits
		http.NewResponseController(p.ResponseWriter).SetReadDeadline(time.Now().Add(farewell))
	}
	p.ResponseWriter.WriteHeader(status)
}

// farewell is how long a connection whose request was refused unread still takes in
// what its caller sends.
const farewell = 500 * time.Millisecond

// A watched body knows whether it was read to its end.
type watched struct {
	io.ReadCloser
	done bool
}

// Read implements io.Reader.
func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.done = b.done || err == io.EOF
	return n, err
}

// answer picks the function by the path as it was sent: an escaped letter, a
// trailing or a double slash make another path.
func (d *door) answer(ctx context.Context, r *http.Request) endpoint.Response {
	path := r.URL.EscapedPath()
	if path == "/health/liveness" || path == "/health/readiness" {
		return d.health(ctx, r)
	}
	f := d.routes[path]
	switch {
	case f == nil:
		return d.refuse(ctx, r, endpoint.Spec{Name: "-", Path: "-"}, fault.New(fault.NotFound, "There is nothing here."))
	case r.Method == http.MethodPost && isEvent(r.Header):
		return d.refuse(ctx, r, f.Spec, fault.New(fault.UnsupportedMedia, "This address takes no events."))
	case !allowed(r.Method, f.Method):
		return d.refuse(ctx, r, f.Spec, fault.Method(allow(f.Method)))
	}
	return f.Invoke(ctx, &endpoint.Request{
		Method:        r.Method,
		ContentType:   r.Header.Values("Content-Type"),
		Length:        r.ContentLength,
		Body:          r.Body,
		Authorization: r.Header.Values("Authorization"),
		RetryKey:      r.Header.Values("Idempotency-Key"),
		Caller:        endpoint.Caller{Peer: r.RemoteAddr, Forwarded: r.Header.Values("X-Forwarded-For")},
	})
}

func (d *door) refuse(ctx context.Context, r *http.Request, spec endpoint.Spec, err error) endpoint.Response {
	return endpoint.Answer(ctx, d.log, spec, r.Method, func() (any, error) { return nil, err })
}

// health answers a probe (the paths are those of Knative's func). It never asks the
// database: one that is away must not have all functions restarted. Probes come
// every few seconds, so what they get is not logged.
func (d *door) health(ctx context.Context, r *http.Request) endpoint.Response {
	if !allowed(r.Method, http.MethodGet) {
		return d.refuse(ctx, r, endpoint.Spec{Name: "-", Path: "-"}, fault.Method(allow(http.MethodGet)))
	}
	return endpoint.Healthy()
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

// allowed tells whether a request's method is that of a function. GET has HEAD with
// it (RFC 9110 §9.3.2).
func allowed(got, method string) bool {
	return got == method || got == http.MethodHead && method == http.MethodGet
}

func allow(method string) string {
	if method == http.MethodGet {
		return "GET, HEAD"
	}
	return method
}
