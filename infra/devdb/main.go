// Mongod is the project's database for development and tests: a server that
// speaks MongoDB's wire protocol, in one static binary that starts in
// milliseconds and wants nothing installed.
//
// It is FerretDB v1 on SQLite, and in front of it a gate of our own which executes
// one write at a time (see gate for why nothing would be right without it).
//
// It is not for production. It executes one write at a time, a filter that is
// neither by _id nor by an indexed field reads the whole collection, there are no
// users or passwords, hence it listens on a loopback address and on nothing else,
// and it has no transactions, change streams or TTL indexes. Production is a
// MongoDB replica set; the code in front of the two is the same.
//
// It is started by shared/testing/devdb, as a child process, for the local runner
// and for tests; by hand with
//
//	GOWORK=off go run -tags ferretdb_no_postgresql . -data /some/folder
//
// Once it answers it prints one line, its mongodb:// URI, and then nothing
// more. Its exit code is 0 when it was told to stop, 2 when it cannot start
// for a reason the caller can mend (an address in use, a folder it may not
// write), 1 for anything else.
//
// What a write is worth: SQLite runs in WAL mode with synchronous=FULL, so an
// acknowledged write has been handed to the kernel and synced. Killing the
// process, even with SIGKILL, loses nothing, which is why stopping needs no
// ceremony. A loss of power loses nothing either where the disk keeps what it
// says it has synced (on macOS a plain fsync does not ask the drive for that).
// With -scratch nothing is synced: the data outlives no crash of the machine,
// and is deleted anyway.
//
// The module stands outside go.work because FerretDB brings some sixty modules along,
// whose versions would otherwise be chosen for the functions too.
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

// grace is how long a stop waits for the command in flight and for its reply
// to be taken by a client that may be slow to read.
const grace = 5 * time.Second

func main() {
	debug.SetGCPercent(400) // of some ten megabytes that live: a quarter of the work of a command otherwise
	err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	var mendable refusal
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		os.Exit(0)
	case errors.As(err, &mendable):
		fmt.Fprintln(os.Stderr, "devdb:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "devdb:", err)
		os.Exit(1)
	}
}

// run serves until it is told to stop. FerretDB is left to the end of the
// process: its own stop waits three seconds for clients to go, for nothing,
// since what it has acknowledged is already in SQLite.
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

	g := newGate(dialFerretDB, catalog, func(format string, args ...any) {
		fmt.Fprintf(stderr, "devdb: "+format+"\n", args...)
	})
	broken := make(chan error, 1)
	go func() { broken <- g.serve(listener) }()
	fmt.Fprintf(stdout, "mongodb://%s\n", listener.Addr())

	select {
	case <-stop:
	case err := <-broken:
		return fmt.Errorf("accept connections: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	listener.Close()
	g.stop(ctx)
	return nil
}

// stopRequests answers a channel that closes when the server should stop.
//
// As a child process it ignores what a terminal sends to the whole process
// group (Ctrl-C, hanging up), because the parent may still want the database
// for its own way out. It stops when its standard input ends, and the kernel
// sees to that however the parent dies.
//
// A second signal meets the default handling and ends the process at once.
func stopRequests(untilStdinCloses bool, stdin io.Reader) <-chan struct{} {
	// A parent that is gone reads no standard error: a warning must fail, not
	// kill this process before it has cleaned up.
	signal.Ignore(syscall.SIGPIPE)

	asked := []os.Signal{syscall.SIGTERM}
	if untilStdinCloses {
		signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	} else {
		asked = append(asked, syscall.SIGINT)
	}
	ctx, restore := signal.NotifyContext(context.Background(), asked...)
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
		return nil, refuse("%s is already in use: choose another address with -addr", addr)
	case err != nil:
		return nil, refuse("cannot listen on %s: %v", addr, cause(err))
	}
	return listener, nil
}
