// Command migrate creates the indexes that the user store relies on, and that which
// deletes expired counters of the rate limits. It may be
// run again, and by several at once.
//
//	MONGODB_URI=mongodb://… migrate
//
// The functions never do this themselves: it would cost every cold start a round
// trip for something that is needed once a deployment. The local runner does it
// at its start; on Kubernetes it is a Job that runs before the functions.
package main

import (
	"cmp"
	"context"
	"flag"
	"log/slog"
	"os"
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/usage"
	"ticketing.com/auth/shared/user"
)

// wait bounds the whole run: a Job that cannot reach its database should fail,
// and be tried again by Kubernetes.
const wait = time.Minute

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
	w := app.New(os.LookupEnv, func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(os.Stderr, o) }, time.Now)
	users, counts := user.Wire(w, nil), ratelimit.Wire(w)
	if err := w.Err(); err != nil {
		app.Complain(os.Stderr, "migrate", err)
		return app.ExitSettings
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := cmp.Or(users.Prepare(ctx), counts.Prepare(ctx)); err != nil {
		w.Log().Error("migrate", "error", err)
		return 1
	}
	w.Log().Info("indexes are in place")
	return 0
}
