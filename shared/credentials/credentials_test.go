package credentials

import (
	"errors"
	"testing"

	"ticketing.com/auth/shared/password"
)

// The checker has no other parts, so a query of the database would panic.
func TestCheck_NoFreeHashSlot(t *testing.T) {
	full := password.New(password.Config{Queue: -1})
	if err := (&Checker{passwords: full}).Check(t.Context(), Claim{}, nil); !errors.Is(err, password.ErrBusy) {
		t.Errorf("got %v, want %v", err, password.ErrBusy)
	}
}

func TestDevice_Form(t *testing.T) {
	device := NewDevice()
	if wellFormed(device) != device || device == NewDevice() || Digest(device) == Digest(NewDevice()) || len(Digest(device)) != 32 {
		t.Errorf("device token %q, digest %q; want unique ones, and a digest of 32 characters", device, Digest(device))
	}
	if got := Device(device); got != device {
		t.Errorf("Device(%q) = %q, want the same token", device, got)
	}
	if got := Device(device[:21]); wellFormed(got) == "" {
		t.Errorf("Device of a malformed token = %q, want a new token", got)
	}
	for _, s := range []string{"", device[:21], device + "A", device[:21] + "\n", device[:21] + "=", device[:21] + "+", " " + device, device + "\n"} {
		if got := wellFormed(s); got != "" {
			t.Errorf("wellFormed(%q) = %q, want an empty string", s, got)
		}
	}
}
