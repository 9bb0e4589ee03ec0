package knative

import (
	"fmt"

	"ticketing.com/auth/shared/endpoint"
)

// ping is the event type of a PingSource. It is fixed.
const ping = "dev.knative.sources.ping"

var triggers = parse("triggers.yaml.tmpl")

// Triggers returns a Trigger for each event type that a function receives, and a PingSource
// for each function that runs on a schedule.
func Triggers(functions []endpoint.Endpoint) ([]byte, error) {
	type trigger struct{ Name, Type, Function string }
	var data struct {
		Triggers  []trigger
		Scheduled []string
	}
	for _, e := range functions {
		for i, kind := range e.Trigger.Types {
			if kind == ping {
				data.Scheduled = append(data.Scheduled, e.Name)
			} else {
				data.Triggers = append(data.Triggers, trigger{fmt.Sprintf("%s-%d", e.Name, i+1), kind, e.Name})
			}
		}
	}
	return execute(triggers, data)
}
