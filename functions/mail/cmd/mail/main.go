// Command mail serves the mail function.
package main

import (
	"ticketing.com/auth/functions/mail"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(mail.Function) }
