// Command introspect serves the introspect function.
package main

import (
	"ticketing.com/auth/functions/introspect"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(introspect.Function) }
