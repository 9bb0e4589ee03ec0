// Command password serves the password function.
package main

import (
	"ticketing.com/auth/functions/password"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(password.Function) }
