package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
)

// A refusal is an error which the caller can mend: wrong flags, an address or
// a folder that cannot be had. Everything else is unforeseen.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error {
	return refusal(fmt.Sprintf(format, args...))
}

// cause strips the operation and the path which errors of package os and net
// carry: our sentences name them already.
func cause(err error) error {
	var path *os.PathError
	var call *os.SyscallError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &call):
		return call.Err
	}
	return err
}

type settings struct {
	addr             *net.TCPAddr
	data             string
	scratch          bool
	untilStdinCloses bool
}

// parse reads the command line. Help goes to stdout and is flag.ErrHelp.
func parse(args []string, stdout io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("devdb", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	addr := flags.String("addr", "127.0.0.1:27017", "loopback `host:port` to listen on; port 0 takes a free one")
	flags.StringVar(&s.data, "data", ".data/mongod", "`folder` of the data, made if it is missing")
	flags.BoolVar(&s.scratch, "scratch", false, "keep the data in a temporary folder, deleted at the end, instead of -data")
	exposed := flags.Bool("exposed", false, "let -addr be any address: whoever reaches it reads and writes everything, so it is for a pod in a cluster of tests")
	flags.BoolVar(&s.untilStdinCloses, "until-stdin-closes", false,
		"run as a child process: stop when standard input ends, and ignore Ctrl-C")

	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, "usage: devdb [flags]\n\nA MongoDB-wire server for development and tests.")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return s, err
	case err != nil:
		return s, refuse("%v: run \"devdb -h\" for help", err)
	case flags.NArg() > 0:
		return s, refuse("unexpected argument: run \"devdb -h\" for help")
	}
	var dataGiven bool
	flags.Visit(func(f *flag.Flag) { dataGiven = dataGiven || f.Name == "data" })
	if s.scratch && dataGiven {
		return s, refuse("-scratch deletes its data at the end, so it takes no -data")
	}
	var err error
	s.addr, err = resolve(*addr, *exposed)
	return s, err
}

// resolve resolves an address and, unless it is to be exposed, refuses any that another
// machine could reach: there is no authentication behind it.
func resolve(addr string, exposed bool) (*net.TCPAddr, error) {
	resolved, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, refuse("-addr %q is not a host:port: %v", addr, err)
	}
	if !exposed && !resolved.IP.IsLoopback() {
		return nil, refuse("-addr %q is not a loopback address: there is no authentication, so it must stay on this machine", addr)
	}
	return resolved, nil
}
