package mongotest

import (
	"fmt"
	"net/url"
	"strings"
)

// withDatabase puts a database into the path of a MongoDB URI and keeps the
// rest. It works on the text, since net/url knows no list of hosts.
//
// The path may have said where the user is defined, too. Then this must be
// said otherwise: https://www.mongodb.com/docs/manual/reference/connection-string/
func withDatabase(uri, name string) (string, error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || scheme != "mongodb" && scheme != "mongodb+srv" {
		return "", fmt.Errorf("%q is the beginning of no MongoDB URI", scheme)
	}
	hosts, query, _ := strings.Cut(rest, "?")
	hosts, former, _ := strings.Cut(hosts, "/")

	if needsAuthSource(hosts, query) {
		if former == "" {
			former = "admin"
		}
		query = strings.TrimPrefix(query+"&authSource="+former, "&")
	}
	if query != "" {
		query = "?" + query
	}
	return scheme + "://" + hosts + "/" + name + query, nil
}

// needsAuthSource reports whether there is a user whose place is told by the
// path alone. Mechanisms other than passwords have places of their own.
func needsAuthSource(hosts, query string) bool {
	if !strings.Contains(hosts, "@") {
		return false
	}
	for option := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(option, "=")
		key, _ = url.QueryUnescape(key)
		switch strings.ToLower(key) {
		case "authsource":
			return false
		case "authmechanism":
			if !strings.HasPrefix(strings.ToUpper(value), "SCRAM-") {
				return false
			}
		}
	}
	return true
}
