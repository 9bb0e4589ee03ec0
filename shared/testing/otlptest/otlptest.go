// Package otlptest is an OpenTelemetry collector for tests. It receives OTLP over HTTP in JSON, and
// decodes it as the collector of OpenTelemetry does.
package otlptest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/telemetry/otlp"
)

// A Collector stores the received spans and metrics.
type Collector struct {
	URL string // the value of OTEL_EXPORTER_OTLP_ENDPOINT

	mu      sync.Mutex
	bodies  bytes.Buffer
	spans   []ptrace.Span
	metrics []pmetric.Metric
}

// New starts a collector.
func New(t testing.TB) *Collector {
	c := &Collector{}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// Telemetry returns the telemetry of a process that exports to the collector.
func (c *Collector) Telemetry(t testing.TB) *telemetry.Telemetry {
	t.Helper()
	cfg := config.New(func(name string) (string, bool) {
		if name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
			return c.URL, true
		}
		return "", false
	},
		func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
	otlp.Start(cfg, "test")
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cfg.Close(context.Background()) })
	return telemetry.FromConfig(cfg)
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies.Write(body)
	switch r.URL.Path {
	case "/v1/traces":
		var all ptrace.Traces
		if err == nil {
			all, err = (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(body)
		}
		if err == nil {
			for _, resource := range all.ResourceSpans().All() {
				for _, scope := range resource.ScopeSpans().All() {
					for _, s := range scope.Spans().All() {
						c.spans = append(c.spans, s)
					}
				}
			}
		}
	case "/v1/metrics":
		var all pmetric.Metrics
		if err == nil {
			all, err = (&pmetric.JSONUnmarshaler{}).UnmarshalMetrics(body)
		}
		if err == nil {
			for _, resource := range all.ResourceMetrics().All() {
				for _, scope := range resource.ScopeMetrics().All() {
					for _, m := range scope.Metrics().All() {
						c.metrics = append(c.metrics, m)
					}
				}
			}
		}
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, "{}")
}

// Received returns all bytes that the collector has received. Texts are in it as they are.
func (c *Collector) Received() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bodies.String()
}

// Spans returns the received spans.
func (c *Collector) Spans() []ptrace.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Names returns the names of the received spans.
func (c *Collector) Names() (names []string) {
	for _, s := range c.Spans() {
		names = append(names, s.Name())
	}
	return names
}

// Sum returns the sum of the received values of a metric, which has delta temporality, by the value of
// its attribute. For a histogram it is the number of values, and for a gauge the last value. Without an
// attribute, the key is "".
func (c *Collector) Sum(t testing.TB, name, attribute string) map[string]float64 {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	sums := map[string]float64{}
	of := func(attributes pcommon.Map) string {
		if v, has := attributes.Get(attribute); has {
			return v.AsString()
		}
		return ""
	}
	for _, m := range c.metrics {
		if m.Name() != name {
			continue
		}
		switch m.Type() {
		case pmetric.MetricTypeSum:
			checkDelta(t, name, m.Sum().AggregationTemporality())
			for _, p := range m.Sum().DataPoints().All() {
				sums[of(p.Attributes())] += float64(p.IntValue())
			}
		case pmetric.MetricTypeHistogram:
			checkDelta(t, name, m.Histogram().AggregationTemporality())
			for _, p := range m.Histogram().DataPoints().All() {
				sums[of(p.Attributes())] += float64(p.Count())
			}
		case pmetric.MetricTypeGauge:
			for _, p := range m.Gauge().DataPoints().All() {
				sums[of(p.Attributes())] = p.DoubleValue()
			}
		}
	}
	return sums
}

func checkDelta(t testing.TB, name string, got pmetric.AggregationTemporality) {
	t.Helper()
	if got != pmetric.AggregationTemporalityDelta {
		t.Errorf("the metric %s has the temporality %s, want Delta", name, got)
	}
}
