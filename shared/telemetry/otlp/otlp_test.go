package otlp_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/telemetry/otlp"
	"ticketing.com/auth/shared/testing/otlptest"
)

// A collector responds to each request with the next response of a list, and then with 200.
type collector struct {
	mu        sync.Mutex
	responses []string // a status and a body
	received  []*http.Request
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received = append(c.received, r)
	if len(c.responses) == 0 {
		io.WriteString(w, "{}")
		return
	}
	status, body, _ := strings.Cut(c.responses[0], " ")
	c.responses = c.responses[1:]
	w.Header().Set("Location", "/other")
	w.WriteHeader(map[string]int{"200": 200, "307": 307, "400": 400, "401": 401, "429": 429, "503": 503}[status])
	io.WriteString(w, body)
}

// start returns a configuration with a started exporter, and its log.
func start(t testing.TB, settings map[string]string) (*config.Config, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	cfg := config.New(func(name string) (string, bool) { s, set := settings[name]; return s, set },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(&log, o) }, time.Now)
	otlp.Start(cfg, "test")
	return cfg, &log
}

// Each case exports one span. The number of requests counts those with spans.
func TestExport_Responses(t *testing.T) {
	for name, c := range map[string]struct {
		responses []string
		requests  int
		logged    string // part of the log; empty for no line
	}{
		"accepted":                   {nil, 1, ""},
		"accepted without a body":    {[]string{"200 "}, 1, ""},
		"unavailable, then accepted": {[]string{"503 "}, 2, ""},
		"invalid":                    {[]string{"400 secret"}, 1, "the collector responded 400"},
		"unauthorized":               {[]string{"401 "}, 1, "the collector responded 401"},
		"rejected in part":           {[]string{`200 {"partialSuccess":{"rejectedSpans":"1","errorMessage":"secret"}}`}, 1, "the collector rejected 1 spans"},
		"rejected in part, a number": {[]string{`200 {"partialSuccess":{"rejectedSpans":2}}`}, 1, "the collector rejected 2 spans"},
		"too many requests":          {[]string{"429 "}, 2, ""},
		"a redirect":                 {[]string{"307 ", "307 "}, 1, "the collector responded 307"},
		"a warning":                  {[]string{`200 {"partialSuccess":{"errorMessage":"later"}}`}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			to := &collector{responses: c.responses}
			server := httptest.NewServer(to)
			defer server.Close()
			cfg, log := start(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL + "/", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x%2Cy, tenant = one ,"})
			if err := cfg.Err(); err != nil {
				t.Fatal(err)
			}
			telemetry.End(span(cfg), false)
			cfg.Close(t.Context())
			if len(to.received) != c.requests {
				t.Fatalf("got %d requests, want %d", len(to.received), c.requests)
			}
			for _, r := range to.received {
				if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" ||
					r.Header.Get("Authorization") != "Bearer x,y" || r.Header.Get("Tenant") != "one" {
					t.Errorf("got %s %s with the headers %v", r.Method, r.URL, r.Header)
				}
			}
			if got := log.String(); strings.Contains(got, "secret") || c.logged == "" && got != "" || !strings.Contains(got, c.logged) {
				t.Errorf("got the log %q, want %q", got, c.logged)
			}
		})
	}
}

// BenchmarkSpan records the span of a database command, and exports it.
func BenchmarkSpan(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	cfg, _ := start(b, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL})
	t := telemetry.FromConfig(cfg)
	ctx, _ := t.Serve(context.Background(), http.Header{})
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		_, s := t.Start(ctx, "find users", trace.SpanKindClient, semconv.DBSystemNameMongoDB, semconv.DBNamespace("auth"), semconv.DBOperationName("find"), semconv.DBCollectionName("users"))
		telemetry.End(s, false)
		if n%512 == 511 { // the default size of a batch
			t.Flush(ctx)
		}
	}
}

