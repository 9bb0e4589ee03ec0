// Command allinone serves all functions of the catalog in one process. It is for installations
// that prefer one cold start to five.
//
// It reads the settings of all functions and holds all their secrets, including the signing key.
// An attacker that takes over one route therefore takes over all.
//
// For development, use infra/local instead: it includes a database and generates keys.
package main

import (
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/httpserver"
)

func main() { httpserver.MainFunc(catalog.AllInOne) }
