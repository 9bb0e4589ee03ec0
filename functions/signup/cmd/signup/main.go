// Command signup serves the signup function.
package main

import (
	"ticketing.com/auth/functions/signup"
	"ticketing.com/auth/shared/serve"
)

func main() { serve.Main(signup.Endpoint) }
