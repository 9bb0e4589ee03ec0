// Command account serves the account function.
package main

import (
	"ticketing.com/auth/functions/account"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(account.Function) }
