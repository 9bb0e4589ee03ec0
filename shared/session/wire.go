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
	life := w.Duration("SESSION_TTL", 720*time.Hour, time.Minute, 10*year)
	maxLife := w.Duration("SESSION_MAX_TTL", max(2160*time.Hour, life), time.Minute, 10*year)
	if life > maxLife {
		w.Fault("SESSION_TTL", "must not be longer than SESSION_MAX_TTL")
	}
	return &Granter{tokens: token.WireIssuer(w, life), life: life, maxLife: maxLife}
}
