// Command recovery serves the recovery function.
package main

import (
	"ticketing.com/auth/functions/recovery"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(recovery.Function) }
