// Command allinone is every function of the catalog in one process: for an
// installation that would rather wake one pod than five. It reads the environment
// of the functions, and holds the secrets of all of them, the signing key among
// them: whoever takes over one route here has taken over all.
//
// It is in production what infra/local is in development: that one brings
// a database and keys along.
package main

import (
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.MainFunc(catalog.Together) }
