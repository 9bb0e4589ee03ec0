// Command tickets is an example of another team's service on the platform. Users create tickets,
// change them and transfer them to other users.
//
// It uses only what is public about the auth system: its tokens, verified by package bearer, and its
// events. The file api.go has the routes, store.go the database, and events.go the events that it
// sends and receives. The page infra/docs/add-a-service.md explains it.
//
// The settings are environment variables:
//
//	MONGODB_URI  the database, with its name in the path (tickets without one)
//	K_SINK       the URL that receives events; without it, no events are stored
//	PORT         the port to listen on (8080)
//
// The settings of package bearer are in infra/docs/verify-tokens-go.md. VERIFYING_KEYS,
// VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL must be set. REVOCATIONS_URL makes the service see
// sign-outs.
package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"ticketing.com/auth/shared/bearer"
)

var log = slog.New(slog.NewJSONHandler(os.Stderr, nil))

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		log.Error("the service ended", "error", err)
		os.Exit(1)
	}
}

// run serves until the context is cancelled. Then it finishes the requests in flight. No error
// contains a setting, because a setting may be a secret.
func run(ctx context.Context, env func(string) string) error {
	setting := func(name, standard string) string { return cmp.Or(strings.TrimSpace(env(name)), standard) }
	verifier, invalid := bearer.FromEnv(env, func(c *bearer.Config) { c.Log = log })
	store, invalidURI := newStore(setting("MONGODB_URI", ""), setting("K_SINK", ""))
	if err := errors.Join(invalid, invalidURI); err != nil {
		return err
	}
	defer store.close()
	listener, err := net.Listen("tcp", ":"+setting("PORT", "8080"))
	if err != nil {
		return errors.New("PORT is not a port, or it is in use")
	}
	server := &http.Server{
		Handler:           (&service{store, verifier}).routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	go store.prepare(ctx) // a start does not wait for the database
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	log.Info("listening", "port", listener.Addr().(*net.TCPAddr).Port)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	err = server.Shutdown(drain)
	store.deliver(drain) // the events of the last requests
	return err
}
