// Command jwks serves the jwks function.
package main

import (
	"ticketing.com/auth/functions/jwks"
	"ticketing.com/auth/shared/serve"
)

func main() { serve.Main(jwks.Endpoint) }
