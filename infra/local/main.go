// Command local runs the whole system on one port, for development. It serves each function of
// the catalog on its route, starts an embedded database, and generates keys at its first start.
//
//	go run ./infra/local [-addr 127.0.0.1:8080] [-data .data] [-watch] [-observe]
//
// With -watch it builds and restarts the functions each time a source file is saved. With -observe it
// records spans and metrics, and shows them at /observe.
//
// The API reference is at /docs, and the event reference at /asyncapi.yaml. The mails that the system
// would send are at /mail, and the pages that their links lead to are below /confirm.
//
// It reads the settings of the functions from the environment. With MONGODB_URI it starts no
// embedded database; with SIGNING_KEYS or VERIFYING_KEYS it generates no keys of tokens, and with
// MAIL_KEYS none of mails. With SMTP_URL it sends mails, and catches none. On a loopback
// address the default of EVENTS is insecure: the runner accepts events from any client. It also
// accepts introspection from any client there.
//
// Do not use it in production: the embedded database has no passwords and is slow with many
// users.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"ticketing.com/auth/infra/asyncapi"
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/local/mailbox"
	"ticketing.com/auth/infra/local/observe"
	"ticketing.com/auth/infra/local/pages"
	"ticketing.com/auth/infra/openapi"
	"ticketing.com/auth/infra/openapi/docs"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/mail"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/testing/devdb"
	"ticketing.com/auth/shared/usage"
)

const (
	call = "go run ./infra/local"
	text = `usage: ` + call + ` [flags]

  -addr address   the address to listen on (127.0.0.1:8080)
  -data folder    the folder of the embedded database and the keys (.data)
  -watch          build and restart on every save; stored data stays
  -observe        record traces and metrics, and show them at /observe

Other settings come from the environment: see infra/docs/configuration.md.
`
)

type options struct {
	addr, data string
	observe    bool
	socket     int // to serve until standard input closes, or 0: see watch.go
}

