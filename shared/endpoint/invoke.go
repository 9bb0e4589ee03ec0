package endpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/telemetry"
)

// budget is the time limit of a request after its input was read. It is shorter than the
// five seconds within which a client receives a response, 503 at worst. The transport
// limits how long the client may take to send the input.
const budget = 4500 * time.Millisecond

// statusGone is the logged status of a request whose client closed the connection before
// the response. It is never sent. (The number is that of nginx; no RFC defines one.)
const statusGone = 499

// A Response is the response of a function, independent of the transport.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Invoke runs the handler and logs the request in one line. It never panics: an error or
// a panic becomes the response.
func (b *Bound) Invoke(ctx context.Context, r *Request) Response {
	r.Function = b.function
	ctx = telemetry.InFunction(ctx, b.function)
	ctx, span := b.telemetry.Start(ctx, b.function, b.kind(), semconv.FaaSName(b.function))
	response := Answer(ctx, b.log, Line{b.function, r.Method, b.Path}, func() (Response, error) {
		out, err := b.call(ctx, r)
		if err != nil {
			return Response{}, err
		}
		return success(b.Spec, out)
	})
	telemetry.End(span, response.Status >= http.StatusInternalServerError)
	return response
}

// kind returns the kind of the span of the handler.
func (b *Bound) kind() trace.SpanKind {
	if b.Path == "event" {
		return trace.SpanKindConsumer
	}
	return trace.SpanKindInternal
}

// InvokeEvent runs the handler of a receiver. reply is the type of the reply event, and the
// response is its data. If reply is nil, there is no reply event: a success has no body, and a
// failure is an error response.
//
// Rejected input gets a reply, not an error status. After an error status a broker would
// retry the event, and the receiver would reject it again.
func (b *Bound) InvokeEvent(ctx context.Context, r *Request) (response Response, reply *event.Type) {
	response = b.Invoke(ctx, r)
	switch response.Status {
	case http.StatusOK:
		if len(response.Body) == 0 {
			return response, nil
		}
		return response, b.reply
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		if b.refusal != nil {
			response.Status = http.StatusOK
		}
		return response, b.refusal
	}
	return response, nil
}

// A Line has the function and the route in the log line of a request.
type Line struct{ Function, Method, Path string }

// Answer returns the response of do and writes the log line. Transports call it for
// responses outside of a handler, such as the 404 of a router.
func Answer(ctx context.Context, log *slog.Logger, line Line, do func() (Response, error)) Response {
	began := time.Now()
	response, err := callSafely(do)
	if err != nil {
		response = Refuse(apierror.From(err))
	}
	line.write(ctx, log, response.Status, time.Since(began), err)
	return response
}

// callSafely calls do and converts a panic to an error.
func callSafely(do func() (Response, error)) (response Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = PanicError(p)
		}
	}()
	return do()
}

// PanicError returns an error with the stack. It includes the text of a runtime.Error only:
// any other value could contain a secret.
func PanicError(p any) error {
	text := fmt.Sprintf("a %T", p)
	if e, ok := p.(runtime.Error); ok {
		text = e.Error()
	}
	return fmt.Errorf("panic: %s\n%s", text, debug.Stack())
}

// expired converts an untyped error after the deadline to apierror.Unreachable. It returns
// other errors unchanged.
func expired(ctx context.Context, err error) error {
	var f *apierror.Error
	if !errors.As(err, &f) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return apierror.Unreachable(err)
	}
	return err
}

// success returns the response with the output of a handler.
func success(spec Spec, out any) (Response, error) {
	r := Response{Status: spec.Success, Header: header()}
	if spec.MaxAge > 0 {
		r.Header.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(spec.MaxAge.Seconds())))
	}
	if more, ok := out.(interface{ Header() http.Header }); ok {
		maps.Copy(r.Header, more.Header())
	}
	switch o := out.(type) {
	case None, Redirect:
		if spec.Path != "event" {
			r.Header.Del("Content-Type")
			return r, nil
		}
	case File:
		r.Body = o.Content
		return r, nil
	case interface{ content() any }:
		out = o.content()
	}
	if v := reflect.ValueOf(out); v.Kind() == reflect.Pointer && v.IsNil() { // a receiver without a reply
		return r, nil
	}
	var err error
	if r.Body, err = json.Marshal(out, json.Deterministic(true)); err != nil {
		return r, fmt.Errorf("render the response: %w", err)
	}
	return r, nil
}

// Refuse returns the response to an API error.
func Refuse(e *apierror.Error) Response {
	h := header()
	for _, more := range e.Headers() {
		h.Set(more.Name, more.Value)
	}
	return Response{Status: e.Status(), Header: h, Body: e.Body()}
}

// Healthy returns the response to a probe.
func Healthy() Response {
	return Response{Status: http.StatusOK, Header: header(), Body: []byte(`{"status":"ok"}`)}
}

// Write writes the response to w.
func (r Response) Write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range r.Header {
		h[name] = values
	}
	if r.Status != http.StatusNoContent { // RFC 9110 §8.6
		h.Set("Content-Length", strconv.Itoa(len(r.Body)))
	}
	w.WriteHeader(r.Status)
	w.Write(r.Body) // an error means that the client is gone; net/http omits the body of HEAD
}

func header() http.Header {
	return http.Header{
		"Content-Type":           {"application/json"},
		"X-Content-Type-Options": {"nosniff"},
		"Cache-Control":          {"no-store"},
	}
}

// write logs a request. It never logs the input or the output.
func (l Line) write(ctx context.Context, log *slog.Logger, status int, took time.Duration, err error) {
	level := slog.LevelInfo
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		status = statusGone
	case status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	}
	outcome := telemetry.OK
	switch {
	case status == statusGone:
		outcome = telemetry.Gone
	case status >= http.StatusInternalServerError:
		outcome = telemetry.Failed
	case status >= http.StatusBadRequest:
		outcome = telemetry.Refused
	}
	attrs := []slog.Attr{
		slog.String("function", l.Function),
		slog.String("method", cmp.Or(StandardMethod(l.Method), "-")),
		slog.String("path", l.Path),
		slog.Int("status", status),
		slog.String("outcome", outcome),
		slog.Float64("ms", float64(took.Microseconds())/1000),
	}
	if err != nil && (errors.Unwrap(err) != nil || level == slog.LevelError) {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	log.LogAttrs(ctx, level, "request", append(attrs, telemetry.Noted(ctx, outcome)...)...)
}

// StandardMethod returns a standard method, or "", because a client can send any text as a
// method.
func StandardMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return ""
}
