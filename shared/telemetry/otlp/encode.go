package otlp

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// The requests have the JSON form of OTLP (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"):
// identifiers are hexadecimal, 64-bit integers are strings, and enumerations are numbers. They have no
// links and no events of spans, no exemplars and no exponential histograms, because nothing in this
// project records these.
type (
	metricsRequest struct {
		ResourceMetrics [1]resourceMetrics `json:"resourceMetrics"`
	}
	resourceMetrics struct {
		Resource     attributes      `json:"resource"`
		ScopeMetrics [1]scopeMetrics `json:"scopeMetrics"`
	}
	scopeMetrics struct {
		Scope   scope        `json:"scope"`
		Metrics []instrument `json:"metrics"`
	}
	instrument struct {
		Name        string  `json:"name"`
		Description string  `json:"description"`
		Unit        string  `json:"unit"`
		Sum         *series `json:"sum,omitempty"`
		Histogram   *series `json:"histogram,omitempty"`
		Gauge       *series `json:"gauge,omitempty"`
	}
	series struct {
		Points      []point `json:"dataPoints"`
		Temporality int     `json:"aggregationTemporality,omitempty"`
		IsMonotonic bool    `json:"isMonotonic,omitempty"`
	}
	point struct {
		Attributes []keyValue `json:"attributes,omitempty"`
		Start      int64      `json:"startTimeUnixNano,string,omitempty"`
		Time       int64      `json:"timeUnixNano,string"`
		Int        *int64     `json:"asInt,string,omitempty"`
		Double     *float64   `json:"asDouble,omitempty"`

		Count  uint64    `json:"count,string,omitempty"`
		Sum    float64   `json:"sum,omitempty"`
		Counts []uint64  `json:"bucketCounts,omitempty"`
		Bounds []float64 `json:"explicitBounds,omitempty"`
	}

	scope struct {
		Name string `json:"name"`
	}
	attributes struct {
		Attributes []keyValue `json:"attributes"`
	}
	keyValue struct {
		Key   string `json:"key"`
		Value value  `json:"value"`
	}
	value struct {
		String *string `json:"stringValue,omitempty"`
		Int    *int64  `json:"intValue,string,omitempty"`
	}
)

// encodeSpans returns the request that exports spans. All spans of a process have one resource and
// one scope. A request has several spans, so encodeSpans appends bytes: with encoding/json a span costs
// half as much CPU time again, from its start to its export.
func encodeSpans(all []trace.ReadOnlySpan) ([]byte, error) {
	of, err := json.Marshal(encodeResource(all[0].Resource()))
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(of)+512*len(all))
	b = append(append(b, `{"resourceSpans":[{"resource":`...), of...)
	b = appendText(append(b, `,"scopeSpans":[{"scope":{"name":`...), all[0].InstrumentationScope().Name)
	b = append(b, `},"spans":[`...)
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendSpan(b, s)
	}
	return append(b, "]}]}]}"...), nil
}

