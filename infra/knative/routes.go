package knative

import (
	"fmt"
	"slices"
	"strings"
	"text/template"

	"ticketing.com/auth/shared/endpoint"
)

const (
	// Host is the host of the routes. Overlays replace it.
	Host = "api.ticketing.example"
	// Namespace is the namespace of all resources.
	Namespace = "ticketing"
)

var kourier, traefik, gateway, localTickets = parse("kourier.yaml.tmpl"), parse("traefik.yaml.tmpl"), parse("gateway.yaml.tmpl"), parse("local-tickets.yaml.tmpl")

// Kourier returns the routes as a Knative Ingress, for Kourier and Istio. Knative creates
// such an Ingress for its own Routes.
func Kourier(functions []endpoint.Function) ([]byte, error) { return routes(kourier, functions) }

// LocalTickets returns an overlay that adds the route of the example tickets to that of Kourier.
func LocalTickets([]endpoint.Function) ([]byte, error) {
	return execute(localTickets, route{Function: "tickets", Path: "/api/tickets"})
}

// Traefik returns the routes as a Knative Ingress that Traefik supports.
func Traefik(functions []endpoint.Function) ([]byte, error) { return routes(traefik, functions) }

// maxRules and maxMatches are the limits of the Gateway API for a route and for each of its rules.
const maxRules, maxMatches = 16, 8

// A rule has the routes of a function.
type rule struct {
	Function string
	Routes   []route
}

// Gateway returns the routes for the Gateway API, which newer ingresses support. It has one rule for
// each function, because the number of rules is limited.
func Gateway(functions []endpoint.Function) ([]byte, error) {
	data := struct {
		Host  string
		Rules []rule
	}{Host: Host}
	for _, r := range allRoutes(functions) {
		i := slices.IndexFunc(data.Rules, func(of rule) bool { return of.Function == r.Function })
		if i < 0 {
			i, data.Rules = len(data.Rules), append(data.Rules, rule{Function: r.Function})
		}
		data.Rules[i].Routes = append(data.Rules[i].Routes, r)
		if len(data.Rules) > maxRules || len(data.Rules[i].Routes) > maxMatches {
			return nil, fmt.Errorf("an HTTPRoute has at most %d functions with %d paths each: divide the template into several", maxRules, maxMatches)
		}
	}
	return execute(gateway, data)
}

// A route leads a path to a function. An ingress matches the path exactly or, if an endpoint has
// a {name} below it, as a prefix. The function matches the whole path.
type route struct {
	Function string
	Path     string // up to a {name}
	IsPrefix bool
}

func routes(t *template.Template, functions []endpoint.Function) ([]byte, error) {
	return execute(t, struct {
		Host   string
		Routes []route
	}{Host, allRoutes(functions)})
}

// allRoutes returns the routes of all functions, the longest paths first: some versions of an ingress
// take the first prefix that matches.
func allRoutes(functions []endpoint.Function) (all []route) {
	for _, f := range functions {
		for _, e := range f.Routed() {
			path, _, isPrefix := strings.Cut(e.Path, "/{")
			i := slices.IndexFunc(all, func(r route) bool { return r.Path == path })
			if i < 0 {
				i, all = len(all), append(all, route{Function: f.Name, Path: path})
			}
			all[i].IsPrefix = all[i].IsPrefix || isPrefix
		}
	}
	slices.SortStableFunc(all, func(x, y route) int { return len(y.Path) - len(x.Path) })
	return all
}
