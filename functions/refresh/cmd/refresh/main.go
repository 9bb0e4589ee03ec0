// Command refresh serves the refresh function.
package main

import (
	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(refresh.Function) }
