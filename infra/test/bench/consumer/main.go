// Command consumer is command bare with the verification of access tokens. Beside bare, it shows what
// package bearer adds to the cold start of a service.
package main

import (
	"net/http"
	"os"

	"ticketing.com/auth/infra/test/bench/plain"
	"ticketing.com/auth/shared/bearer"
)

const text = `usage: consumer

Responds with 200 to every request that has a valid access token. It listens on the port PORT, or on a
free port of 127.0.0.1. Its settings are those of package bearer.
`

func main() {
	plain.Main("consumer", text, func() (http.Handler, error) {
		verifier, err := bearer.FromEnv(os.Getenv)
		if err != nil {
			return nil, err
		}
		return verifier.Require(http.HandlerFunc(plain.OK)), nil
	})
}
