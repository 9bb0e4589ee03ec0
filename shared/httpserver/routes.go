package httpserver

import (
	"net/http"
	"slices"
	"strings"

	"ticketing.com/auth/shared/endpoint"
)

// routes are the paths of a process. A path without {name} precedes one with it.
type routes []*route

// A route is a path with its endpoints.
type route struct {
	path           string // as declared
	prefix, suffix string // of the {name} segment
	hasParam       bool
	function       string
	endpoints      []*endpoint.Bound
}

// with returns the routes with another endpoint.
func (all routes) with(b *endpoint.Bound) routes {
	for _, r := range all {
		if r.path == b.Path {
			r.endpoints = append(r.endpoints, b)
			return all
		}
	}
	r := &route{path: b.Path, prefix: b.Path, function: b.Function(), endpoints: []*endpoint.Bound{b}}
	if before, rest, found := strings.Cut(b.Path, "{"); found {
		_, after, _ := strings.Cut(rest, "}")
		r.prefix, r.suffix, r.hasParam = before, after, true
		return append(all, r)
	}
	return slices.Insert(all, 0, r)
}

// find returns the route of a path and the segment that {name} stands for. It returns nil if
// there is no route.
func (all routes) find(path string) (r *route, param string) {
	for _, r := range all {
		if !r.hasParam {
			if path == r.path {
				return r, ""
			}
			continue
		}
		if rest, ok := strings.CutPrefix(path, r.prefix); ok {
			if param, ok = strings.CutSuffix(rest, r.suffix); ok && isParam(param) {
				return r, param
			}
		}
	}
	return nil, ""
}

// isParam reports whether a segment matches [A-Za-z0-9_-]{1,128}.
func isParam(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// endpoint returns the endpoint for a method, or nil. GET includes HEAD (RFC 9110 §9.3.2).
func (r *route) endpoint(method string) *endpoint.Bound {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, b := range r.endpoints {
		if b.Method == method {
			return b
		}
	}
	return nil
}

// allow returns the value of the header Allow.
func (r *route) allow() string {
	var all []string
	for _, b := range r.endpoints {
		all = append(all, b.Method)
		if b.Method == http.MethodGet {
			all = append(all, http.MethodHead)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
