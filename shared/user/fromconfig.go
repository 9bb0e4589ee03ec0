package user

import (
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
)

// FromConfig returns the store of the environment: SESSION_LIMIT, and what mongodb.FromConfig
// asks for. Sink is who is told of changes; nil for a function that makes none.
func FromConfig(cfg *config.Config, sink event.Sink) *Store {
	store := config.Part(cfg, "user store", func() *Store {
		return New(Config{Sessions: cfg.Number("SESSION_LIMIT", 20, 1, 1000), Database: mongodb.FromConfig(cfg), Now: cfg.Now(), Log: cfg.Log()})
	})
	if sink != nil { // where functions share a process, they share the store
		store.outbox.sink = sink
	}
	return store
}
