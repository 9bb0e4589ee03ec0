// Command signout serves the signout function.
package main

import (
	"ticketing.com/auth/functions/signout"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(signout.Function) }
