package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// parse parses the command line. It ends the process after it has written the help to
// standard output, or a one-line error to standard error. Package shared/usage does the
// same for the workspace.
func parse() {
	name := filepath.Base(os.Args[0])
	flag.CommandLine.Init(name, flag.ContinueOnError)
	flag.CommandLine.SetOutput(io.Discard)
	err := flag.CommandLine.Parse(os.Args[1:])
	if err == nil && flag.NArg() > 0 {
		err = errors.New("unexpected argument")
	}
	if errors.Is(err, flag.ErrHelp) {
		fmt.Printf("usage: %s [flags]\n\n", name)
		flag.CommandLine.SetOutput(os.Stdout)
		flag.PrintDefaults()
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v: run \"%[1]s -h\" for help\n", name, err)
		os.Exit(2)
	}
}
