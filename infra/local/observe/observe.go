// Package observe records the spans and the metrics of the local runner, and shows them on a page. It is
// for development. It stores them in memory only; a deployment exports them (see package otlp).
package observe

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
)

const (
	maxTraces = 50
	maxSpans  = 500 // of a trace
)

// A Recorder stores the last traces of a process, and its metrics since the start. It is safe for
// concurrent use. It implements trace.SpanExporter.
type Recorder struct {
	metrics *metric.ManualReader

	mu     sync.Mutex
	traces []*recorded // the oldest first
}

// recorded is a trace.
type recorded struct {
	id    oteltrace.TraceID
	spans []trace.ReadOnlySpan // in the order of their ends
}

// Start records the telemetry of a process. It must precede httpserver.Handler.
func Start(cfg *config.Config) (*Recorder, error) {
	r, began := &Recorder{metrics: metric.NewManualReader()}, time.Now()
	return r, telemetry.Provide(cfg, telemetry.Providers{
		Traces:  trace.NewTracerProvider(trace.WithSyncer(r), trace.WithSampler(trace.AlwaysSample())),
		Metrics: metric.NewMeterProvider(metric.WithReader(r.metrics)),
		Flush:   func(context.Context) {},
		Age:     func() time.Duration { return time.Since(began) },
	})
}

// ExportSpans implements trace.SpanExporter.
func (r *Recorder) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range spans {
		id := s.SpanContext().TraceID()
		i := slices.IndexFunc(r.traces, func(t *recorded) bool { return t.id == id })
		if i < 0 {
			i = len(r.traces)
			r.traces = append(r.traces, &recorded{id: id})
		}
		if t := r.traces[i]; len(t.spans) < maxSpans {
			t.spans = append(t.spans, s)
		}
	}
	r.traces = slices.Delete(r.traces, 0, max(0, len(r.traces)-maxTraces))
	return nil
}

// Shutdown implements trace.SpanExporter.
func (r *Recorder) Shutdown(context.Context) error { return nil }

// collect returns the metrics since the start.
func (r *Recorder) collect(ctx context.Context) (all []metricdata.Metrics, err error) {
	var found metricdata.ResourceMetrics
	err = r.metrics.Collect(ctx, &found)
	for _, s := range found.ScopeMetrics {
		all = append(all, s.Metrics...)
	}
	return all, err
}
