// Command currentuser serves the currentuser function.
package main

import (
	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/shared/serve"
)

func main() { serve.Main(currentuser.Endpoint) }
