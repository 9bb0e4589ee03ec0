package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// socket is FerretDB's only listener. It is in the data folder. A user with access to
// that folder can read the data anyway. All other clients must use the proxy.
const socket = "ferretdb.sock"

// startFerretDB starts FerretDB on the working directory. When it returns, the socket
// accepts connections.
//
// The embedded FerretDB has no telemetry reporter. Its log level is error: at warning
// level it would log every duplicate key, an expected reply here.
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

// pragmas returns the settings of each connection to SQLite. Without the last two, an
// update takes a third longer.
func pragmas(scratch bool) string {
	synchronous := "full"
	if scratch {
		synchronous = "off" // each commit is about twenty times faster without a wait for the disk
	}
	return "_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(" + synchronous + ")" +
		"&_pragma=temp_store(memory)&_pragma=wal_autocheckpoint(2000)"
}

func dialFerretDB() (net.Conn, error) {
	return net.Dial("unix", socket)
}
