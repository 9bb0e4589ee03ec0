// Package httpserver runs a process that serves functions: it configures them, listens, and
// shuts down gracefully. It contains the transports for HTTP and AWS Lambda. A transport
// converts a request to an endpoint.Request and writes the endpoint.Response. It does not
// depend on any function. The receiver of events is in package receiver, and only functions
// with events link it.
//
// The programs of the functions call Main. The local runner and the tests call the other
// functions.
package httpserver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/memory"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/usage"
)

// Exit codes, beside config.ExitSettings.
const (
	exitSuccess = 0
	exitFailure = 1
)

// readTimeout is how long a client may take to send a request, headers and body.
const readTimeout = 5 * time.Second

// drainTimeout is how long a shutdown waits for in-flight requests and for the work after their
// responses. The relay's requests take up to 25 s. Kubernetes and Knative grant 30 s for the whole shutdown. It also includes up to 1 s for
// first requests and up to 1 s to close the connection to the database. 1 s is in reserve.
const drainTimeout = 27 * time.Second

// Main runs a process that serves the given functions until SIGTERM or an interrupt. All
// settings come from the environment. Main does not return.
func Main(functions ...endpoint.Function) {
	MainFunc(func(*config.Config) []endpoint.Function { return functions })
}

// MainFunc is Main for a process whose settings determine its functions.
func MainFunc(choose func(*config.Config) []endpoint.Function) {
	if len(os.Args) > 1 {
		help := usage.Command{Call: filepath.Base(os.Args[0]), Stdout: os.Stdout, Stderr: os.Stderr}
		help.Text = describe(help.Call, choose)
		if code, end := help.Parse(new(flag.FlagSet), os.Args[1:], 0); end {
			os.Exit(code)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := Run(ctx, os.LookupEnv, os.Stderr, choose)
	stop()
	os.Exit(code)
}

// describe returns the usage of a process. It lists the endpoints and receivers for an empty environment.
func describe(call string, choose func(*config.Config) []endpoint.Function) string {
	unset := func(string) (string, bool) { return "", false }
	discard := func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }
	text := fmt.Sprintf("usage: %s\n\n", call)
	for _, f := range choose(config.New(unset, discard, time.Now)) {
		for _, e := range f.Endpoints {
			text += fmt.Sprintf("Serves %s %s: %s\n", e.Method, e.Path, e.Summary)
		}
		for _, r := range f.Receivers {
			text += fmt.Sprintf("Serves events: %s\n", r.Summary)
		}
	}
	return text + "All settings come from the environment: see infra/docs/configuration.md.\n"
}

// Run is MainFunc with an explicit environment and log output. It returns the exit code.
func Run(ctx context.Context, lookup config.Lookup, stderr io.Writer, choose func(*config.Config) []endpoint.Function) int {
	cfg := config.New(lookup, func(o *slog.HandlerOptions) slog.Handler { return telemetry.LogHandler(slog.NewJSONHandler(stderr, o)) }, time.Now)
	functions := choose(cfg)
	handler := Handler(cfg, functions...)
	port := cfg.Number("PORT", 8080, 0, 65535)
	onLambda := cfg.Text(lambdaSetting, "") != ""
	if err := cfg.Err(); err != nil {
		config.PrintError(stderr, names(functions), err)
		return config.ExitSettings
	}
	if onLambda {
		serveLambda(ctx, handler, telemetry.FromConfig(cfg)) // does not return
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("port %d is in use: choose another with PORT", port)
	}
	if err != nil {
		config.PrintError(stderr, names(functions), err)
		return exitFailure
	}
	cfg.Log().Info("listening", "function", names(functions), "port", listener.Addr().(*net.TCPAddr).Port)
	err = errors.Join(Serve(ctx, listener, handler, cfg.Log()), closed(cfg))
	if err != nil {
		cfg.Log().Error("stopped", "error", err)
		return exitFailure
	}
	return exitSuccess
}

// Serve answers requests on a listener until the context ends. Then it drains in-flight
// requests, including the first request of each connection that the server has accepted, and
// the work after their responses (see endpoint.Later).
//
// Beyond MaxConnections, further connections wait in the listener's backlog.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:                      handler,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 40 * time.Second, // from the end of the headers: above the longest budget
		IdleTimeout:                  2 * time.Minute,  // above the 90 s of Go clients such as Knative's proxies
		MaxHeaderBytes:               maxHeader - 4096, // net/http adds 4096
		DisableGeneralOptionsHandler: true,             // OPTIONS * is an unknown path like any other
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	pending := track(server)
	later := runLater(server, log)
	listener = newLimitListener(listener, MaxConnections(memory.Limit()))
	stop := context.AfterFunc(ctx, func() {
		server.SetKeepAlivesEnabled(false) // each response closes its connection from now on
		listener.Close()
	})
	defer stop()
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	pending.wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	return errors.Join(server.Shutdown(ctx), later.wait(ctx))
}

// maxHeader is the limit of a request's header fields and request line, in bytes: the
// longest token, and as much again.
const maxHeader = 16 << 10

// connectionMemory is what a connection can occupy: its buffers and stacks, its headers in
// parsed form, and a body of 64 KiB. It does not cover thousands of tiny header lines,
// which occupy up to 450 KB until they are rejected; the proxy in front limits those.
const connectionMemory = 96 << 10

// MaxConnections returns the number of connections that a process accepts, given its memory
// in bytes: a third of the memory is for connections, half is for password hashes (see
// package password).
func MaxConnections(memory int64) int { return int(max(min(memory/3/connectionMemory, 4096), 16)) }

func closed(cfg *config.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return cfg.Close(ctx)
}

func names(functions []endpoint.Function) string {
	var all []string
	for _, f := range functions {
		all = append(all, f.Name)
	}
	return strings.Join(all, ", ")
}
