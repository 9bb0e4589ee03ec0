package knative

import (
	"fmt"
	"slices"
	"time"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

var triggers = parse("triggers.yaml.tmpl")

// isScheduled reports whether a PingSource calls a function.
func isScheduled(f endpoint.Function) bool {
	return slices.Contains(types(f), event.Ping.Name)
}

// types returns the names of the event types that a function takes. A type is listed once,
// although several receivers of the function may take it: the function receives an event once.
func types(f endpoint.Function) (all []string) {
	for _, r := range f.Receivers {
		for _, t := range r.Types {
			if !slices.Contains(all, t.Name) {
				all = append(all, t.Name)
			}
		}
	}
	return all
}

// A delivery is the retries of a Trigger. The wait before each one is twice that before the last.
type delivery struct {
	Retries int
	Delay   time.Duration // before the first retry
}

// Wait returns Delay as an ISO 8601 duration.
func (d delivery) Wait() string { return fmt.Sprintf("PT%gS", d.Delay.Seconds()) }

// total returns the time from the first attempt to the last one.
func (d delivery) total() time.Duration { return d.Delay * (1<<d.Retries - 1) }

// deliveryOf returns the retries for a function and an event type. They take some minutes, or as
// long as the outage that a receiver must outlast.
func deliveryOf(f endpoint.Function, kind string) delivery {
	d := delivery{10, 200 * time.Millisecond}
	for _, r := range f.Receivers {
		if slices.ContainsFunc(r.Types, func(t *event.Type) bool { return t.Name == kind }) && d.total() < r.Outage {
			for d.Delay = time.Second; d.total() < r.Outage; {
				d.Retries++
			}
		}
	}
	return d
}

// Triggers returns a Trigger for each event type that a function receives, and a PingSource
// for each function that runs on a schedule.
func Triggers(functions []endpoint.Function) ([]byte, error) {
	type trigger struct {
		Name, Type, Function string
		delivery
	}
	var data struct {
		Triggers  []trigger
		Scheduled []string
	}
	for _, f := range functions {
		for i, kind := range types(f) {
			if kind != event.Ping.Name {
				data.Triggers = append(data.Triggers, trigger{fmt.Sprintf("%s-%d", f.Name, i+1), kind, f.Name, deliveryOf(f, kind)})
			}
		}
		if isScheduled(f) {
			data.Scheduled = append(data.Scheduled, f.Name)
		}
	}
	return execute(triggers, data)
}
