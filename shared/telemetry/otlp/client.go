package otlp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
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
	body, err := encodeSpans(spans)
	if err != nil {
		return err
	}
	return c.send(ctx, "/v1/traces", body)
}

// Shutdown implements trace.SpanExporter and metric.Exporter.
func (c client) Shutdown(context.Context) error { return nil }

type metricClient struct{ client }

// Export implements metric.Exporter.
func (c metricClient) Export(ctx context.Context, all *metricdata.ResourceMetrics) error {
	if len(all.ScopeMetrics) == 0 {
		return nil
	}
	body, err := json.Marshal(encodeMetrics(all))
	if err != nil {
		return err
	}
	return c.send(ctx, "/v1/metrics", body)
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
func (c client) send(ctx context.Context, path string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for wait := time.Second; ; wait *= 2 {
		again, after, err := c.try(ctx, path, body)
		if !again {
			return err
		}
		jitter := rand.N(wait/2 + 1) // so that processes do not retry at the same time
		select {
		case <-ctx.Done():
			return err
		case <-time.After(max(after, wait) + jitter):
		}
	}
}

// retryable are the statuses after which a client repeats a request (OTLP, "Retryable Response Codes").
var retryable = []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}

// try sends a request once. It reports whether to repeat it, and the least time until then.
func (c client) try(ctx context.Context, path string, body []byte) (again bool, after time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint+path, bytes.NewReader(body))
	if err != nil {
		return false, 0, err
	}
	r.Header = c.headers.Clone()
	response, err := c.http.Do(r)
	if err != nil {
		return true, 0, errors.Unwrap(err) // of a *url.Error, without the URL: its path can have a key
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	switch status := response.StatusCode; {
	case status/100 != 2:
		seconds, _ := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 16)
		return slices.Contains(retryable, status), time.Duration(seconds) * time.Second, fmt.Errorf("the collector responded %d", status)
	case err != nil:
		return false, 0, nil // the collector has accepted the request
	}
	var partial struct {
		PartialSuccess struct {
			Spans  number `json:"rejectedSpans"`
			Points number `json:"rejectedDataPoints"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(answer, &partial) != nil {
		return false, 0, nil
	}
	if rejected := partial.PartialSuccess; rejected.Spans+rejected.Points > 0 {
		return false, 0, fmt.Errorf("the collector rejected %d spans and %d data points", rejected.Spans, rejected.Points)
	}
	return false, 0, nil
}

// A number is a 64-bit integer of OTLP. A receiver must accept both a JSON string and a JSON number.
type number int64

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(text []byte) (err error) {
	i, err := strconv.ParseInt(string(bytes.Trim(text, `"`)), 10, 64)
	*n = number(i)
	return err
}
