package httpserver

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/telemetry"
)

// Handler wires endpoints and returns their HTTP door, with their event door behind
// it if EVENTS opens that. The wiring collects what is wrong; the handler must not
// serve while it has faults.
func Handler(cfg *config.Config, endpoints ...endpoint.Endpoint) http.Handler {
	d := &door{routes: map[string]*endpoint.Function{}, log: cfg.Log()}
	open := EventsEnabled(cfg)
	takers := map[string]*endpoint.Function{}
	var events endpoint.EventReceiver
	for _, e := range endpoints {
		if e.Path == "" && !open {
			cfg.Problem("EVENTS", "must be on: "+e.Name+" takes nothing else")
		}
		f := e.Bind(cfg, open || e.Path == "")
		if e.Path != "" {
			d.routes[e.Path] = f
		}
		for _, kind := range e.Trigger.Types {
			takers[kind], events = f, e.EventReceiver
		}
	}
	if open && events != nil {
		d.events = events(cfg, takers)
		checkSenders(cfg, len(endpoints) > 1)
	}
	return Drain(crossOrigin(cfg, d.methods(), d))
}

// EventsEnabled reports whether the process takes events: EVENTS.
func EventsEnabled(cfg *config.Config) bool {
	switch cfg.Text("EVENTS", "off") {
	case "on", "insecure":
		return true
	case "off":
	default:
		cfg.Problem("EVENTS", "must be on, insecure or off")
	}
	return false
}

// checkSenders rejects EVENTS=on without OIDC where the public reaches the event path:
// in a process that serves several functions, and on AWS Lambda. A single function on
// Knative is reached there only from inside the cluster.
func checkSenders(cfg *config.Config, several bool) {
	anonymous := cfg.Text("EVENT_OIDC_ISSUER", "")+cfg.Text("EVENT_OIDC_AUDIENCE", "") == "" // wiring the events rejects one of them alone
	if cfg.Text("EVENTS", "") == "on" && anonymous && (several || cfg.Text(lambdaSetting, "") != "") {
		cfg.Problem("EVENTS", "must not be on without EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE where the public reaches the event path: any client could create accounts and end sessions. Set both, or set EVENTS to off, or to insecure to take events from any client")
	}
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
	if d.events != nil && r.Method == http.MethodPost && r.URL.EscapedPath() == eventPath {
		d.events.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	d.answer(ctx, r).Write(w)
}

// methods returns the methods of all routes. GET is one of them: each function answers
// probes.
func (d *door) methods() []string {
	all := []string{http.MethodGet, http.MethodHead}
	for _, f := range d.routes {
		if !slices.Contains(all, f.Method) {
			all = append(all, f.Method)
		}
	}
	return all
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
		return d.refuse(ctx, r, endpoint.Spec{Name: "-", Path: "-"}, apierror.New(apierror.NotFound, "There is nothing here."))
	case r.Method == http.MethodPost && isEvent(r.Header):
		return d.refuse(ctx, r, f.Spec, apierror.New(apierror.UnsupportedMedia, "This address takes no events."))
	case !allowed(r.Method, f.Method):
		return d.refuse(ctx, r, f.Spec, apierror.Method(allow(f.Method)))
	}
	return f.Invoke(ctx, &endpoint.Request{
		Method:          r.Method,
		ContentType:     r.Header.Values("Content-Type"),
		ContentEncoding: r.Header.Values("Content-Encoding"),
		Length:          r.ContentLength,
		Body:            r.Body,
		Authorization:   r.Header.Values("Authorization"),
		IdempotencyKey:  r.Header.Values("Idempotency-Key"),
		Client:          endpoint.Client{Peer: r.RemoteAddr, Forwarded: r.Header.Values("X-Forwarded-For"), Device: deviceToken(r)},
	})
}

// deviceToken returns the device token of a request: of the header, or else of the cookie. A
// browser sends a cookie of this name only to the host that has set it, over TLS.
func deviceToken(r *http.Request) string {
	if token := r.Header.Get("Device-Token"); token != "" {
		return token
	}
	if c, err := r.Cookie("__Host-device"); err == nil {
		return c.Value
	}
	return ""
}

func (d *door) refuse(ctx context.Context, r *http.Request, spec endpoint.Spec, err error) endpoint.Response {
	return endpoint.Answer(ctx, d.log, spec, r.Method, func() (any, error) { return nil, err })
}

// health answers a probe (the paths are those of Knative's func). It never asks the
// database: one that is away must not have all functions restarted. Probes come
// every few seconds, so what they get is not logged.
func (d *door) health(ctx context.Context, r *http.Request) endpoint.Response {
	if !allowed(r.Method, http.MethodGet) {
		return d.refuse(ctx, r, endpoint.Spec{Name: "-", Path: "-"}, apierror.Method(allow(http.MethodGet)))
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
