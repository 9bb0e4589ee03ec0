package httpserver

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/inprocess"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/telemetry/otlp"
)

// Handler configures functions and returns their HTTP handler. The handler also receives
// their events if EVENTS is on or insecure. Without K_SINK, the process delivers the events that
// its functions publish to its receivers (see package inprocess), whatever EVENTS is. While cfg.Err returns an error, the handler must
// not serve requests.
func Handler(cfg *config.Config, functions ...endpoint.Function) http.Handler {
	process := "auth"
	if len(functions) == 1 {
		process = functions[0].Name
	}
	otlp.Start(cfg, process)
	h := &handler{log: cfg.Log(), telemetry: telemetry.FromConfig(cfg), sink: inprocess.Prepare(cfg, functions)}
	enabled := EventsEnabled(cfg)
	byType := map[string][]*endpoint.Bound{}
	var newEvents endpoint.EventHandler
	for _, f := range functions {
		used := enabled || h.sink.Receives(f)
		if len(f.Endpoints) == 0 && !used {
			cfg.Problem("EVENTS", "must be on: "+f.Name+" only receives events")
		}
		for _, e := range f.Endpoints {
			h.add(e.Bind(cfg, f.Name))
		}
		if !used && len(f.Endpoints) > 0 {
			continue
		}
		for _, r := range f.Receivers {
			bound := r.Bind(cfg, f.Name)
			for _, eventType := range r.Types {
				byType[eventType.Name] = append(byType[eventType.Name], bound)
			}
			newEvents = r.Handler
		}
	}
	if h.sink != nil {
		h.sink.Connect(byType)
	}
	if enabled && newEvents != nil {
		h.events = newEvents(cfg, byType)
		checkSenders(cfg, len(functions) > 1)
	}
	return Drain(crossOrigin(cfg, h.methods(), h))
}

// EventsEnabled reports whether the process receives events. It reads EVENTS.
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

// checkSenders rejects EVENTS=on without OIDC if the event path is public: in a process with
// several functions, and on AWS Lambda. The event path of a single function on Knative is
// reachable only inside the cluster.
func checkSenders(cfg *config.Config, several bool) {
	anonymous := cfg.Text("EVENT_OIDC_ISSUER", "")+cfg.Text("EVENT_OIDC_AUDIENCE", "") == "" // the receiver rejects one of them alone
	if cfg.Text("EVENTS", "") == "on" && anonymous && (several || cfg.Text(lambdaSetting, "") != "") {
		cfg.Problem("EVENTS", "must not be on without EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE where the public reaches the event path: any client could create accounts and end sessions. Set both, or set EVENTS to off, or to insecure to take events from any client")
	}
}

// eventPath is the path of the event receiver: the root of a function's own service, which
// no public route reaches.
const eventPath = "/"

// A handler routes requests to endpoints by their methods and paths.
type handler struct {
	routes routes
	events http.Handler    // nil without EVENTS
	sink   *inprocess.Sink // nil unless the process delivers its events itself
	log    *slog.Logger

	telemetry *telemetry.Telemetry
}

// add adds an endpoint to the routes.
func (h *handler) add(b *endpoint.Bound) { h.routes = h.routes.with(b) }

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	if isProbe(r) {
		endpoint.Healthy().Write(w)
		h.sink.AfterRequest(r.Context(), began)
		return
	}
	ctx, span := h.telemetry.Serve(r.Context(), r.Header)
	if span.IsRecording() {
		recorded := &statusWriter{w, http.StatusOK}
		w = recorded
		defer func() { h.end(span, r, recorded.status) }()
	}
	defer h.telemetry.Answered(ctx, began)
	if h.events != nil && r.Method == http.MethodPost && r.URL.EscapedPath() == eventPath {
		h.events.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	h.answer(ctx, r).Write(w)
	h.sink.AfterRequest(ctx, began)
}

// methods returns the methods of all routes. It includes GET, the method of probes.
func (h *handler) methods() []string {
	all := []string{http.MethodGet, http.MethodHead}
	for _, route := range h.routes {
		for _, b := range route.endpoints {
			if !slices.Contains(all, b.Method) {
				all = append(all, b.Method)
			}
		}
	}
	return all
}

// answer routes a request by its path as sent. A path with an escaped letter, a trailing
// slash or a double slash is another path.
func (h *handler) answer(ctx context.Context, r *http.Request) endpoint.Response {
	path := r.URL.EscapedPath()
	if isHealthPath(path) {
		return h.refuse(ctx, r, "-", "-", apierror.Method("GET, HEAD"))
	}
	route, param := h.routes.find(path)
	if route == nil {
		return h.refuse(ctx, r, "-", "-", apierror.New(apierror.NotFound, "There is nothing here."))
	}
	if r.Method == http.MethodPost && isEvent(r.Header) {
		return h.refuse(ctx, r, route.function, route.path, apierror.New(apierror.UnsupportedMedia, "This address takes no events."))
	}
	b := route.endpoint(r.Method)
	if b == nil {
		return h.refuse(ctx, r, route.function, route.path, apierror.Method(route.allow()))
	}
	return b.Invoke(ctx, &endpoint.Request{
		Method:          r.Method,
		Param:           param,
		Query:           r.URL.RawQuery,
		ContentType:     r.Header.Values("Content-Type"),
		ContentEncoding: r.Header.Values("Content-Encoding"),
		Length:          r.ContentLength,
		Body:            r.Body,
		Authorization:   r.Header.Values("Authorization"),
		IdempotencyKey:  r.Header.Values("Idempotency-Key"),
		AcceptLanguage:  r.Header.Values("Accept-Language"),
		UserAgent:       r.UserAgent(),
		Client:          endpoint.Client{Peer: r.RemoteAddr, Forwarded: r.Header.Values("X-Forwarded-For"), Device: deviceToken(r)},
	})
}

// deviceToken returns the device token in the header or, without a header, in the cookie.
// Because of its prefix, a browser sends the cookie only to the host that set it, over TLS.
func deviceToken(r *http.Request) string {
	if token := r.Header.Get("Device-Token"); token != "" {
		return token
	}
	if c, err := r.Cookie("__Host-device"); err == nil {
		return c.Value
	}
	return ""
}

func (h *handler) refuse(ctx context.Context, r *http.Request, function, path string, err error) endpoint.Response {
	return endpoint.Answer(ctx, h.log, endpoint.Line{Function: function, Method: r.Method, Path: path},
		func() (endpoint.Response, error) { return endpoint.Response{}, err })
}

// isProbe reports whether a request is a probe. The response to a probe does not depend on the
// database, because an outage of the database must not restart all functions. Probes arrive every few
// seconds, so they have no log line and no span.
func isProbe(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && isHealthPath(r.URL.EscapedPath())
}

// isHealthPath reports whether a path is one of a probe, as Knative's func defines them.
func isHealthPath(path string) bool { return path == "/health/liveness" || path == "/health/readiness" }

// isEvent reports whether a request is a CloudEvent, valid or not. It has an attribute header
// of binary mode, or a media type of structured or batched mode (CloudEvents HTTP Protocol
// Binding §3).
func isEvent(header http.Header) bool {
	for name := range header {
		if strings.HasPrefix(name, "Ce-") {
			return true
		}
	}
	return strings.HasPrefix(strings.ToLower(header.Get("Content-Type")), "application/cloudevents")
}