func main() {
	flags, o := new(flag.FlagSet), options{}
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8080", "")
	flags.StringVar(&o.data, "data", ".data", "")
	flags.BoolVar(&o.observe, "observe", false, "")
	watching := flags.Bool("watch", false, "")
	flags.IntVar(&o.socket, "socket", 0, "")
	help := usage.Command{Call: call, Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	if code, end := help.Parse(flags, os.Args[1:], 0); end {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C stops the process at once
	if o.socket > 0 {
		ctx = untilStdinCloses()
	}
	if o.observe && setting("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		os.Exit(fail(errors.New("-observe shows what OTEL_EXPORTER_OTLP_ENDPOINT would export: use one of them")))
	}
	if *watching {
		if err := watch(ctx, o); err != nil && !stopped(ctx, err) {
			os.Exit(fail(err))
		}
		return
	}
	os.Exit(run(ctx, o))
}

func run(ctx context.Context, o options) (code int) {
	files, err := keys(filepath.Join(o.data, "keys"))
	if err != nil {
		return fail(err)
	}
	listener, err := listen(o.addr, o.socket)
	if err != nil {
		return fail(err)
	}
	defer listener.Close()
	mailKeys, err := mailKeys(filepath.Join(o.data, "keys"))
	if err != nil {
		return fail(err)
	}
	box, err := catchMails()
	if err != nil {
		return fail(err)
	}
	defer box.Stop()
	added := []map[string]string{files, mailKeys, mails(listener.Addr(), box), events(listener.Addr()), introspection(listener.Addr())}
	// validates the settings before the database is built and started
	check := config.New(environment(append(added, map[string]string{"MONGODB_URI": cmp.Or(setting("MONGODB_URI"), "mongodb://127.0.0.1")})...), logs, time.Now)
	mongodb.FromConfig(check)
	httpserver.Handler(check, catalog.Usable(check)...)
	if err := check.Err(); err != nil {
		config.PrintError(os.Stderr, "local", err)
		return config.ExitSettings
	}
	if err := serve(ctx, listener, o, box, added); err != nil && !stopped(ctx, err) {
		return fail(err)
	}
	return 0
}

func listen(addr string, socket int) (net.Listener, error) {
	if socket > 0 {
		return net.FileListener(os.NewFile(uintptr(socket), "socket"))
	}
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use: choose another address with -addr", addr)
	}
	return listener, err
}

// stopped reports whether the error is the cancellation of ctx by a signal.
func stopped(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}

func fail(err error) (code int) {
	fmt.Fprintln(os.Stderr, "local:", err)
	return 1
}

// serve starts the database and the functions, in the order of their dependencies. It stops them
// in the reverse order.
func serve(ctx context.Context, listener net.Listener, o options, box *mailbox.Box, added []map[string]string) error {
	ctx, uri, stop, err := database(ctx, filepath.Join(o.data, "mongod"))
	if err != nil {
		return err
	}
	defer stop()
	cfg := config.New(environment(append(added, uri)...), logs, time.Now)
	var recorder *observe.Recorder
	if o.observe {
		if recorder, err = observe.Start(cfg); err != nil {
			return err
		}
	}
	all := catalog.Usable(cfg)
	handler := httpserver.Handler(cfg, all...)
	if err := cfg.Err(); err != nil {
		return err
	}
	documents, err := references()
	if err != nil {
		return fmt.Errorf("references: %w", err)
	}
	handler = pages.Handler(docs.Handler(documents, handler))
	if isLoopback(listener.Addr()) { // others must not read the tokens in the mails
		handler = mailbox.Handler(box, mail.FromConfig(cfg), handler)
	}
	if o.observe {
		handler = observe.Handler(recorder, handler)
	}
	defer closeDatabase(cfg)
	if err := mongodb.Prepare(ctx, mongodb.FromConfig(cfg), time.Now(), cfg.Log(), needs.Collections(all...)...); err != nil {
		return err
	}
	printRoutes(os.Stdout, listener.Addr(), all, cfg.Text("EVENTS", "off"), cfg.Text("INTROSPECTION_CLIENTS", ""))
	printMail(os.Stdout, listener.Addr(), box)
	if o.observe {
		fmt.Printf("Traces and metrics are at http://%s%s\n", listener.Addr(), observe.Path)
	}
	if uri != nil || added[0] != nil {
		fmt.Printf("\nData is stored in %s. Press Ctrl-C to stop.\n", o.data)
	}
	if err := httpserver.Serve(ctx, listener, handler, cfg.Log()); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// references returns the documents that describe the whole system, whatever this process serves.
func references() (d docs.Documents, err error) {
	functions := catalog.Functions()
	if d.OpenAPI, err = openapi.Document(functions); err != nil {
		return d, err
	}
	if d.AsyncAPI, err = asyncapi.Document(functions); err != nil {
		return d, err
	}
	d.Schemas = map[string][]byte{}
	for _, t := range asyncapi.Types(functions) {
		if d.Schemas[event.SchemaPath(t.Name)], err = asyncapi.Schema(t); err != nil {
			return d, err
		}
	}
	return d, nil
}

// closeDatabase closes the connections to the database. It waits at most 1 s, because the
// database may have stopped.
func closeDatabase(cfg *config.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	cfg.Close(ctx)
}

// environment returns a lookup of the added settings, and then of the process environment.
func environment(added ...map[string]string) config.Lookup {
	return func(name string) (string, bool) {
		for _, m := range added {
			if s, ok := m[name]; ok {
				return s, true
			}
		}
		return os.LookupEnv(name)
	}
}

// setting returns a setting of the process, as package config reads it.
func setting(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// keys returns the settings of a folder of keys, and generates the keys at the first start. It
// returns nil if the environment has keys.
func keys(dir string) (map[string]string, error) {
	for _, name := range []string{"SIGNING_KEYS", "SIGNING_KEYS_FILE", "VERIFYING_KEYS", "VERIFYING_KEYS_FILE"} {
		if setting(name) != "" {
			return nil, nil
		}
	}
	files, err := keyring.Ensure(dir, time.Now())
	return map[string]string{"SIGNING_KEYS_FILE": files.Signing, "VERIFYING_KEYS_FILE": files.Verifying}, err
}

// mailKeys returns the setting of the keys of mails, and generates a key at the first start. It
// returns nil if the environment has keys.
func mailKeys(dir string) (map[string]string, error) {
	if setting("MAIL_KEYS")+setting("MAIL_KEYS_FILE") != "" {
		return nil, nil
	}
	file, err := keyring.EnsureMail(dir)
	return map[string]string{"MAIL_KEYS_FILE": file}, err
}

// catchMails starts a box that catches the mails. It returns nil if the environment has SMTP_URL.
func catchMails() (*mailbox.Box, error) {
	if setting("SMTP_URL")+setting("SMTP_URL_FILE") != "" {
		return nil, nil
	}
	return mailbox.Start("127.0.0.1:0", nil)
}

// mails returns the settings of mails that the environment does not have. The box is nil if mails are
// sent. The links in mails lead to the runner.
func mails(addr net.Addr, box *mailbox.Box) map[string]string {
	all := map[string]string{}
	if box != nil {
		all["SMTP_URL"] = box.URL()
		if setting("MAIL_FROM") == "" {
			all["MAIL_FROM"] = "Ticketing <no-reply@ticketing.example>"
		}
	}
	if setting("PUBLIC_URL") == "" {
		all["PUBLIC_URL"] = "http://" + addr.String()
		if tcp, is := addr.(*net.TCPAddr); is && !isLoopback(addr) { // an origin without TLS must be on loopback
			all["PUBLIC_URL"] = fmt.Sprintf("http://localhost:%d", tcp.Port)
		}
	}
	return all
}

// events returns the setting EVENTS if the environment has none. On a loopback address any client
// may send events, because other machines cannot reach it.
func events(addr net.Addr) map[string]string {
	if setting("EVENTS") == "" && isLoopback(addr) {
		return map[string]string{"EVENTS": "insecure"}
	}
	return nil
}

// introspection returns the setting INTROSPECTION_CLIENTS if the environment has none. On a
// loopback address any client may introspect tokens, and on another one no client.
func introspection(addr net.Addr) map[string]string {
	value := identity.OpenToAll
	switch {
	case setting("INTROSPECTION_CLIENTS")+setting("INTROSPECTION_CLIENTS_FILE") != "":
		return nil
	case !isLoopback(addr):
		value = "none:" + rand.Text()
	}
	return map[string]string{"INTROSPECTION_CLIENTS": value}
}

func isLoopback(addr net.Addr) bool {
	tcp, is := addr.(*net.TCPAddr)
	return is && tcp.IP.IsLoopback()
}

// database starts the embedded database on a folder and returns the setting of its address. It
// starts none if the environment has MONGODB_URI. The context that it returns is cancelled when
// the database stops.
func database(ctx context.Context, dir string) (running context.Context, uri map[string]string, stop func(), err error) {
	if setting("MONGODB_URI") != "" {
		return ctx, nil, func() {}, nil
	}
	server, err := devdb.Start(ctx, devdb.Options{
		Data:     dir,
		Progress: func(s string) { fmt.Fprintln(os.Stderr, s) },
	})
	if err != nil {
		return nil, nil, nil, err
	}
	running, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case err := <-server.UnexpectedExit():
			cancel(fmt.Errorf("the database stopped: %w", err))
		case <-running.Done():
		}
	}()
	stop = func() {
		cancel(nil)
		server.Stop() // UnexpectedExit reports the error if the database stopped by itself
	}
	return running, map[string]string{"MONGODB_URI": server.URI()}, stop, nil
}

// logs returns a handler that writes text to a terminal, and JSON to anything else.
func logs(o *slog.HandlerOptions) slog.Handler {
	if info, err := os.Stderr.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return telemetry.LogHandler(slog.NewJSONHandler(os.Stderr, o))
	}
	o.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
		switch {
		case a.Key == slog.TimeKey:
			return slog.String(a.Key, a.Value.Time().Format(time.TimeOnly))
		case a.Key == slog.LevelKey && a.Value.String() == "INFO", a.Key == slog.MessageKey && a.Value.String() == "request":
			return slog.Attr{}
		}
		return a
	}
	return telemetry.LogHandler(slog.NewTextHandler(os.Stderr, o))
}

