package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/telemetry"
)

// budget bounds the work of a request, from when its input was read. It lies below
// the five seconds after which a caller may count on an honest 503. How long the
// input may take is the door's business.
const budget = 4500 * time.Millisecond

// statusGone is what the log says of a caller that left before the answer. It
// is never sent. (The number is nginx's; no RFC has one.)
const statusGone = 499

// A Response is what every door writes, each on its own wire.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Invoke runs the function. It never fails and never panics: what goes wrong
// becomes the response. It writes the request's one log line.
func (f *Function) Invoke(ctx context.Context, r *Request) Response {
	return Answer(ctx, f.log, f.Spec, r.Method, func() (any, error) { return f.call(ctx, r) })
}

// InvokeEvent runs what the function does on an event. replyType is that of the
// event which the response is; where it is empty, a success has no body and a
// failure is no reply.
//
// An input that is refused is a reply, not a failure: a broker would send it
// again, to be refused again.
func (f *Function) InvokeEvent(ctx context.Context, r *Request) (response Response, replyType string) {
	spec := f.Spec
	spec.Path, spec.Success = "event", http.StatusOK
	response = Answer(ctx, f.log, spec, r.Method, func() (any, error) { return f.event(ctx, r) })
	switch response.Status {
	case http.StatusOK:
		return response, f.Trigger.Reply
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		if f.Trigger.Refusal != "" {
			response.Status = http.StatusOK
		}
		return response, f.Trigger.Refusal
	}
	return response, ""
}

// Answer renders what do returns and writes the log line. It serves Invoke and
// those answers that belong to no function, such as a router's 404.
func Answer(ctx context.Context, log *slog.Logger, spec Spec, method string, do func() (any, error)) Response {
	began := time.Now()
	out, err := shielded(do)
	var response Response
	if err == nil {
		response, err = success(spec, out)
	}
	if err != nil {
		response = Refuse(apierror.From(err))
	}
	logLine(ctx, log, spec, method, response.Status, time.Since(began), err)
	return response
}

// shielded calls do and makes an error of a panic.
func shielded(do func() (any, error)) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	return do()
}

// panicked keeps the stack for the log. Of the value it keeps only what the
// runtime itself said: any other could hold a secret.
func panicked(p any) error {
	what := fmt.Sprintf("a %T", p)
	if e, ok := p.(runtime.Error); ok {
		what = e.Error()
	}
	return fmt.Errorf("panic: %s\n%s", what, debug.Stack())
}

// expired makes an Unreachable of an untyped error that is only the deadline's.
func expired(ctx context.Context, err error) error {
	var f *apierror.Error
	if !errors.As(err, &f) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return apierror.Unreachable(err)
	}
	return err
}

func success(spec Spec, out any) (Response, error) {
	body, err := json.Marshal(out, json.Deterministic(true))
	if err != nil {
		return Response{}, fmt.Errorf("render the answer: %w", err)
	}
	h := header()
	if more, ok := out.(interface{ Header() http.Header }); ok {
		maps.Copy(h, more.Header())
	}
	if spec.MaxAge > 0 {
		h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(spec.MaxAge.Seconds())))
	}
	return Response{Status: spec.Success, Header: h, Body: body}, nil
}

// Refuse renders a fault.
func Refuse(e *apierror.Error) Response {
	h := header()
	for _, more := range e.Headers() {
		h.Set(more.Name, more.Value)
	}
	return Response{Status: e.Status(), Header: h, Body: e.Body()}
}

// Healthy is the answer to a probe.
func Healthy() Response {
	return Response{Status: http.StatusOK, Header: header(), Body: []byte(`{"status":"ok"}`)}
}

// Write writes the response on an HTTP wire.
func (r Response) Write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range r.Header {
		h[name] = values
	}
	h.Set("Content-Length", strconv.Itoa(len(r.Body)))
	w.WriteHeader(r.Status)
	w.Write(r.Body) // a caller that is gone has no use for the error; of HEAD net/http sends no body
}

func header() http.Header {
	return http.Header{
		"Content-Type":           {"application/json"},
		"X-Content-Type-Options": {"nosniff"},
		"Cache-Control":          {"no-store"},
	}
}

// logLine writes what happened: never the input, never the output.
func logLine(ctx context.Context, log *slog.Logger, spec Spec, method string, status int, took time.Duration, err error) {
	level := slog.LevelInfo
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		status = statusGone
	case status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.String("function", spec.Name),
		slog.String("method", known(method)),
		slog.String("path", spec.Path),
		slog.Int("status", status),
		slog.Float64("ms", float64(took.Microseconds())/1000),
		telemetry.From(ctx).Attr(),
	}
	if err != nil && (errors.Unwrap(err) != nil || level == slog.LevelError) {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}

// known keeps what a stranger may write for a method out of the log.
func known(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return "-"
}
