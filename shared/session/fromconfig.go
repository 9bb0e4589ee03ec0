package session

import (
	"time"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/config"
)

// FromConfig returns the granter that the environment configures. It reads SESSION_TTL,
// SESSION_MAX_TTL and the settings of accesstoken.IssuerFromConfig.
func FromConfig(cfg *config.Config) *Granter {
	const year = 365 * 24 * time.Hour
	maxTTL := cfg.Duration("SESSION_MAX_TTL", 2160*time.Hour, time.Minute, 10*year)
	ttl := cfg.Duration("SESSION_TTL", min(720*time.Hour, maxTTL), time.Minute, 10*year)
	if cfg.Text("SESSION_MAX_TTL", "") == "" {
		maxTTL = max(maxTTL, ttl)
	}
	if ttl > maxTTL {
		cfg.Problem("SESSION_TTL", "must not be longer than SESSION_MAX_TTL")
	}
	return &Granter{tokens: accesstoken.IssuerFromConfig(cfg, ttl), ttl: ttl, maxTTL: maxTTL}
}
