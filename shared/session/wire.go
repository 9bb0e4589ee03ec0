package session

import (
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/token"
)

// Wire returns the granter of the environment: SESSION_TTL, SESSION_MAX_TTL, and what
// token.WireIssuer asks for.
func Wire(w *app.Wiring) *Granter {
	const year = 365 * 24 * time.Hour
	maxLife := w.Duration("SESSION_MAX_TTL", 2160*time.Hour, time.Minute, 10*year)
	life := w.Duration("SESSION_TTL", min(720*time.Hour, maxLife), time.Minute, 10*year)
	if w.Text("SESSION_MAX_TTL", "") == "" {
		maxLife = max(maxLife, life)
	}
	if life > maxLife {
		w.Fault("SESSION_TTL", "must not be longer than SESSION_MAX_TTL")
	}
	return &Granter{tokens: token.WireIssuer(w, life), life: life, maxLife: maxLife}
}
