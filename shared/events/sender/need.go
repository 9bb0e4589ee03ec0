package sender

import (
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

// Publishing returns the need of a function that publishes events of these types if there is a
// sink.
func Publishing(types ...*event.Type) endpoint.Need {
	return endpoint.Need{
		Settings:  []string{"K_SINK", "K_SINK_TIMEOUT", "K_CE_OVERRIDES", "K_CA_CERTS"},
		Publishes: types,
	}
}
