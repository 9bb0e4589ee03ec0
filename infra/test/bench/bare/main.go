// Command bare is the baseline for the cold start of the functions: an HTTP server of the
// standard library that only responds with 200. In a pod it listens on PORT.
package main

import (
	"net/http"

	"ticketing.com/auth/infra/test/bench/plain"
)

const text = `usage: bare

Responds to every request with 200. It listens on the port PORT, or on a free port of
127.0.0.1.
`

func main() {
	plain.Main("bare", text, func() (http.Handler, error) { return http.HandlerFunc(plain.OK), nil })
}
