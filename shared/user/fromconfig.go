package user

import (
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
)

// FromConfig returns the store that the environment configures. It reads SESSION_LIMIT and the
// settings of mongodb.FromConfig. The sink receives the events of changes. It is nil for a
// function that makes no changes.
func FromConfig(cfg *config.Config, sink event.Sink) *Store {
	store := config.Part(cfg, "user store", func() *Store {
		return New(Config{Sessions: cfg.Number("SESSION_LIMIT", 20, 1, 1000), Database: mongodb.FromConfig(cfg), Now: cfg.Now(), Log: cfg.Log(), Telemetry: telemetry.FromConfig(cfg)})
	})
	if sink != nil { // functions in one process share the store
		store.outbox.Sink = sink
	}
	return store
}
