package knative

import (
	"fmt"
	"strings"

	"ticketing.com/auth/shared/endpoint"
)

// Table returns the table of functions for the README.
func Table(functions []endpoint.Endpoint) ([]byte, error) {
	var out strings.Builder
	out.WriteString("| function | route | needs |\n|---|---|---|\n")
	for _, e := range functions {
		s, err := serviceOf(e)
		if err != nil {
			return nil, err
		}
		route := "events only"
		if e.Path != "" {
			route = fmt.Sprintf("`%s %s`", e.Method, e.Path)
		}
		fmt.Fprintf(&out, "| [%s](functions/%[1]s) | %s | %s |\n", e.Name, route, s.needs())
	}
	return []byte(out.String()), nil
}

// needs returns the keys, database rights and sink of a function, for the table.
func (s service) needs() string {
	var all []string
	for _, secret := range s.Secrets {
		switch {
		case secret.Setting == "SIGNING_KEYS":
			all = append(all, "private keys")
		case secret.Setting == "VERIFYING_KEYS":
			all = append(all, "public keys")
		case s.Method == "GET":
			all = append(all, "database (read only)")
		default:
			all = append(all, "database")
		}
	}
	if s.Path == "" {
		all = append(all, "sink")
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
