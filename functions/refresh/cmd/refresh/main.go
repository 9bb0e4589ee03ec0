// Command refresh serves the refresh function.
package main

import (
	"ticketing.com/auth/functions/refresh"
	"ticketing.com/auth/shared/serve"
)

func main() { serve.Main(refresh.Endpoint) }
