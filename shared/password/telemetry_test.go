package password

import (
	"errors"
	"testing"

	"ticketing.com/auth/shared/testing/otlptest"
)

// A hash without a slot counts as refused, and each hash as a wait.
func TestHasher_Telemetry(t *testing.T) {
	c := otlptest.New(t)
	h := New(Config{MemoryKiB: 64, Time: 1, Concurrency: 1, Queue: -1, Telemetry: c.Telemetry(t)})
	if _, err := h.Hash(t.Context(), "a password"); err != nil {
		t.Fatal(err)
	}
	release := fill(t, h.limit())
	if _, err := h.Hash(t.Context(), "a password"); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v, want %v", err, ErrBusy)
	}
	release()
	h.telemetry.Flush(t.Context())
	if got := c.Sum(t, "auth.password_hash.refusals", "")[""]; got != 1 {
		t.Errorf("got %v refusals, want 1", got)
	}
	if got := c.Sum(t, "auth.password_hash.wait.duration", "")[""]; got != 2 {
		t.Errorf("got %v waits, want 2", got)
	}
}
