package signup

import (
	"errors"
	"testing"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/ratelimit"
)

// The limiter is nil, so a command to the database would panic.
func TestSignup_NoFreeHashSlot(t *testing.T) {
	t.Parallel()
	full := password.New(password.Config{Queue: -1})
	if err := allow(full, nil, ratelimit.Limit{})(t.Context(), endpoint.Client{}); !errors.Is(err, password.ErrBusy) {
		t.Errorf("got %v, want %v", err, password.ErrBusy)
	}
}
