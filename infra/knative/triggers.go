package knative

import (
	"fmt"
	"slices"

	"ticketing.com/auth/shared/endpoint"
)

// ping is the event type of a PingSource. It is fixed.
const ping = "dev.knative.sources.ping"

var triggers = parse("triggers.yaml.tmpl")

// isScheduled reports whether a PingSource calls a function.
func isScheduled(f endpoint.Function) bool {
	return slices.ContainsFunc(f.Receivers, func(r endpoint.Receiver) bool { return slices.Contains(r.Types, ping) })
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
		number := 0
		for _, r := range f.Receivers {
			for _, kind := range r.Types {
				if number++; kind != ping {
					data.Triggers = append(data.Triggers, trigger{fmt.Sprintf("%s-%d", f.Name, number), kind, f.Name})
				}
			}
		}
		if isScheduled(f) {
			data.Scheduled = append(data.Scheduled, f.Name)
		}
	}
	return execute(triggers, data)
}
