package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// A Kind is the kind of an instrument.
type Kind string

// The kinds of instruments.
const (
	Counter   Kind = "counter"
	Histogram Kind = "histogram"
	Gauge     Kind = "gauge"
)

// A Metric describes an instrument. Its names follow OpenTelemetry's semantic conventions where these
// define one.
type Metric struct {
	Name      string
	Kind      Kind
	Unit      string // UCUM
	About     string
	Attribute string               // the name of the attribute with the value of Count or Observe, or ""
	fixed     []attribute.KeyValue // the attributes that are always the same
	bounds    []float64            // of a histogram
}

// The bounds of durations, in seconds. Those of long are for a cold start.
var (
	short = []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1}
	long  = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10}
)

// The metrics.
var (
	PasswordChecks = &Metric{Name: "auth.password.checks", Kind: Counter, Unit: "{attempt}", Attribute: "auth.outcome",
		About: "Sign-ins, and other requests with the current password: succeeded, failed (wrong credentials), refused (a rate limit) or unavailable."}
	HashWait = &Metric{Name: "auth.password_hash.wait.duration", Kind: Histogram, Unit: "s", bounds: short,
		About: "The time for which a password hash waited for a slot."}
	HashRefusals = &Metric{Name: "auth.password_hash.refusals", Kind: Counter, Unit: "{request}",
		About: "Requests that found no slot for a password hash in time, and received 503."}
	RateLimited = &Metric{Name: "auth.rate_limit.refusals", Kind: Counter, Unit: "{request}", Attribute: "auth.limit",
		About: "Requests that a rate limit rejected."}
	OutboxDepth = &Metric{Name: "auth.outbox.accounts", Kind: Gauge, Unit: "{account}", Attribute: "auth.outbox.state",
		About: "Accounts with undelivered and with refused events after a run of the relay, at most 1,000 each."}
	OutboxAge = &Metric{Name: "auth.outbox.age", Kind: Gauge, Unit: "s",
		About: "The age of the oldest undelivered event after a run of the relay; 0 without one."}
	EventsSent = &Metric{Name: "messaging.client.sent.messages", Kind: Counter, Unit: "{message}", Attribute: "messaging.destination.name",
		About: "Events that the sink acknowledged, by type.",
		fixed: messaging("send")}
	Refreshes = &Metric{Name: "auth.refreshes", Kind: Counter, Unit: "{request}", Attribute: "auth.outcome",
		About: "Exchanges of a refresh token: rotated, replayed (the same answer again), reused (a used token; the session ends), rejected or unavailable."}
	Mails = &Metric{Name: "auth.mails", Kind: Counter, Unit: "{mail}", Attribute: "auth.outcome",
		About: "Attempts to send a mail: sent, failed (the broker tries again), refused, address, limited, outdated or excluded."}
	SessionsEnded = &Metric{Name: "auth.sessions.ended", Kind: Counter, Unit: "{session}", Attribute: "auth.reason",
		About: "Sessions that ended before their expiry."}
	RevocationsSize = &Metric{Name: "auth.revocations.size", Kind: Gauge, Unit: "{entry}",
		About: "Entries in the last complete answer of the revocation feed."}
	RevocationsAge = &Metric{Name: "auth.revocations.age", Kind: Gauge, Unit: "s",
		About: "The age of the cursor of the last request of the revocation feed: the interval at which the consumer polls."}
	ColdStart = &Metric{Name: "faas.init_duration", Kind: Histogram, Unit: "s", bounds: long,
		About: "The time from the start of the process to its first response, if a request caused the start."}
)

// Metrics returns all metrics.
func Metrics() []*Metric {
	return []*Metric{PasswordChecks, HashWait, HashRefusals, RateLimited, OutboxDepth, OutboxAge, EventsSent,
		Refreshes, Mails, SessionsEnded, RevocationsSize, RevocationsAge, ColdStart}
}

// An instrument records the values of a metric.
type instrument func(context.Context, float64, metric.MeasurementOption)

func create(meter metric.Meter) (map[*Metric]instrument, error) {
	all := map[*Metric]instrument{}
	for _, m := range Metrics() {
		record, err := m.create(meter)
		if err != nil {
			return nil, err
		}
		all[m] = record
	}
	return all, nil
}

func (m *Metric) create(meter metric.Meter) (instrument, error) {
	switch m.Kind {
	case Counter:
		c, err := meter.Int64Counter(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.About))
		return func(ctx context.Context, v float64, o metric.MeasurementOption) { c.Add(ctx, int64(v), o) }, err
	case Histogram:
		h, err := meter.Float64Histogram(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.About), metric.WithExplicitBucketBoundaries(m.bounds...))
		return func(ctx context.Context, v float64, o metric.MeasurementOption) { h.Record(ctx, v, o) }, err
	}
	g, err := meter.Float64Gauge(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.About))
	return func(ctx context.Context, v float64, o metric.MeasurementOption) { g.Record(ctx, v, o) }, err
}

// Count adds 1 to a counter. value is that of the attribute of the metric, if it has one. It must come
// from a fixed list.
func (t *Telemetry) Count(ctx context.Context, m *Metric, value string) { t.Observe(ctx, m, 1, value) }

// Observe records a value of a metric. value is as in Count.
func (t *Telemetry) Observe(ctx context.Context, m *Metric, v float64, value string) {
	if !t.On() {
		return
	}
	attributes := m.fixed
	if m.Attribute != "" {
		attributes = append(attributes[:len(attributes):len(attributes)], attribute.String(m.Attribute, value))
	}
	t.instruments[m](ctx, v, metric.WithAttributes(attributes...))
}