func span(cfg *config.Config) trace.Span {
	_, s := telemetry.FromConfig(cfg).Serve(context.Background(), http.Header{})
	return s
}

// The decoder of the collector reads each member of each span.
func TestExport_Spans(t *testing.T) {
	to := otlptest.New(t)
	of := to.Telemetry(t)
	ctx, server := of.Serve(t.Context(), http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
	_, inner := of.Start(ctx, "a \"b\"\n\x00\xff", trace.SpanKindClient, attribute.String("text", `\ü"`+"\u2028"), attribute.Int64("least", math.MinInt64), attribute.String("empty", ""))
	telemetry.End(inner, true)
	telemetry.End(server, false)
	_, root := of.Serve(t.Context(), http.Header{})
	telemetry.End(root, false)
	of.Flush(t.Context())

	spans := to.Spans()
	if len(spans) != 3 {
		t.Fatalf("got %d spans, want 3", len(spans))
	}
	type read struct {
		traceID, parent, name string
		kind                  ptrace.SpanKind
		flags                 uint32
		code                  ptrace.StatusCode
		attributes            map[string]any
	}
	for i, want := range []read{
		{"0af7651916cd43dd8448eb211c80319c", spans[1].SpanID().String(), "a \"b\"\n\x00\uFFFD", ptrace.SpanKindClient, 0x101, ptrace.StatusCodeError,
			map[string]any{"text": `\ü"` + "\u2028", "least": int64(math.MinInt64), "empty": ""}},
		{"0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "HTTP", ptrace.SpanKindServer, 0x301, ptrace.StatusCodeUnset, map[string]any{}},
		{root.SpanContext().TraceID().String(), "", "HTTP", ptrace.SpanKindServer, 1, ptrace.StatusCodeUnset, map[string]any{}},
	} {
		s := spans[i]
		got := read{s.TraceID().String(), s.ParentSpanID().String(), s.Name(), s.Kind(), s.Flags(), s.Status().Code(), s.Attributes().AsRaw()}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("span %d: got %+v, want %+v", i, got, want)
		}
		if s.SpanID().IsEmpty() || s.StartTimestamp() == 0 || s.EndTimestamp() < s.StartTimestamp() {
			t.Errorf("span %d: got the ID %s and the time from %d to %d", i, s.SpanID(), s.StartTimestamp(), s.EndTimestamp())
		}
	}
}

// The collector's certificate is trusted only with OTEL_EXPORTER_OTLP_CERTIFICATE.
func TestExport_Certificate(t *testing.T) {
	to := &collector{}
	server := httptest.NewTLSServer(to)
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // the handshake that fails
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file, timeout string
		want          int
	}{"trusted": {file, "60000", 1}, "unknown": {"", "500", 0}} {
		t.Run(name, func(t *testing.T) {
			to.received = nil
			cfg, _ := start(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL, "OTEL_EXPORTER_OTLP_TIMEOUT": c.timeout, "OTEL_EXPORTER_OTLP_CERTIFICATE": c.file})
			telemetry.End(span(cfg), false)
			cfg.Close(t.Context())
			if len(to.received) != c.want {
				t.Errorf("got %d requests, want %d", len(to.received), c.want)
			}
		})
	}
}

func TestStart_InvalidSettings(t *testing.T) {
	for setting, values := range map[string][]string{
		"OTEL_EXPORTER_OTLP_HEADERS":     {"secret", "a b=secret", "a=%zz", "a=%0a"},
		"OTEL_EXPORTER_OTLP_TIMEOUT":     {"0", "x", "60001"},
		"OTEL_EXPORTER_OTLP_CERTIFICATE": {"missing.pem", "otlp_test.go"},
	} {
		for _, value := range values {
			cfg, _ := start(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", setting: value})
			if err := cfg.Err(); err == nil || !strings.Contains(err.Error(), setting) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s=%s: got the error %v, want one about the setting without its value", setting, value, err)
			}
		}
	}
}
