// Command relay serves the relay function.
package main

import (
	"ticketing.com/auth/functions/relay"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(relay.Function) }
