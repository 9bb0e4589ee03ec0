// Command bare is the floor that the functions' starts are measured against: an
// HTTP server of the standard library that answers and does nothing else. In a pod it
// listens where PORT says.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"

	"ticketing.com/auth/shared/usage"
)

const text = `usage: bare

Answers every request with 200, and does nothing else. It listens on the port PORT, or on
a free port of 127.0.0.1.
`

func main() {
	help := usage.Command{Call: "bare", Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	if code, end := help.Parse(new(flag.FlagSet), os.Args[1:], 0); end {
		os.Exit(code)
	}
	address := "127.0.0.1:0"
	if port := os.Getenv("PORT"); port != "" {
		address = ":" + port
	}
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%s is in use: choose another port with PORT", address)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, `{"msg":"listening","port":%d}`+"\n", listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
}
