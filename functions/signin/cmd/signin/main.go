// Command signin serves the signin function.
package main

import (
	"ticketing.com/auth/functions/signin"
	"ticketing.com/auth/shared/serve"
)

func main() { serve.Main(signin.Endpoint) }
