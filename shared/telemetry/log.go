package telemetry

import (
	"context"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"
)

// LogHandler returns a handler that completes each line to the schema in infra/docs/telemetry.md. It
// adds the trace ID and the span ID of the context, the function that handles the request of the
// context, and the outcome that the level implies.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

// The outcomes of a line.
const (
	OK      = "ok"
	Refused = "refused" // by a rule: invalid input, wrong credentials, a rate limit
	Failed  = "failed"  // by a fault of the system or of a dependency
	Gone    = "gone"    // the client closed the connection
)

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	function, outcome := false, false
	r.Attrs(func(a slog.Attr) bool {
		function, outcome = function || a.Key == "function", outcome || a.Key == "outcome"
		return true
	})
	r = r.Clone()
	if !function {
		name := "-"
		if n := notesOf(ctx); n != nil {
			name = n.function
		}
		r.AddAttrs(slog.String("function", name))
	}
	if !outcome {
		byLevel := OK
		if r.Level >= slog.LevelWarn {
			byLevel = Failed
		}
		r.AddAttrs(slog.String("outcome", byLevel))
	}
	if of := trace.SpanContextFromContext(ctx); of.IsValid() {
		r.AddAttrs(slog.String("trace", of.TraceID().String()), slog.String("span", of.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }

// A SecurityEvent is the name of an event that can be part of an attack. It is in the log line of its
// request.
type SecurityEvent string

// The security events.
const (
	SignInFailed    SecurityEvent = "signin.failed"    // wrong credentials
	SignInRefused   SecurityEvent = "signin.refused"   // by a rate limit, without a check of the password
	LimitReached    SecurityEvent = "limit.reached"    // another rate limit rejected the request
	SessionStolen   SecurityEvent = "session.theft"    // a session ended, because a used refresh token was presented
	PasswordChanged SecurityEvent = "password.changed" // also by a recovery
	EmailChanged    SecurityEvent = "email.changed"    // also by an undo
)

// SecurityEvents returns all security events.
func SecurityEvents() []SecurityEvent {
	return []SecurityEvent{SignInFailed, SignInRefused, LimitReached, SessionStolen, PasswordChanged, EmailChanged}
}

// notes are the additions of a handler to the log line of its request.
type notes struct {
	function string

	mu            sync.Mutex
	event         SecurityEvent
	user, network string
}

type notesKey struct{}

func notesOf(ctx context.Context) *notes {
	n, _ := ctx.Value(notesKey{}).(*notes)
	return n
}

// InFunction returns the context of a request that a function handles.
func InFunction(ctx context.Context, function string) context.Context {
	return context.WithValue(ctx, notesKey{}, &notes{function: function})
}

// Note adds a security event to the log line of the request. It replaces an earlier event: the later one
// is more specific.
func Note(ctx context.Context, e SecurityEvent) {
	if n := notesOf(ctx); n != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.event = e
	}
}

// NoteUser adds the id of the account to the log line of a request with a security event.
func NoteUser(ctx context.Context, id string) {
	if n := notesOf(ctx); n != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.user = id
	}
}

// NoteNetwork adds the network of the client, never its address, to the log line of a request with a
// security event.
func NoteNetwork(ctx context.Context, network string) {
	if n := notesOf(ctx); n != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.network = network
	}
}

// Noted returns the attributes of the security event of a request, if it has one. A request with another
// outcome than Refused has reached no limit: a second limit has admitted it.
func Noted(ctx context.Context, outcome string) (attrs []slog.Attr) {
	n := notesOf(ctx)
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.event == "" || n.event == LimitReached && outcome != Refused {
		return nil
	}
	attrs = append(attrs, slog.String("security", string(n.event)))
	if n.user != "" {
		attrs = append(attrs, slog.String("user", n.user))
	}
	if n.network != "" {
		attrs = append(attrs, slog.String("network", n.network))
	}
	return attrs
}
