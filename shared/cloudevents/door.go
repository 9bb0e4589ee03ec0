// Package cloudevents is the door that events of other services come through:
// CloudEvents 1.0 over HTTP, in binary and structured mode, as Knative's brokers,
// sources and channels deliver them.
//
// A function that takes an event says so with On, and so links this door; the
// others pay nothing for it. What a function does with an event is its own
// business; here it is only read, checked and answered.
package cloudevents

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/endpoint"
	out "ticketing.com/auth/shared/event"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/telemetry"
)

// On declares that a function takes an event as well, as endpoint.On does.
func On[In, Out any](e endpoint.Endpoint, t endpoint.Trigger, wire func(*app.Wiring) endpoint.Handler[In, Out]) endpoint.Endpoint {
	return endpoint.On(e, open, t, wire)
}

// A door takes the events of a process. Its statuses speak to a broker, which
// sends again what is answered 404, 408, 409, 429 or 5xx, and gives up on all else;
// and what it answers with 2xx is an event or empty, since a broker takes the body
// for the reply.
type door struct {
	takers  map[string]*endpoint.Function // by event type
	senders *senders
	log     *slog.Logger
}

func open(w *app.Wiring, takers map[string]*endpoint.Function) http.Handler {
	return &door{takers: takers, senders: wireSenders(w), log: w.Log()}
}

// maxEvent bounds an event on the wire, in bytes: in structured mode its data, of
// at most endpoint.MaxBody, may be base64, and has its attributes beside it.
const maxEvent = 4 * endpoint.MaxBody

// ServeHTTP implements http.Handler (CloudEvents HTTP Protocol Binding 1.0 §3).
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	f, e, err := d.shielded(ctx, w, r)
	if err != nil {
		spec := endpoint.Spec{Name: "-", Path: "event"}
		endpoint.Answer(ctx, d.log, spec, r.Method, func() (any, error) { return nil, err }).Write(w)
		return
	}
	ctx, request := traced(ctx, r, e), eventRequest(r, e)
	response, replyType := f.InvokeEvent(ctx, request)
	switch {
	case response.Status != http.StatusOK:
		response.Write(w)
	case replyType == "":
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
	default:
		writeReply(ctx, w, request.Key, replyType, response.Body)
	}
}

// shielded is read, whatever a stranger's headers make of the SDK.
func (d *door) shielded(ctx context.Context, w http.ResponseWriter, r *http.Request) (f *endpoint.Function, e *event.Event, err error) {
	defer func() {
		if recover() != nil {
			err = malformed()
		}
	}()
	return d.read(ctx, w, r)
}

// read reads an event, and finds the function that takes it.
func (d *door) read(ctx context.Context, w http.ResponseWriter, r *http.Request) (*endpoint.Function, *event.Event, error) {
	if err := d.senders.check(ctx, r.Header.Values("Authorization")); err != nil {
		return nil, nil, err
	}
	if r.ContentLength > maxEvent {
		return nil, nil, fault.New(fault.TooLarge, "The event is larger than 64 KiB.")
	}
	if err := strict(w, r); err != nil {
		return nil, nil, err
	}
	message := cehttp.NewMessageFromHttpRequest(r)
	switch message.ReadEncoding() {
	case binding.EncodingBinary, binding.EncodingStructured:
	case binding.EncodingBatch:
		return nil, nil, fault.New(fault.UnsupportedMedia, "Events are taken one by one, not in batches.")
	default:
		for name := range r.Header {
			if strings.HasPrefix(name, "Ce-") { // of another version, say: no plain request has these
				return nil, nil, malformed()
			}
		}
		return nil, nil, fault.New(fault.UnsupportedMedia, "This address takes CloudEvents 1.0.")
	}
	e, err := binding.ToEvent(ctx, message)
	if err != nil || e.Validate() != nil || e.SpecVersion() != event.CloudEventsVersionV1 {
		return nil, nil, malformed()
	}
	f := d.takers[e.Type()]
	if f == nil {
		return nil, nil, fault.New(fault.Invalid, "Events of this type are not taken here.")
	}
	return f, e, nil
}

// traced continues the trace that the event itself carries, where its delivery has
// none (CloudEvents Distributed Tracing extension).
func traced(ctx context.Context, r *http.Request, e *event.Event) context.Context {
	began, _ := e.Extensions()["traceparent"].(string)
	if r.Header.Get("Traceparent") != "" || began == "" {
		return ctx
	}
	return telemetry.With(ctx, telemetry.Continue(began))
}

// strict refuses what the SDK would take, and another reader of the same event
// might take otherwise: headers and members that are there twice, and text that is
// no valid UTF-8. It decodes the attributes of binary mode, which the SDK leaves
// percent-encoded (HTTP Protocol Binding §3.1.3.2).
func strict(w http.ResponseWriter, r *http.Request) error {
	for name, values := range r.Header {
		attribute := strings.HasPrefix(name, "Ce-")
		if (attribute || name == "Content-Type") && len(values) > 1 || name == "Ce-" {
			return malformed()
		}
		if attribute {
			decoded, err := url.PathUnescape(values[0])
			if err != nil || !utf8.ValidString(decoded) {
				return malformed()
			}
			r.Header[name] = []string{decoded}
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return fault.New(fault.TooLarge, "The event is larger than 64 KiB.")
	}
	if err != nil {
		return fault.New(fault.Invalid, "The event could not be read whole.")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType == event.ApplicationCloudEventsJSON && endpoint.WellFormed(body) != nil {
		return malformed()
	}
	return nil
}

func malformed() error { return fault.New(fault.Invalid, "This is not a valid CloudEvents 1.0 event.") }

// eventRequest gives the data to the function as it gives a body. An event is
// known by its source and id (CloudEvents §3.1.1): a second delivery has the same
// key.
func eventRequest(r *http.Request, e *event.Event) *endpoint.Request {
	contentType := e.DataContentType()
	if contentType == "" {
		contentType = event.ApplicationJSON // §3.1.2: the default of the JSON format
	}
	sum := sha256.Sum256([]byte("event\x00" + e.Source() + "\x00" + e.ID()))
	return &endpoint.Request{
		Method:      r.Method,
		ContentType: []string{contentType},
		Length:      int64(len(e.Data())),
		Body:        bytes.NewReader(e.Data()),
		Key:         hex.EncodeToString(sum[:16]),
	}
}

// writeReply writes the event that answers one. The same delivery again gets the
// same id.
func writeReply(ctx context.Context, w http.ResponseWriter, key, replyType string, data []byte) {
	reply := event.New()
	reply.SetID(key)
	reply.SetSource(out.Source)
	reply.SetType(replyType)
	reply.SetTime(time.Now())
	reply.SetExtension("traceparent", telemetry.From(ctx).Traceparent())
	err := reply.SetData(event.ApplicationJSON, json.RawMessage(data))
	if err == nil {
		err = reply.Validate()
	}
	if err != nil {
		endpoint.Refuse(fault.From(err)).Write(w)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// the status is on its way; a broker that is gone will deliver again
	_ = cehttp.WriteResponseWriter(ctx, binding.ToMessage(&reply), http.StatusOK, w)
}
