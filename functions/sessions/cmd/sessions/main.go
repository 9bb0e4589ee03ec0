// Command sessions serves the sessions function.
package main

import (
	"ticketing.com/auth/functions/sessions"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(sessions.Function) }
