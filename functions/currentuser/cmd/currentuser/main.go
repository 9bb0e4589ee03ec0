// Command currentuser serves the currentuser function.
package main

import (
	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(currentuser.Function) }
