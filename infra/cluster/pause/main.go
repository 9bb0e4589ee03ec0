// Pause is the first process of a pod. It holds the pod's namespaces while containers
// start and stop, and reaps orphaned processes. It ends on SIGINT or SIGTERM.
package main

import (
	"flag"
	"os"
	"os/signal"
	"syscall"

	"ticketing.com/auth/shared/usage"
)

const text = `usage: pause

Holds the namespaces of a pod and reaps its orphaned processes, until SIGTERM.
`

func main() {
	help := usage.Command{Call: "pause", Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	if code, end := help.Parse(new(flag.FlagSet), os.Args[1:], 0); end {
		os.Exit(code)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
