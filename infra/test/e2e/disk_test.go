package e2e_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/shared/testing/devdb"
)

// TestFaultsOfTheDisk fills the disk of the embedded database: what must be written
// is refused as by a database that is away, what can be read is read, and when there
// is room again all goes on.
func TestFaultsOfTheDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("left out: a small disk cannot be mounted here (%v); it takes root", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	db, err := devdb.Start(t.Context(), devdb.Options{Data: filepath.Join(disk, "data")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Kill)
	uri, sink := db.URI()+"/users", newSink(t)
	s := startWithEvents(t, uri, sink, rateLimitsOn...)
	crowd := startWorkload(s, 4, 10*time.Millisecond, false)
	crowd.awaitCompleted(t, 4)
	filler := filepath.Join(disk, "filler")
	file, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for time.Since(began) < max(2*time.Second, *faultDuration) { // what the database frees is filled as well
		if _, err := io.CopyN(file, zeroReader{}, 4<<10); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		} else if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
	file.Close()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	crowd.awaitCompleted(t, 4)
	crowd.stopAndWait()
	full := 0
	for _, function := range []string{"signup", "signin", "refresh", "signout"} {
		full += crowd.counts[function+" 503"]
	}
	if full == 0 {
		t.Error("the disk was never full")
	}
	crowd.checkInvariants(t, uri, sink)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }
