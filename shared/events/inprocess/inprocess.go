// Package inprocess delivers events to receivers in the process that publishes them, without a
// broker. It is for a process with several functions: the local runner and infra/allinone.
//
// A process delivers its events itself if K_SINK is not set, and one of its functions takes a type
// that one of them publishes. Package httpserver then calls Prepare and Connect. Other published
// types have no receiver, so they are not stored.
//
// Delivery is at least once, as with a broker. The outbox stores an event until all of its receivers
// have accepted or rejected it. After a status that a broker retries, the event remains in the
// outbox, and the relay delivers it. A receiver gets the data, the trace and the key that it would
// get from a broker. So it recognises a repeated delivery, also one that a broker has sent.
//
// No PingSource triggers the relay of such a process. AfterRequest does.
package inprocess

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/telemetry"
)

const (
	// receiverTimeout bounds how long a request waits for receivers where the platform may freeze
	// the process after the response.
	receiverTimeout = 2 * time.Second
	// relayTimeout bounds a run of the relay there, from the begin of the request. So a response
	// takes less than 5 s.
	relayTimeout = 4 * time.Second
	// relayInterval is the minimum time between two runs of the relay that requests trigger.
	relayInterval = time.Minute
	// maxHops bounds a chain of events of which each causes the next one. Knative's broker has such
	// a limit, too.
	maxHops = 8
)

// A Sink delivers events to the receivers of its process. It is safe for concurrent use.
type Sink struct {
	types     map[string]bool              // the names of the types with a receiver
	receivers map[string][]*endpoint.Bound // by the name of the type
	now       func() time.Time
	log       *slog.Logger
	telemetry *telemetry.Telemetry

	mu      sync.Mutex
	relayed time.Time // the start of the last run of the relay
}

// Types returns the names of the types that a process with these functions delivers itself: those
// that a function publishes and a function takes, and the type of the replies to them if a function
// takes it. If there are any, they include event.Ping, which triggers the relay.
func Types(functions []endpoint.Function) map[string]bool {
	types := map[string]bool{}
	var add func(published *event.Type)
	add = func(published *event.Type) {
		if published == nil || types[published.Name] {
			return
		}
		for _, f := range functions {
			for _, r := range f.Receivers {
				if takes(r, map[string]bool{published.Name: true}) {
					types[published.Name] = true
					add(r.Reply)
					add(r.Refusal)
				}
			}
		}
	}
	for _, f := range functions {
		for _, need := range f.Needs {
			for _, t := range need.Publishes {
				add(t)
			}
		}
	}
	if len(types) > 0 {
		types[event.Ping.Name] = true
	}
	return types
}

// Takes reports whether a function has a receiver of one of the types.
func Takes(f endpoint.Function, types map[string]bool) bool {
	return slices.ContainsFunc(f.Receivers, func(r endpoint.Receiver) bool { return takes(r, types) })
}

func takes(r endpoint.Receiver, types map[string]bool) bool {
	return slices.ContainsFunc(r.Types, func(t *event.Type) bool { return types[t.Name] })
}

func part(cfg *config.Config) *Sink {
	return config.Part(cfg, "sink in the process", func() *Sink { return &Sink{now: cfg.Now(), log: cfg.Log(), telemetry: telemetry.FromConfig(cfg)} })
}

// Prepare returns the sink of a process with these functions, without its receivers. It returns nil
// if the process does not deliver events itself. It must precede the configuration of the functions.
func Prepare(cfg *config.Config, functions []endpoint.Function) *Sink {
	types := Types(functions)
	if len(types) == 0 || cfg.Text("K_SINK", "") != "" {
		return nil
	}
	s := part(cfg)
	s.types = types
	return s
}

// FromConfig returns the sink of a process, or nil if the process does not deliver events itself.
func FromConfig(cfg *config.Config) *Sink {
	if s := part(cfg); len(s.types) > 0 {
		return s
	}
	return nil
}

// Receives reports whether the sink delivers events to a function. The sink may be nil.
func (s *Sink) Receives(f endpoint.Function) bool { return s != nil && Takes(f, s.types) }

// Connect sets the receivers of the process, by the name of the type. It must precede all events.
func (s *Sink) Connect(receivers map[string][]*endpoint.Bound) { s.receivers = receivers }

// Budget returns the longest time limit of the receivers.
func (s *Sink) Budget() (longest time.Duration) {
	for name, all := range s.receivers {
		for _, b := range all {
			if name != event.Ping.Name && s.types[name] {
				longest = max(longest, b.Budget)
			}
		}
	}
	return longest
}

