// Command signout serves the signout function.
package main

import (
	"ticketing.com/auth/functions/signout"
	"ticketing.com/auth/shared/serve"
)

func main() { serve.Main(signout.Endpoint) }
