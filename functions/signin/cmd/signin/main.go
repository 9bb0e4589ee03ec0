// Command signin serves the signin function.
package main

import (
	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(signin.Function) }
