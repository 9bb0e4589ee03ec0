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

// TestFaults_DiskFull fills the disk of the embedded database. Writes must fail with 503, as
// they do without a database, and reads must succeed. When the disk has free space again, writes
// must succeed without a restart.
func TestFaults_DiskFull(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("cannot mount a small disk: %v; run the test as root", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	db, err := devdb.Start(t.Context(), devdb.Options{Data: filepath.Join(disk, "data")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Kill)
	uri, sink := db.URI()+"/users", newSink(t)
	s := startWithEvents(t, uri, sink, rateLimitsOn...)
	load := startWorkload(s, 4, 10*time.Millisecond, false)
	load.awaitCompleted(t, 4)
	filler := filepath.Join(disk, "filler")
	file, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for time.Since(began) < max(2*time.Second, *faultDuration) { // also fill the space that the database frees
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
	load.awaitCompleted(t, 4)
	load.stopAndWait()
	rejected := 0
	for _, function := range []string{"signup", "signin", "refresh", "signout"} {
		rejected += load.counts[function+" 503"]
	}
	if rejected == 0 {
		t.Error("got no 503 while the disk was full, want at least one")
	}
	load.checkInvariants(t, uri, sink)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }
