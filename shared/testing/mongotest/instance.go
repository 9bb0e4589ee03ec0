package mongotest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ticketing.com/auth/shared/testing/devdb"
)

// An Instance is a server of one test's own, which the test may stop, kill and
// start again. It keeps its data and its address all along, so clients that
// were connected find it again.
//
// It is always the embedded server, whatever MONGODB_URI says: nobody's
// replica set is there to be killed.
type Instance struct {
	t       testing.TB
	options devdb.Options
	server  *devdb.Server // nil while it is down
	uri     string
}

// Server starts a server for this test. It is stopped when the test ends.
func Server(t testing.TB) *Instance {
	t.Helper()
	i := &Instance{t: t, options: devdb.Options{Data: t.TempDir()}}
	if err := i.settle(); err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	t.Cleanup(i.Stop)
	uri, err := withDatabase(i.server.URI(), databaseName(t.Name()))
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	i.uri = uri
	return i
}

// URI is the server's URI, with a database in its path. It stays the same, and
// is there while the server is down, too.
func (i *Instance) URI() string { return i.uri }

// Stop stops the server as an operator would: the command in flight finishes.
// Stopping a server that is down does nothing.
func (i *Instance) Stop() {
	i.t.Helper()
	if i.server == nil {
		return
	}
	err := i.server.Stop()
	i.server = nil
	if err != nil {
		i.t.Errorf("mongotest: stop the server: %v", err)
	}
}

// Kill kills the server with SIGKILL.
func (i *Instance) Kill() {
	if i.server != nil {
		i.server.Kill()
	}
	i.server = nil
}

// Start starts the server again after Stop or Kill, on the same data and the
// same address.
func (i *Instance) Start() {
	i.t.Helper()
	if i.server != nil {
		return
	}
	server, err := start(i.options)
	if err != nil {
		i.t.Fatalf("mongotest: start the server again: %v", err)
	}
	i.server = server
}

// settle starts the server on a port that will still be free after a pause.
//
// Such a port lies below those which the kernel hands out (on Linux from 32768
// on, elsewhere higher). While the server is down, a kernel's choice could be
// its port: for some other program's connection, or for a client of ours that
// dials the closed port and, by TCP's simultaneous open, reaches itself.
func (i *Instance) settle() error {
	for attempt := 0; ; attempt++ {
		i.options.Addr = fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		server, err := start(i.options)
		if err == nil {
			i.server = server
			return nil
		}
		taken := errors.Is(err, devdb.ErrRefused) && strings.Contains(err.Error(), i.options.Addr)
		if !taken || attempt == 20 {
			return err
		}
	}
}
