package otlp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
)

// A client sends requests to a collector. It implements trace.SpanExporter, and metric.Exporter by
// metricClient.
//
// It writes JSON. The exporters of the SDK write protobuf, and link protobuf and gRPC for it: 5 MB of
// each function, which each cold start initializes.
type client struct {
	endpoint string
	headers  http.Header
	timeout  time.Duration // of an export with its retries
	http     *http.Client
}

// ExportSpans implements trace.SpanExporter.
func (c client) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	return c.send(ctx, "/v1/traces", encodeSpans(spans))
}

// Shutdown implements trace.SpanExporter and metric.Exporter.
func (c client) Shutdown(context.Context) error { return nil }

type metricClient struct{ client }

// Export implements metric.Exporter.
func (c metricClient) Export(ctx context.Context, all *metricdata.ResourceMetrics) error {
	if len(all.ScopeMetrics) == 0 {
		return nil
	}
	return c.send(ctx, "/v1/metrics", encodeMetrics(all))
}

// Temporality implements metric.Exporter. A process can end after a minute. Sums since its start would
// leave one series for each process, with a few values.
func (metricClient) Temporality(metric.InstrumentKind) metricdata.Temporality {
	return metricdata.DeltaTemporality
}

// Aggregation implements metric.Exporter.
func (metricClient) Aggregation(kind metric.InstrumentKind) metric.Aggregation {
	return metric.DefaultAggregationSelector(kind)
}

// ForceFlush implements metric.Exporter.
func (metricClient) ForceFlush(context.Context) error { return nil }

// send sends a request until the collector accepts or refuses it, or the time is up. It repeats a
// request that failed on the way or with a status that the specification of OTLP calls retryable.
func (c client) send(ctx context.Context, path string, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for wait := time.Second; ; wait *= 2 {
		again, err := c.try(ctx, path, body)
		if !again {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// retryable are the statuses after which a client repeats a request (OTLP, "Retryable Response Codes").
var retryable = []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}

func (c client) try(ctx context.Context, path string, body []byte) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint+path, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header = c.headers.Clone()
	response, err := c.http.Do(r)
	if err != nil {
		return true, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	switch status := response.StatusCode; {
	case status/100 != 2:
		return slices.Contains(retryable, status), fmt.Errorf("the collector responded %d", status)
	case err != nil:
		return false, nil // the collector has accepted the request
	}
	var partial struct {
		PartialSuccess struct {
			Spans  int `json:"rejectedSpans,string"`
			Points int `json:"rejectedDataPoints,string"`
		} `json:"partialSuccess"`
	}
	if rejected := &partial.PartialSuccess; json.Unmarshal(answer, &partial) == nil && rejected.Spans+rejected.Points > 0 {
		return false, fmt.Errorf("the collector rejected %d spans and %d data points", rejected.Spans, rejected.Points)
	}
	return false, nil
}
