// Command dev runs a service beside the local runner, for development. It starts an embedded
// database for the service, and sets MONGODB_URI, VERIFYING_KEYS_FILE and PORT:
//
//	GOWORK=off go run ./dev [-data folder] COMMAND…
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"ticketing.com/auth/shared/testing/devdb"
)

func main() {
	data := flag.String("data", filepath.Join("..", "..", "..", ".data"), "the `folder` of the local runner")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "dev: a command is missing, such as: go run ./dev go run .")
		os.Exit(2)
	}
	code, err := run(*data, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
	}
	os.Exit(code)
}

// run runs the command and returns its exit code.
func run(data string, command []string) (code int, err error) {
	data, err = filepath.Abs(data)
	if err != nil {
		return 1, err
	}
	// A terminal sends Ctrl-C to the command too. The database stops after the command.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	server, err := devdb.Start(context.Background(), devdb.Options{
		Data:     filepath.Join(data, "tickets"),
		Progress: func(s string) { fmt.Fprintln(os.Stderr, s) },
	})
	if err != nil {
		return 1, err
	}
	defer server.Stop()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append([]string{"PORT=8081"}, append(os.Environ(),
		"MONGODB_URI="+server.URI()+"/tickets",
		"VERIFYING_KEYS_FILE="+filepath.Join(data, "keys", "verifying.jwks"))...)
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return cmd.ProcessState.ExitCode(), nil
	}
	return code, err
}
