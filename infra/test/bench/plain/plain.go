// Package plain is the part that the baselines of the measurements have in common: an HTTP server of the
// standard library.
package plain

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"ticketing.com/auth/shared/telemetry/process"
	"ticketing.com/auth/shared/usage"
)

// Main serves requests on the port PORT, or on a free port of 127.0.0.1. It does not return. name and
// text are for the help of the command.
func Main(name, text string, newHandler func() (http.Handler, error)) {
	help := usage.Command{Call: name, Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	if code, end := help.Parse(new(flag.FlagSet), os.Args[1:], 0); end {
		os.Exit(code)
	}
	handler, err := newHandler()
	if err == nil {
		err = serve(handler)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	os.Exit(1)
}

func serve(handler http.Handler) error {
	address := "127.0.0.1:0"
	if port := os.Getenv("PORT"); port != "" {
		address = ":" + port
	}
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use: choose another port with PORT", address)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, `{"msg":"listening","port":%d,"age":%d}`+"\n", listener.Addr().(*net.TCPAddr).Port, process.Age(began).Milliseconds())
	return http.Serve(listener, logFirst(handler))
}

var began = time.Now()

// logFirst logs the duration of the first request.
func logFirst(handler http.Handler) http.Handler {
	var first sync.Once
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		handler.ServeHTTP(w, r)
		first.Do(func() {
			fmt.Fprintf(os.Stderr, `{"msg":"request","ms":%.3f}`+"\n", time.Since(began).Seconds()*1000)
		})
	})
}

// OK responds with 200.
func OK(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
