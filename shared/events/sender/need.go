package sender

import "ticketing.com/auth/shared/endpoint"

// Publishing is the need of a function that publishes events if there is a sink.
var Publishing = endpoint.Need{
	Settings:  []string{"K_SINK", "K_SINK_TIMEOUT", "K_CE_OVERRIDES", "K_CA_CERTS"},
	Publishes: true,
}
