// Command bare is the floor that the functions' starts are measured against: an
// HTTP server of the standard library that answers and does nothing else. In a pod it
// listens where PORT says.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

func main() {
	address := "127.0.0.1:0"
	if port := os.Getenv("PORT"); port != "" {
		address = ":" + port
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stderr, `{"msg":"listening","port":%d}`+"\n", listener.Addr().(*net.TCPAddr).Port)
	http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
}
