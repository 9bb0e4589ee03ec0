package user

import (
	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/database"
	"ticketing.com/auth/shared/event"
)

// Wire returns the store of the environment: SESSION_LIMIT, and what database.Wire
// asks for. Sink is who is told of changes; nil for a function that makes none.
func Wire(w *app.Wiring, sink event.Sink) *Store {
	store := app.Part(w, "user store", func() *Store {
		return New(Config{Sessions: w.Number("SESSION_LIMIT", 20, 1, 1000), Database: database.Wire(w), Now: w.Now(), Log: w.Log()})
	})
	if sink != nil { // where functions share a process, they share the store
		store.outbox.sink = sink
	}
	return store
}
