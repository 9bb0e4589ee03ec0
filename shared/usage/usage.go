// Package usage handles the help option and invalid arguments, in the same way for every
// command. Help prints the usage to standard output, with exit code 0. An error prints one
// line to standard error, with exit code 2. Neither depends on a setting.
package usage

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path"
)

// A Command describes a command to its user.
type Command struct {
	Call           string // the command line, such as "go run ./infra/keys" or "signup"
	Text           string // the usage
	Stdout, Stderr io.Writer
}

// Parse parses the flags and the given number of operands. flags.Args returns the operands.
// If end is true, the command must exit with the given code.
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

// Error writes one line with the problem and the help command. It returns the exit code.
func (c Command) Error(problem string) (code int) {
	fmt.Fprintf(c.Stderr, "%s: %s: run %q for help\n", path.Base(c.Call), problem, c.Call+" -h")
	return 2
}

// IsHelp reports whether an argument requests help.
func IsHelp(arg string) bool {
	return arg == "-h" || arg == "-help" || arg == "--help" || arg == "help"
}
