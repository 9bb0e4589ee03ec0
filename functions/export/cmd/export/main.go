// Command export serves the export function.
package main

import (
	"ticketing.com/auth/functions/export"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.Main(export.Function) }