// printMail prints what happens to mails.
func printMail(out io.Writer, addr net.Addr, box *mailbox.Box) {
	switch {
	case box == nil:
		fmt.Fprintln(out, "\nMails are sent to the server of SMTP_URL.")
	case isLoopback(addr):
		fmt.Fprintf(out, "\nMails are not sent. Read them at http://%s%s\n", addr, mailbox.Path)
	default:
		fmt.Fprintln(out, "\nMails are not sent, and not shown: other machines can reach this address. Set SMTP_URL to send them.")
	}
}

func printRoutes(out io.Writer, addr net.Addr, functions []endpoint.Function, events, introspection string) {
	fmt.Fprintf(out, "The auth system is at http://%s\n\n", addr)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range functions {
		for _, e := range f.Endpoints {
			fmt.Fprintf(t, "  %s\t%s\t%s\n", e.Method, e.Path, e.Summary)
		}
	}
	for _, f := range functions {
		for _, r := range f.Receivers {
			for _, kind := range r.Types {
				if events != "off" {
					fmt.Fprintf(t, "  event\t%s\t→ %s\n", kind.Name, f.Name)
				}
			}
		}
	}
	fmt.Fprintf(t, "  GET\t%s\tRead the API reference and try the API.\n", docs.Path)
	fmt.Fprintf(t, "  GET\t%s\tRead the event reference.\n", docs.EventsPath)
	t.Flush()
	if events == "insecure" {
		fmt.Fprintf(out, "\nAny client that reaches http://%s/ can create accounts and end sessions by event, without a token (EVENTS=insecure).\nSet EVENTS=off to reject all events.\n", addr)
	}
	if introspection == identity.OpenToAll {
		fmt.Fprintln(out, "Any client can introspect tokens and read the revocation feed. In a cluster, only services inside it can.")
	}
}
