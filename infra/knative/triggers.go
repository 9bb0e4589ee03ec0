package knative

import (
	"fmt"
	"slices"

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

// Triggers returns a Trigger for each event type that a function receives, and a PingSource
// for each function that runs on a schedule.
func Triggers(functions []endpoint.Function) ([]byte, error) {
	type trigger struct{ Name, Type, Function string }
	var data struct {
		Triggers  []trigger
		Scheduled []string
	}
	for _, f := range functions {
		for i, kind := range types(f) {
			if kind != event.Ping.Name {
				data.Triggers = append(data.Triggers, trigger{fmt.Sprintf("%s-%d", f.Name, i+1), kind, f.Name})
			}
		}
		if isScheduled(f) {
			data.Scheduled = append(data.Scheduled, f.Name)
		}
	}
	return execute(triggers, data)
}
