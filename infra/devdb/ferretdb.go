package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// socket is FerretDB's only listener, in the data folder: whoever may enter
// that folder owns the data anyway, and nobody else gets past the gate.
const socket = "ferretdb.sock"

// startFerretDB starts FerretDB on the working directory. When it returns, the
// socket accepts connections.
//
// The embedded FerretDB has no telemetry reporter to run, and says so to its
// own state. Its log is cut down to errors: it would warn of every duplicate
// key, which for us is an ordinary answer.
func startFerretDB(pragmas string, stderr io.Writer) error {
	database, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Handler:   "sqlite",
		SQLiteURL: "file:./?" + pragmas,
		Logger:    slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return fmt.Errorf("start FerretDB: %w", err)
	}
	go database.Run(context.Background())
	return nil
}

// pragmas returns the settings of each connection to SQLite. Without the last two an
// update costs a third more.
func pragmas(scratch bool) string {
	synchronous := "full"
	if scratch {
		synchronous = "off" // no need to wait for the disk: each commit is some twenty times faster
	}
	return "_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(" + synchronous + ")" +
		"&_pragma=temp_store(memory)&_pragma=wal_autocheckpoint(2000)"
}

func dialFerretDB() (net.Conn, error) {
	return net.Dial("unix", socket)
}
