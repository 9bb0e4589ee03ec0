// Command migrate creates the indexes of the collections that the functions use. It can run again
// at any time, and in parallel.
//
//	MONGODB_URI=mongodb://… migrate
//
// The functions never create indexes, because that would cost every cold start a round trip. Once
// per deployment is enough. The local runner does it at its start; on Kubernetes a Job runs before
// the functions.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/usage"
)

// timeout bounds the whole run. A Job that cannot reach its database fails, and Kubernetes retries
// it.
const timeout = time.Minute

const text = `usage: MONGODB_URI=mongodb://HOST/DATABASE go run ./infra/migrate

Creates the indexes of the database. It can run again at any time. All settings come from
the environment: see infra/docs/configuration.md.
`

func main() {
	help := usage.Command{Call: "go run ./infra/migrate", Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	code, end := help.Parse(new(flag.FlagSet), os.Args[1:], 0)
	if !end {
		code = run()
	}
	os.Exit(code)
}

func run() int {
	cfg := config.New(os.LookupEnv, func(o *slog.HandlerOptions) slog.Handler {
		return telemetry.LogHandler(slog.NewJSONHandler(os.Stderr, o))
	}, time.Now)
	database := mongodb.FromConfig(cfg)
	if err := cfg.Err(); err != nil {
		config.PrintError(os.Stderr, "migrate", err)
		return config.ExitSettings
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := mongodb.Prepare(ctx, database, time.Now(), cfg.Log(), needs.Collections(catalog.Functions()...)...); err != nil {
		cfg.Log().Error("migrate", "error", err)
		return 1
	}
	cfg.Log().Info("indexes are in place")
	return 0
}
