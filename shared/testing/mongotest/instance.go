package mongotest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"ticketing.com/auth/shared/testing/devdb"
)

// An Instance is the server of a single test, which can stop, kill and restart it. The server
// keeps its data and its address, so connected clients can reconnect.
//
// It is always the embedded server, even with MONGODB_URI: a test must not kill a replica set
// that others may use.
type Instance struct {
	t       testing.TB
	options devdb.Options
	server  *devdb.Server // nil while it is stopped
	uri     string
}

// Server starts a server for this test. The end of the test stops the server.
func Server(t testing.TB) *Instance {
	t.Helper()
	i := &Instance{t: t, options: devdb.Options{Data: t.TempDir()}}
	if err := i.startFirst(); err != nil {
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

// URI returns the server's URI, with a database in its path. It never changes, also while the
// server is stopped.
func (i *Instance) URI() string { return i.uri }

// Stop stops the server as an operator would: the command in flight completes. Stop of a
// stopped server does nothing.
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

// Start restarts the server after Stop or Kill, with the same data and the same address.
func (i *Instance) Start() {
	i.t.Helper()
	if i.server != nil {
		return
	}
	server, err := start(i.options)
	if err != nil {
		i.t.Fatalf("mongotest: restart the server: %v", err)
	}
	i.server = server
}

// startFirst starts the server on a port that is still free after Stop or Kill.
//
// The port is below the ephemeral ports of the kernel (on Linux from 32768, elsewhere higher).
// While the server is stopped, the kernel could give an ephemeral port to a connection of
// another program. It could also give it to a client of the test that dials the closed port:
// by TCP's simultaneous open, that client connects to itself.
func (i *Instance) startFirst() error {
	for attempt := 0; ; attempt++ {
		i.options.Addr = fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		server, err := start(i.options)
		if err == nil {
			i.server = server
			return nil
		}
		inUse := errors.Is(err, devdb.ErrRefused) && strings.Contains(err.Error(), i.options.Addr)
		if !inUse || attempt == 20 {
			return err
		}
	}
}