func appendSpan(b []byte, s trace.ReadOnlySpan) []byte {
	of, parent := s.SpanContext(), s.Parent()
	traceID, spanID, parentID := of.TraceID(), of.SpanID(), parent.SpanID()
	flags := uint64(of.TraceFlags())
	b = hex.AppendEncode(append(b, `{"traceId":"`...), traceID[:])
	b = hex.AppendEncode(append(b, `","spanId":"`...), spanID[:])
	if parentID.IsValid() {
		b = hex.AppendEncode(append(b, `","parentSpanId":"`...), parentID[:])
		flags |= isRemoteKnown
		if parent.IsRemote() {
			flags |= isRemote
		}
	}
	b = strconv.AppendUint(append(b, `","flags":`...), flags, 10)
	b = appendText(append(b, `,"name":`...), s.Name())
	b = strconv.AppendInt(append(b, `,"kind":`...), int64(s.SpanKind()), 10) // the numbers of OTLP
	b = strconv.AppendInt(append(b, `,"startTimeUnixNano":"`...), s.StartTime().UnixNano(), 10)
	b = strconv.AppendInt(append(b, `","endTimeUnixNano":"`...), s.EndTime().UnixNano(), 10)
	b = append(b, `","attributes":[`...)
	for i, a := range s.Attributes() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"key":`...), string(a.Key))
		if a.Value.Type() == attribute.INT64 {
			b = append(strconv.AppendInt(append(b, `,"value":{"intValue":"`...), a.Value.AsInt64(), 10), `"}}`...)
		} else {
			b = append(appendText(append(b, `,"value":{"stringValue":`...), a.Value.String()), "}}"...)
		}
	}
	b = append(b, `],"status":{`...)
	if s.Status().Code == codes.Error {
		b = strconv.AppendInt(append(b, `"code":`...), statusError, 10)
	}
	return append(b, "}}"...)
}

// appendText appends a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendText(b []byte, text string) []byte {
	b, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(text, "\uFFFD"))
	return b
}

// Numbers of OTLP that differ from those of the SDK.
const (
	statusError   = 2     // STATUS_CODE_ERROR
	isRemoteKnown = 0x100 // SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
	isRemote      = 0x200 // SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
	delta         = 1     // AGGREGATION_TEMPORALITY_DELTA
)

// encodeMetrics returns the request that exports the metrics of the one scope.
func encodeMetrics(all *metricdata.ResourceMetrics) (r metricsRequest) {
	to := &r.ResourceMetrics[0]
	to.Resource = encodeResource(all.Resource)
	of := all.ScopeMetrics[0]
	to.ScopeMetrics[0] = scopeMetrics{scope{of.Scope.Name}, make([]instrument, len(of.Metrics))}
	for i, m := range of.Metrics {
		encoded := instrument{Name: m.Name, Description: m.Description, Unit: m.Unit}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			encoded.Sum = &series{Temporality: delta, IsMonotonic: data.IsMonotonic}
			for _, p := range data.DataPoints {
				encoded.Sum.Points = append(encoded.Sum.Points, point{Attributes: encodeSet(p.Attributes), Start: p.StartTime.UnixNano(), Time: p.Time.UnixNano(), Int: &p.Value})
			}
		case metricdata.Gauge[float64]:
			encoded.Gauge = &series{}
			for _, p := range data.DataPoints {
				encoded.Gauge.Points = append(encoded.Gauge.Points, point{Attributes: encodeSet(p.Attributes), Time: p.Time.UnixNano(), Double: &p.Value})
			}
		case metricdata.Histogram[float64]:
			encoded.Histogram = &series{Temporality: delta}
			for _, p := range data.DataPoints {
				encoded.Histogram.Points = append(encoded.Histogram.Points, point{Attributes: encodeSet(p.Attributes), Start: p.StartTime.UnixNano(), Time: p.Time.UnixNano(),
					Count: p.Count, Sum: p.Sum, Counts: p.BucketCounts, Bounds: p.Bounds})
			}
		}
		to.ScopeMetrics[0].Metrics[i] = encoded
	}
	return r
}

func encodeResource(of *resource.Resource) attributes {
	return attributes{encodeAttributes(of.Attributes())}
}

func encodeSet(s attribute.Set) []keyValue { return encodeAttributes(s.ToSlice()) }

// encodeAttributes returns the JSON form of attributes. Only integers and texts have a type of their
// own, because the project has no attributes of another type.
func encodeAttributes(all []attribute.KeyValue) []keyValue {
	encoded := make([]keyValue, len(all))
	for i, a := range all {
		encoded[i].Key = string(a.Key)
		if a.Value.Type() == attribute.INT64 {
			n := a.Value.AsInt64()
			encoded[i].Value.Int = &n
		} else {
			s := a.Value.String()
			encoded[i].Value.String = &s
		}
	}
	return encoded
}
