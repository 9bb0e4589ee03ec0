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
func startFerretDB(scratch bool, stderr io.Writer) error {
	uri := "file:./"
	if scratch {
		// No need to wait for the disk: each commit is some twenty times faster.
		uri += "?_pragma=synchronous(off)"
	}
	database, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Handler:   "sqlite",
		SQLiteURL: uri,
		Logger:    slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return fmt.Errorf("start FerretDB: %w", err)
	}
	go database.Run(context.Background())
	return nil
}

func dialFerretDB() (net.Conn, error) {
	return net.Dial("unix", socket)
}
