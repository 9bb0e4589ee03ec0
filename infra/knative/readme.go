package knative

import (
	"fmt"
	"slices"
	"strings"

	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/endpoint"
)

// Table returns the table of functions for the README.
func Table(functions []endpoint.Function) ([]byte, error) {
	var out strings.Builder
	out.WriteString("| function | route | needs |\n|---|---|---|\n")
	for _, f := range functions {
		routes := []string{}
		for _, e := range f.Endpoints {
			route := fmt.Sprintf("`%s %s`", e.Method, e.Path)
			if e.Internal {
				route += " inside the cluster"
			}
			routes = append(routes, route)
		}
		if len(routes) == 0 {
			routes = []string{"events only"}
		}
		fmt.Fprintf(&out, "| [%s](functions/%[1]s) | %s | %s |\n", f.Name, strings.Join(routes, "<br>"), inWords(needs.Of(f)))
	}
	return []byte(out.String()), nil
}

// inWords returns the keys, database rights and sink of a function, for the table.
func inWords(n needs.Needs) string {
	var all []string
	if n.UsesDatabase() {
		database := "database (read only)"
		for _, g := range n.Grants {
			if !slices.Equal(g.Actions, []endpoint.Action{endpoint.Find}) {
				database = "database"
			}
		}
		all = append(all, database)
	}
	for _, s := range n.Secrets {
		switch s.Setting {
		case accesstoken.Signing.Secret.Setting:
			all = append(all, "private keys")
		case accesstoken.Verifying.Secret.Setting:
			all = append(all, "public keys")
		default:
			all = append(all, "`"+s.Setting+"`")
		}
	}
	if n.Sink {
		all = append(all, "sink")
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
