package database

import "ticketing.com/auth/shared/app"

// Wire returns the connection of the environment: MONGODB_URI.
func Wire(w *app.Wiring) *Connection {
	return app.Part(w, "database", func() *Connection {
		uri := w.Required("MONGODB_URI")
		if uri == "" {
			return &Connection{}
		}
		c, err := New(uri)
		if err != nil {
			w.Fault("MONGODB_URI", err.Error())
			return &Connection{}
		}
		w.OnClose(c.Close)
		return c
	})
}