// Takes implements event.Sink.
func (s *Sink) Takes(t *event.Type) bool { return s.types[t.Name] }

// Timeout implements event.Sink.
func (s *Sink) Timeout() time.Duration { return receiverTimeout }

type hopsKey struct{}

// Send calls the receivers of an event. It returns nil after all of them have accepted or rejected
// it, and after the receivers of the reply have done the same. A rejected event is logged: a broker
// would not deliver it again either.
//
// A receiver may publish events. Send delivers these before it returns, up to maxHops in a chain. A
// longer chain continues at the next run of the relay.
func (s *Sink) Send(ctx context.Context, e event.Event) (err error) {
	all := s.receivers[e.Type]
	if len(all) == 0 { // stored when the process had another configuration
		return fmt.Errorf("%w: event %s, no function of this process takes it", event.ErrRefused, e.ID)
	}
	hops, _ := ctx.Value(hopsKey{}).(int)
	if hops >= maxHops {
		return fmt.Errorf("send event %s: it is the last of %d events of which each caused the next one", e.ID, hops+1)
	}
	ctx, span := s.telemetry.Continue(inRequest(ctx), cmp.Or(telemetry.Traceparent(ctx), e.Trace), "process "+e.Type, trace.SpanKindConsumer, telemetry.Messaging("process", e.Type)...)
	defer func() { telemetry.End(span, err != nil) }()
	ctx = context.WithValue(ctx, hopsKey{}, hops+1)
	data, err := json.Marshal(e.Data)
	if err != nil {
		return fmt.Errorf("send event %s: %w", e.ID, err)
	}
	key := endpoint.EventKey(e.Source, e.ID)
	r := endpoint.InvokeReceivers(ctx, all, request(key, data), 0)
	switch {
	case r.Retried():
		return fmt.Errorf("send event %s: the receiver responded %d", e.ID, r.Status)
	case r.Status != http.StatusOK:
		s.log.WarnContext(ctx, "event rejected by its receiver", "event", e.ID, "type", e.Type, "status", r.Status)
		return nil
	case r.Reply == nil:
		return nil
	}
	reply := event.Event{ID: endpoint.ReplyID(key, r.Reply, r.Body), Type: r.Reply.Name, Source: r.Reply.Source,
		Time: s.now().UTC().Truncate(time.Millisecond), Trace: telemetry.Traceparent(ctx), Data: jsontext.Value(r.Body)}
	if !s.types[reply.Type] {
		s.log.InfoContext(ctx, "reply dropped: no function of this process takes it", "event", reply.ID, "type", reply.Type)
		return nil
	}
	return s.Send(ctx, reply)
}

// inRequest returns the context of a receiver. It has no Later: the response of the request that
// caused the event may be written already.
func inRequest(ctx context.Context) context.Context { return endpoint.WithLater(ctx, nil) }

func request(key string, data []byte) func() *endpoint.Request {
	return func() *endpoint.Request {
		return &endpoint.Request{
			Method:      http.MethodPost,
			ContentType: []string{"application/json"},
			Length:      int64(len(data)),
			Body:        bytes.NewReader(data),
			Key:         key,
		}
	}
}

// AfterRequest runs the relay of the process after the first request, and then after a request at
// most once per relayInterval. Any request triggers it, so a monitor that requests a route at an
// interval does as well as a PingSource. The sink may be nil.
//
// The relay runs after the response. If the platform may freeze the process after the response, the
// run precedes the response, until relayTimeout after the begin of the request.
func (s *Sink) AfterRequest(ctx context.Context, began time.Time) {
	if s == nil || !s.startRelay() {
		return
	}
	relay := func(ctx context.Context) {
		ctx, span := s.telemetry.Continue(inRequest(ctx), "", "process "+event.Ping.Name, trace.SpanKindConsumer, telemetry.Messaging("process", event.Ping.Name)...)
		defer span.End()
		endpoint.InvokeReceivers(ctx, s.receivers[event.Ping.Name], request(event.NewID(), nil), 0)
	}
	if later := endpoint.LaterFrom(ctx); later != nil {
		later(func() { relay(context.WithoutCancel(ctx)) })
		return
	}
	ctx, cancel := context.WithDeadline(ctx, began.Add(relayTimeout))
	defer cancel()
	relay(ctx)
}

// startRelay reports whether a run of the relay is due, and counts it.
func (s *Sink) startRelay() bool {
	if len(s.receivers[event.Ping.Name]) == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !s.relayed.IsZero() && now.Sub(s.relayed) < relayInterval {
		return false
	}
	s.relayed = now
	return true
}
