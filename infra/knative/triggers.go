package knative

import (
	"fmt"

	"ticketing.com/auth/shared/endpoint"
)

// ping is what a PingSource sends; it cannot choose another type.
const ping = "dev.knative.sources.ping"

var triggers = page("triggers.yaml.tmpl")

// Triggers renders a Trigger for each event that a function takes, and a PingSource
// for each function that a clock wakes.
func Triggers(functions []endpoint.Endpoint) ([]byte, error) {
	type trigger struct{ Name, Type, Function string }
	var data struct {
		Triggers []trigger
		Clocks   []string
	}
	for _, e := range functions {
		for i, kind := range e.Trigger.Types {
			if kind == ping {
				data.Clocks = append(data.Clocks, e.Name)
			} else {
				data.Triggers = append(data.Triggers, trigger{fmt.Sprintf("%s-%d", e.Name, i+1), kind, e.Name})
			}
		}
	}
	return fill(triggers, data)
}
