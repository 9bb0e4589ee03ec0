// Command signup serves the signup function.
package main

import (
	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(signup.Function) }
