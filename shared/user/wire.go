package user

import (
	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/event"
)

// Wire returns the store of the environment: MONGODB_URI, SESSION_LIMIT. Sink is
// who is told of changes; nil for a function that makes none.
func Wire(w *app.Wiring, sink event.Sink) *Store {
	store := app.Part(w, "user store", func() *Store {
		c := Config{URI: w.Required("MONGODB_URI"), Sessions: w.Number("SESSION_LIMIT", 20, 1, 1000), Now: w.Now(), Log: w.Log()}
		if c.URI == "" {
			return &Store{outbox: newOutbox(c)}
		}
		s, err := New(c)
		if err != nil {
			w.Fault("MONGODB_URI", err.Error())
			return &Store{outbox: newOutbox(c)}
		}
		w.OnClose(s.Close)
		return s
	})
	if sink != nil { // where functions share a process, they share the store
		store.outbox.sink = sink
	}
	return store
}
