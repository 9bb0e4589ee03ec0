// Package usage answers a command line that asks for help or that a command cannot use,
// in the same way for every command: help is the usage on standard output with exit code
// 0, an error is one line on standard error with exit code 2. Neither reads a setting.
package usage

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path"
)

// A Command is a command as its user sees it.
type Command struct {
	Call           string // how a user runs it, such as "go run ./infra/keys" or "signup"
	Text           string // the usage
	Stdout, Stderr io.Writer
}

// Parse parses arguments into flags and exactly as many operands as the command takes,
// which flags.Args returns. It reports whether the command must end, and with which exit
// code.
func (c Command) Parse(flags *flag.FlagSet, args []string, operands int) (code int, end bool) {
	flags.Init(c.Call, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return c.Help(), true
	case err != nil:
		return c.Error(err.Error()), true
	case flags.NArg() > operands:
		return c.Error("unexpected argument"), true
	case flags.NArg() < operands:
		return c.Error("missing argument"), true
	}
	return 0, false
}

// Help writes the usage and returns the exit code.
func (c Command) Help() (code int) {
	io.WriteString(c.Stdout, c.Text)
	return 0
}

// Error writes what is wrong with the command line, and how to get help, in one line. It
// returns the exit code.
func (c Command) Error(problem string) (code int) {
	fmt.Fprintf(c.Stderr, "%s: %s: run %q for help\n", path.Base(c.Call), problem, c.Call+" -h")
	return 2
}

// IsHelp reports whether an argument asks for help.
func IsHelp(arg string) bool {
	return arg == "-h" || arg == "-help" || arg == "--help" || arg == "help"
}
