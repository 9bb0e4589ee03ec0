// Command jwks serves the jwks function.
package main

import (
	"ticketing.com/auth/functions/jwks"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(jwks.Function) }
