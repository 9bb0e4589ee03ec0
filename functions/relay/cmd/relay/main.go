// Command relay serves the relay function.
package main

import (
	"ticketing.com/auth/functions/relay"
	"ticketing.com/auth/shared/serve"
)

func main() { serve.Main(relay.Endpoint) }
