package mongotest

import (
	"fmt"
	"net/url"
	"strings"
)

// withDatabase replaces the database in the path of a MongoDB URI. It edits the text, since
// net/url does not support a list of hosts.
//
// The path may also define the authentication database. Then withDatabase adds authSource to
// the query: https://www.mongodb.com/docs/manual/reference/connection-string/
func withDatabase(uri, name string) (string, error) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || scheme != "mongodb" && scheme != "mongodb+srv" {
		return "", fmt.Errorf("a MongoDB URI must begin with mongodb:// or mongodb+srv://, not with %q", scheme)
	}
	hosts, query, _ := strings.Cut(rest, "?")
	hosts, previous, _ := strings.Cut(hosts, "/")

	if needsAuthSource(hosts, query) {
		if previous == "" {
			previous = "admin"
		}
		query = strings.TrimPrefix(query+"&authSource="+previous, "&")
	}
	if query != "" {
		query = "?" + query
	}
	return scheme + "://" + hosts + "/" + name + query, nil
}

// needsAuthSource reports whether the path alone defines the authentication database of a
// user. Only password mechanisms use that database.
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
