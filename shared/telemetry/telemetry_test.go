package telemetry_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/telemetry"
)

const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

func TestServe_Traceparent(t *testing.T) {
	for _, c := range []struct {
		name, header string
		continued    bool
	}{
		{"a valid header is continued", "00-" + id + "-" + parent + "-01", true},
		{"a later version with more fields is continued", "01-" + id + "-" + parent + "-01-more", true},
		{"no header starts a trace", "", false},
		{"version ff is invalid", "ff-" + id + "-" + parent + "-01", false},
		{"version 00 ends after the flags", "00-" + id + "-" + parent + "-01-more", false},
		{"a later version has a separator after the flags", "01-" + id + "-" + parent + "-01more", false},
		{"upper case is invalid", "00-" + strings.ToUpper(id) + "-" + parent + "-01", false},
		{"an all-zero trace id is invalid", "00-" + strings.Repeat("0", 32) + "-" + parent + "-01", false},
		{"an all-zero parent id is invalid", "00-" + id + "-0000000000000000-01", false},
		{"a short header is invalid", "00-" + id, false},
		{"a line break cannot reach the log", "00-" + id[:31] + "\n-" + parent + "-01", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var off *telemetry.Telemetry
			ctx, _ := off.Serve(t.Context(), http.Header{"Traceparent": {c.header}, "Tracestate": {"any=text"}})
			of := trace.SpanContextFromContext(ctx)
			if of.TraceState().Len() > 0 {
				t.Errorf("got the tracestate %s of the client, want none", of.TraceState())
			}
			if got := of.TraceID().String() == id; got != c.continued {
				t.Errorf("continued = %v, want %v; trace %s", got, c.continued, of.TraceID())
			}
			traceparent := telemetry.Traceparent(ctx)
			if !regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]$`).MatchString(traceparent) || of.SpanID().String() == parent || !of.IsValid() {
				t.Errorf("traceparent %q, want a valid one with a new span", traceparent)
			}
			if c.continued && !of.IsSampled() {
				t.Error("the sampling decision of the client is lost")
			}
			var log bytes.Buffer
			slog.New(telemetry.LogHandler(slog.NewTextHandler(&log, nil))).InfoContext(ctx, "x")
			if want := "trace=" + of.TraceID().String() + " span=" + of.SpanID().String() + "\n"; !strings.HasSuffix(log.String(), want) {
				t.Errorf("log line %q, want the end %q", log.String(), want)
			}
		})
	}
}

// Without a collector, the work of a request allocates nothing for telemetry.
func TestTelemetry_OffAllocations(t *testing.T) {
	var off *telemetry.Telemetry
	if n := testing.AllocsPerRun(100, func() {
		_, span := off.Start(t.Context(), "work", trace.SpanKindInternal)
		off.Count(t.Context(), telemetry.PasswordChecks, "failed")
		off.Answered(t.Context(), time.Time{})
		telemetry.End(span, true)
	}); n > 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
