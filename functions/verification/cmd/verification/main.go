// Command verification serves the verification function.
package main

import (
	"ticketing.com/auth/functions/verification"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(verification.Function) }
