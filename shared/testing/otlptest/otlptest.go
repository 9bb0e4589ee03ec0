// Package otlptest is an OpenTelemetry collector for tests. It receives OTLP over HTTP.
package otlptest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/telemetry/otlp"
)

// A Collector stores the received spans and metrics.
type Collector struct {
	URL string // the value of OTEL_EXPORTER_OTLP_ENDPOINT

	mu      sync.Mutex
	bodies  bytes.Buffer
	spans   []*traces.Span
	metrics []*metrics.Metric
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
		var request collectortraces.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	case "/v1/metrics":
		var request collectormetrics.ExportMetricsServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		for _, resource := range request.ResourceMetrics {
			for _, scope := range resource.ScopeMetrics {
				c.metrics = append(c.metrics, scope.Metrics...)
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
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// Received returns all bytes that the collector has received. Texts are in it as they are.
func (c *Collector) Received() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bodies.String()
}

// Spans returns the received spans.
func (c *Collector) Spans() []*traces.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*traces.Span(nil), c.spans...)
}

// Names returns the names of the received spans.
func (c *Collector) Names() (names []string) {
	for _, s := range c.Spans() {
		names = append(names, s.Name)
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
	of := func(all []*common.KeyValue) string {
		for _, a := range all {
			if a.Key == attribute {
				return a.Value.GetStringValue()
			}
		}
		return ""
	}
	for _, m := range c.metrics {
		if m.Name != name {
			continue
		}
		if strings.Contains(m.String(), "AGGREGATION_TEMPORALITY_CUMULATIVE") {
			t.Errorf("the metric %s has cumulative temporality, want delta", name)
		}
		for _, p := range m.GetSum().GetDataPoints() {
			sums[of(p.Attributes)] += float64(p.GetAsInt())
		}
		for _, p := range m.GetHistogram().GetDataPoints() {
			sums[of(p.Attributes)] += float64(p.Count)
		}
		for _, p := range m.GetGauge().GetDataPoints() {
			sums[of(p.Attributes)] = p.GetAsDouble()
		}
	}
	return sums
}
