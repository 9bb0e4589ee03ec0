package mongodb

import (
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/telemetry"
)

// FromConfig returns the connection that the environment configures. It reads MONGODB_URI.
func FromConfig(cfg *config.Config) *Connection {
	return config.Part(cfg, "database", func() *Connection {
		uri := cfg.Required("MONGODB_URI")
		if uri == "" {
			return &Connection{}
		}
		c, err := New(uri)
		if err != nil {
			cfg.Problem("MONGODB_URI", err.Error())
			return &Connection{}
		}
		c.telemetry = telemetry.FromConfig(cfg)
		cfg.OnClose(c.Close)
		return c
	})
}
