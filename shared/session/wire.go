package session

import (
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/token"
)

// Wire returns the granter of the environment: SESSION_TTL, and what
// token.WireIssuer asks for.
func Wire(w *app.Wiring) *Granter {
	return &Granter{
		tokens: token.WireIssuer(w),
		life:   w.Duration("SESSION_TTL", 720*time.Hour, time.Minute, 10*365*24*time.Hour),
	}
}
