package signup

import (
	"errors"
	"testing"

	"ticketing.com/auth/shared/password"
)

// It has nothing else at hand, so whatever it asked before would be a panic.
func TestWhoFindsNoRoomIsToldBeforeAnythingIsAsked(t *testing.T) {
	full := password.New(password.Config{Queue: -1})
	if _, err := (signup{passwords: full}).handle(t.Context(), Input{}); !errors.Is(err, password.ErrBusy) {
		t.Errorf("%v, want %v", err, password.ErrBusy)
	}
}
