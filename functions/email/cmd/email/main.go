// Command email serves the email function.
package main

import (
	"ticketing.com/auth/functions/email"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(email.Function) }
