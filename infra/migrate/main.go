// Command migrate creates the indexes that the user store requires, and the index that deletes
// expired rate limit counters. It can run again at any time, and in parallel.
//
//	MONGODB_URI=mongodb://… migrate
//
// The functions never create indexes, because that would cost every cold start a round trip. Once
// per deployment is enough. The local runner does it at its start; on Kubernetes a Job runs before
// the functions.
package main

import (
	"cmp"
	"context"
	"flag"
	"log/slog"
	"os"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/usage"
	"ticketing.com/auth/shared/user"
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
	cfg := config.New(os.LookupEnv, func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(os.Stderr, o) }, time.Now)
	users, counts := user.FromConfig(cfg, nil), ratelimit.FromConfig(cfg)
	if err := cfg.Err(); err != nil {
		config.PrintError(os.Stderr, "migrate", err)
		return config.ExitSettings
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := cmp.Or(users.Prepare(ctx), counts.Prepare(ctx)); err != nil {
		cfg.Log().Error("migrate", "error", err)
		return 1
	}
	cfg.Log().Info("indexes are in place")
	return 0
}
