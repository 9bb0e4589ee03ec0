// Devdb is the project's database for development and tests. It is a server for
// MongoDB's wire protocol in one static binary. It starts in milliseconds and needs no
// installation.
//
// It consists of FerretDB v1 on SQLite, behind a proxy that executes one write at a
// time. See proxy for the reason.
//
// Do not use it in production. It has no users and no passwords, so it listens only on a
// loopback address. It executes one write at a time. A filter that is neither by _id nor
// by an indexed field reads the whole collection. It has no transactions, change streams
// or TTL indexes. Production uses a MongoDB replica set, with the same application code.
//
// Package shared/testing/devdb starts it as a child process, for the local runner and
// for tests. To start it by hand, run
//
//	GOWORK=off go run -tags ferretdb_no_postgresql . -data /some/folder
//
// When it is ready, it prints one line, its mongodb:// URI, and nothing more. The exit
// code is 0 after a requested stop. It is 2 if the user can fix the cause: an address in
// use, or a folder without write permission. It is 1 after any other error.
//
// SQLite runs in WAL mode with synchronous=FULL, so an acknowledged write has been
// passed to the kernel and synced. SIGKILL loses no acknowledged write, so stopping
// needs no special steps. A power failure loses none either, if the disk really stores
// synced data. (On macOS, a plain fsync does not request that from the drive.) With
// -scratch nothing is synced. A crash of the machine loses the data, and a stop deletes
// it.
//
// The module is not in go.work because FerretDB requires some sixty modules. In the
// workspace, their versions would determine those of the functions too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// drainTimeout limits how long a stop waits for the command in flight and for slow
// clients to read their replies.
const drainTimeout = 5 * time.Second

func main() {
	debug.SetGCPercent(400) // the heap is about 10 MB; the default of 100 costs a quarter of the CPU time of a command
	err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	var configErr configError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case errors.As(err, &configErr):
		fmt.Fprintln(os.Stderr, "devdb:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "devdb:", err)
		os.Exit(1)
	}
}

// run serves until a stop is requested. It does not stop FerretDB, which ends with the
// process. FerretDB's own stop waits three seconds for clients to disconnect. That wait
// is unnecessary: acknowledged writes are already in SQLite.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	settings, err := parse(args, stdout)
	if err != nil {
		return err
	}
	stop := stopRequests(settings.untilStdinCloses, stdin)

	data, err := openFolder(settings)
	if err != nil {
		return err
	}
	defer data.close()

	listener, err := listen(settings.addr)
	if err != nil {
		return err
	}
	pragmas := pragmas(settings.scratch)
	catalog, err := openCatalog(pragmas)
	if err != nil {
		return fmt.Errorf("open the data files: %w", err)
	}
	if err := startFerretDB(pragmas, stderr); err != nil {
		return err
	}

	p := newProxy(dialFerretDB, catalog, func(format string, args ...any) {
		fmt.Fprintf(stderr, "devdb: "+format+"\n", args...)
	})
	served := make(chan error, 1)
	go func() { served <- p.serve(listener) }()
	fmt.Fprintf(stdout, "mongodb://%s\n", listener.Addr())

	select {
	case <-stop:
	case err := <-served:
		return fmt.Errorf("accept connections: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	listener.Close()
	p.stop(ctx)
	return nil
}

// stopRequests returns a channel that closes when the server should stop.
//
// As a child process, the server ignores SIGINT and SIGHUP. A terminal sends these
// signals to the whole process group, but the parent may need the database for its own
// shutdown. The server stops when its standard input ends. The kernel closes standard
// input however the parent ends.
//
// A second signal has its default effect and ends the process at once.
func stopRequests(untilStdinCloses bool, stdin io.Reader) <-chan struct{} {
	// After the parent has ended, no process reads standard error. A write to it must
	// then fail instead of killing this process before its cleanup.
	signal.Ignore(syscall.SIGPIPE)

	stopSignals := []os.Signal{syscall.SIGTERM}
	if untilStdinCloses {
		signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	} else {
		stopSignals = append(stopSignals, syscall.SIGINT)
	}
	ctx, restore := signal.NotifyContext(context.Background(), stopSignals...)
	context.AfterFunc(ctx, restore)
	if untilStdinCloses {
		go func() {
			io.Copy(io.Discard, stdin)
			restore()
		}()
	}
	return ctx.Done()
}

// listen opens the public address.
func listen(addr *net.TCPAddr) (net.Listener, error) {
	listener, err := net.ListenTCP("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, configErrorf("%s is already in use: choose another address with -addr", addr)
	case err != nil:
		return nil, configErrorf("cannot listen on %s: %v", addr, rootCause(err))
	}
	return listener, nil
}
