// Package receiver receives the events of other services: CloudEvents 1.0 over HTTP, in
// binary and structured mode, as Knative's brokers, sources and channels deliver them.
//
// A function that receives events calls On. Other functions do not link this package. The
// package authenticates the sender, reads and validates the event, and writes the reply.
// The function processes the data.
package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	out "ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/telemetry"
)

// On declares the handler of a receiver. It is endpoint.On with the handler of this package.
func On[H, In, Out any](r endpoint.Receiver, newHandler func(*config.Config) H, handle func(H, context.Context, In) (Out, error)) endpoint.Receiver {
	r.Handler = newReceiver
	return endpoint.On(r, newHandler, handle)
}

// A receiver handles the events of a process. Its statuses are for a broker, which retries
// after 404, 408, 409, 429 and 5xx, and discards the event after any other error. The
// body of a 2xx is an event or empty, because a broker publishes it as the reply.
type receiver struct {
	byType  map[string][]*endpoint.Bound
	sink    bool // accepts events of other types
	senders *senders
	log     *slog.Logger

	telemetry *telemetry.Telemetry
}

func newReceiver(cfg *config.Config, byType map[string][]*endpoint.Bound) http.Handler {
	rc := &receiver{byType: byType, sink: true, senders: newSenders(cfg), log: cfg.Log(), telemetry: telemetry.FromConfig(cfg)}
	for _, all := range byType {
		for _, b := range all {
			rc.sink = rc.sink && b.Sink
		}
	}
	return rc
}

// maxEvent is the maximum length of an encoded event, in bytes. In structured mode it
// includes the attributes, and the data of at most endpoint.MaxBody may be in base64.
const maxEvent = 4 * endpoint.MaxBody

// ServeHTTP implements http.Handler (CloudEvents HTTP Protocol Binding 1.0 §3).
func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	began := time.Now()
	err := rc.senders.check(ctx, r.Header.Values("Authorization"))
	waited := time.Since(began) // for the issuer's keys; the time limit of the function includes it
	var e envelope
	if err == nil {
		e, err = read(w, r)
	}
	all := rc.byType[e.attributes["type"]]
	if err == nil && len(all) == 0 && rc.sink {
		accept(w)
		return
	}
	if err == nil && len(all) == 0 {
		err = apierror.New(apierror.Invalid, "Events of this type are not taken here.")
	}
	if err != nil {
		endpoint.Answer(ctx, rc.log, endpoint.Line{Function: "-", Method: r.Method, Path: "event"},
			func() (endpoint.Response, error) { return endpoint.Response{}, err }).Write(w)
		return
	}
	if parent := e.attributes["traceparent"]; parent != "" && r.Header.Get("Traceparent") == "" {
		// the delivery has no trace, and the event has one (CloudEvents Distributed Tracing extension)
		var span trace.Span
		ctx, span = rc.telemetry.Continue(ctx, parent, "process "+e.attributes["type"], trace.SpanKindConsumer, telemetry.Messaging("process", e.attributes["type"])...)
		defer span.End()
	}
	answer := endpoint.InvokeReceivers(ctx, all, func() *endpoint.Request { return e.request(r.Method) }, waited)
	switch {
	case answer.Status != http.StatusOK:
		answer.Write(w)
	case answer.Reply == nil:
		accept(w)
	default:
		writeReply(ctx, w, e.key(), answer.Reply, answer.Body)
	}
}

// accept writes a success without a reply event.
func accept(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// read reads and validates an event.
func read(w http.ResponseWriter, r *http.Request) (envelope, error) {
	decode, err := mode(r.Header)
	if err != nil {
		return envelope{}, err
	}
	tooLarge := apierror.New(apierror.TooLarge, "The event is larger than 64 KiB.")
	if r.ContentLength > maxEvent {
		return envelope{}, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return envelope{}, tooLarge
	}
	if err != nil {
		return envelope{}, apierror.New(apierror.Invalid, "The event could not be read whole.")
	}
	e, err := decode(r.Header, body)
	if err != nil {
		return envelope{}, err
	}
	return e, e.check()
}

// mode returns the decoder for an event with these headers (HTTP Protocol Binding §3).
func mode(h http.Header) (func(http.Header, []byte) (envelope, error), error) {
	if err := endpoint.CheckEncoding(h.Values("Content-Encoding")); err != nil {
		return nil, err
	}
	if len(h.Values("Content-Type")) > 1 {
		return nil, malformed()
	}
	contentType := h.Get("Content-Type")
	mediaType, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	mediaType = strings.TrimSpace(mediaType)
	switch {
	case mediaType == event.ApplicationCloudEventsJSON:
		_, parameters, err := mime.ParseMediaType(contentType)
		if err != nil {
			return nil, malformed()
		}
		if !isUTF8(parameters["charset"]) {
			return nil, apierror.New(apierror.UnsupportedMedia, "The event must be in UTF-8.")
		}
		return structured, nil
	case strings.HasPrefix(mediaType, "application/cloudevents-batch"):
		return nil, apierror.New(apierror.UnsupportedMedia, "Events are taken one by one, not in batches.")
	case strings.HasPrefix(mediaType, "application/cloudevents"):
		return nil, apierror.New(apierror.UnsupportedMedia, "Structured events are taken as application/cloudevents+json.")
	}
	for header := range h {
		if strings.HasPrefix(strings.ToLower(header), "ce-") {
			return binary, nil
		}
	}
	return nil, apierror.New(apierror.UnsupportedMedia, "This address takes CloudEvents 1.0.")
}

func malformed() error {
	return apierror.New(apierror.Invalid, "This is not a valid CloudEvents 1.0 event.")
}

// writeReply writes the reply to the event with a key.
func writeReply(ctx context.Context, w http.ResponseWriter, key string, t *out.Type, data []byte) {
	reply := event.New()
	reply.SetID(endpoint.ReplyID(key, t, data))
	reply.SetSource(t.Source)
	reply.SetType(t.Name)
	reply.SetDataSchema(out.Schema(t.Name))
	reply.SetTime(time.Now())
	reply.SetExtension("traceparent", telemetry.Traceparent(ctx))
	err := reply.SetData(event.ApplicationJSON, json.RawMessage(data))
	if err == nil {
		err = reply.Validate()
	}
	if err != nil {
		endpoint.Refuse(apierror.From(err)).Write(w)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// the status is already written; after a broken connection the broker retries
	_ = cehttp.WriteResponseWriter(ctx, binding.ToMessage(&reply), http.StatusOK, w)
}
