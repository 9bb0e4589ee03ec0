// Package telemetry gives every request a trace ID that correlates its log lines. It
// continues the W3C Trace Context of the client, or starts a new trace.
//
// The package exports no traces. Logs go to standard error, one JSON object per line, the
// format that Knative, AWS Lambda and log collectors read.
package telemetry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"strings"
)

// A Trace is a position in a distributed trace (W3C Trace Context, level 1).
type Trace struct {
	ID    string // 32 lower-case hexadecimal digits, never all zero
	Span  string // 16 lower-case hexadecimal digits: this function's own span
	Flags string // 2 hexadecimal digits: the client's sampling decision
}

// Continue returns the trace of a traceparent header, with a new span. If the header is
// absent or malformed, it returns a new trace (§3.2.2, §4.2). From a later version it reads
// only the fields of version 00 (§3.2.4).
func Continue(traceparent string) Trace {
	t := Trace{ID: digits(16), Span: digits(8), Flags: "00"}
	version, rest, _ := strings.Cut(traceparent, "-")
	if len(version) != 2 || !isHex(version) || version == "ff" || len(rest) < 52 {
		return t
	}
	if version == "00" && len(rest) > 52 || len(rest) > 52 && rest[52] != '-' {
		return t
	}
	id, parent, flags := rest[:32], rest[33:49], rest[50:52]
	if rest[32] != '-' || rest[49] != '-' || !isHex(id) || !isHex(parent) || !isHex(flags) ||
		strings.Trim(id, "0") == "" || strings.Trim(parent, "0") == "" {
		return t
	}
	t.ID, t.Flags = id, flags
	return t
}

// Traceparent returns the value of the traceparent header for outgoing requests.
func (t Trace) Traceparent() string { return "00-" + t.ID + "-" + t.Span + "-" + t.Flags }

// Attr returns the trace ID as a log attribute.
func (t Trace) Attr() slog.Attr { return slog.String("trace", t.ID) }

type key struct{}

// With returns a context that carries the trace.
func With(ctx context.Context, t Trace) context.Context { return context.WithValue(ctx, key{}, t) }

// From returns the trace of a context, or the zero Trace.
func From(ctx context.Context) Trace {
	t, _ := ctx.Value(key{}).(Trace)
	return t
}

func digits(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
