// Package telemetry describes the work of a process: spans, metrics and the attributes of log
// lines. It continues the W3C Trace Context of the client, or starts a new trace.
//
// The package depends on the API of OpenTelemetry only. Package otlp exports the spans and the
// metrics if the environment names a collector. Otherwise a request gets its trace ID and its span
// ID for the logs and the events, and nothing else is recorded.
//
// A span or a metric contains no email, account ID, session ID, event ID, token or address. Its
// attributes have values from fixed lists: names of functions, routes, commands, collections, event
// types, limits and outcomes.
package telemetry

import (
	"context"
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"ticketing.com/auth/shared/config"
)

// A Telemetry records the spans and the metrics of a process. Without providers, and if it is nil,
// it records nothing. It is safe for concurrent use after Provide.
type Telemetry struct {
	tracer      trace.Tracer
	instruments map[*Metric]instrument
	flush       func(context.Context)
	age         func() time.Duration
	provided    time.Time
	first       sync.Once
}

// Providers are the receivers of the spans and the metrics of a process.
type Providers struct {
	Traces  trace.TracerProvider
	Metrics metric.MeterProvider
	Flush   func(context.Context) // exports what was recorded, until the context ends
	Age     func() time.Duration  // the time since the start of the process
}

// FromConfig returns the telemetry of a process.
func FromConfig(cfg *config.Config) *Telemetry {
	return config.Part(cfg, "telemetry", func() *Telemetry { return &Telemetry{} })
}

// Provide sets the providers of a process. It must precede all requests.
func Provide(cfg *config.Config, p Providers) error {
	const scope = "ticketing.com/auth"
	t := FromConfig(cfg)
	t.tracer, t.flush, t.age, t.provided = p.Traces.Tracer(scope), p.Flush, p.Age, time.Now()
	var err error
	t.instruments, err = create(p.Metrics.Meter(scope))
	return err
}

// On reports whether spans and metrics are recorded.
func (t *Telemetry) On() bool { return t != nil && t.tracer != nil }

// Flush exports the recorded spans and metrics until the context ends.
func (t *Telemetry) Flush(ctx context.Context) {
	if t.On() {
		t.flush(ctx)
	}
}

// Answered records the time from the start of the process, if the response is its first one. A process
// whose first request began more than ten seconds after Provide was started before its request, for
// example because of min-scale. Then the time would be that of the wait for a client, and is not recorded.
func (t *Telemetry) Answered(ctx context.Context, began time.Time) {
	if !t.On() {
		return
	}
	t.first.Do(func() {
		if began.Sub(t.provided) <= 10*time.Second {
			t.Observe(ctx, ColdStart, t.age().Seconds(), "")
		}
	})
}

// Serve returns a context with the server span of an HTTP request. The span continues the trace in
// the headers (W3C Trace Context, level 1). If they have none or a malformed one, it starts a trace.
//
// Serve ignores a tracestate: a client can write any text into it, and each span would repeat the text.
func (t *Telemetry) Serve(ctx context.Context, header http.Header) (context.Context, trace.Span) {
	return t.Continue(ctx, header.Get("Traceparent"), "HTTP", trace.SpanKindServer)
}

// Continue returns a context with a span that continues a traceparent. If that is malformed or empty,
// the span starts a trace.
func (t *Telemetry) Continue(ctx context.Context, traceparent, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), propagation.MapCarrier{"traceparent": traceparent})
	if t.On() {
		return t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	}
	of := trace.SpanContextFromContext(ctx)
	var span trace.SpanID
	rand.Read(span[:]) // never fails (crypto/rand)
	if !of.IsValid() {
		var id trace.TraceID
		rand.Read(id[:])
		of = of.WithTraceID(id)
	}
	return trace.ContextWithSpanContext(ctx, of.WithSpanID(span).WithRemote(false)), noop.Span{}
}

// Start returns a context with a span of the work in the trace of ctx. Without a trace it records
// nothing.
func (t *Telemetry) Start(ctx context.Context, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	if !t.On() || !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, noop.Span{}
	}
	return t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
}

// Messaging returns the attributes of a span that sends or processes an event. operation is send or
// process.
func Messaging(operation, eventType string) []attribute.KeyValue {
	return append(messaging(operation), attribute.String("messaging.destination.name", eventType))
}

func messaging(operation string) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("messaging.system", "cloudevents"), attribute.String("messaging.operation.name", operation)}
}

// End ends a span. It marks the span of failed work, without the text of the error: that text can
// contain user input.
func End(span trace.Span, failed bool) {
	if failed {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// Traceparent returns the value of the traceparent header for the span of ctx, or "".
func Traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}
