// Command history serves the history function.
package main

import (
	"ticketing.com/auth/functions/history"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(history.Function) }
