// Command revocations serves the revocations function.
package main

import (
	"ticketing.com/auth/functions/revocations"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(revocations.Function) }
