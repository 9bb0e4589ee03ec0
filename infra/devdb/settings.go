package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
)

// A configError is an error that the user can fix: invalid flags, or an address or a
// folder that is not available. All other errors are unexpected.
type configError string

func (e configError) Error() string { return string(e) }

func configErrorf(format string, args ...any) error {
	return configError(fmt.Sprintf(format, args...))
}

// rootCause removes the operation and the path from errors of packages os and net,
// because the messages of this program already name them.
func rootCause(err error) error {
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

// parse parses the command line. For -h it writes the help to stdout and returns
// flag.ErrHelp.
func parse(args []string, stdout io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("devdb", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	addr := flags.String("addr", "127.0.0.1:27017", "loopback `host:port` to listen on; port 0 selects a free port")
	flags.StringVar(&s.data, "data", ".data/mongod", "data `folder`, created if it does not exist")
	flags.BoolVar(&s.scratch, "scratch", false, "store the data in a temporary folder instead of -data, and delete it at the end")
	exposed := flags.Bool("exposed", false, "accept a non-loopback -addr, for a pod in a test cluster; there is no authentication: every client that reaches the port can read and write all data")
	flags.BoolVar(&s.untilStdinCloses, "until-stdin-closes", false,
		"run as a child process: stop when standard input ends, and ignore Ctrl-C")

	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, "usage: devdb [flags]\n\nA MongoDB-wire server for development and tests.")
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return s, err
	case err != nil:
		return s, configErrorf("%v: run \"devdb -h\" for help", err)
	case flags.NArg() > 0:
		return s, configErrorf("unexpected argument: run \"devdb -h\" for help")
	}
	var dataGiven bool
	flags.Visit(func(f *flag.Flag) { dataGiven = dataGiven || f.Name == "data" })
	if s.scratch && dataGiven {
		return s, configErrorf("-scratch deletes its data at the end: do not combine it with -data")
	}
	var err error
	s.addr, err = resolve(*addr, *exposed)
	return s, err
}

// resolve resolves an address. Unless exposed is set, it rejects an address that another
// machine could reach, because the server has no authentication.
func resolve(addr string, exposed bool) (*net.TCPAddr, error) {
	resolved, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, configErrorf("-addr %q is not a host:port: %v", addr, err)
	}
	if !exposed && !resolved.IP.IsLoopback() {
		return nil, configErrorf("-addr %q is not a loopback address: there is no authentication, so it must stay on this machine", addr)
	}
	return resolved, nil
}
