// Command bare is the baseline for the cold start of the functions: an HTTP server of the
// standard library that only responds with 200. In a pod it listens on PORT.
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

Responds to every request with 200. It listens on the port PORT, or on a free port of
127.0.0.1.
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
