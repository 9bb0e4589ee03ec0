package knative

import (
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

// Gateway returns the routes for the Gateway API, which newer ingresses support.
func Gateway(functions []endpoint.Function) ([]byte, error) { return routes(gateway, functions) }

// A route leads a path to a function. An ingress matches the path exactly or, if an endpoint has
// a {name} below it, as a prefix. The function matches the whole path.
type route struct {
	Function string
	Path     string // up to a {name}
	IsPrefix bool
}

func routes(t *template.Template, functions []endpoint.Function) ([]byte, error) {
	data := struct {
		Host   string
		Routes []route
	}{Host: Host}
	for _, f := range functions {
		for _, e := range f.Routed() {
			path, _, isPrefix := strings.Cut(e.Path, "/{")
			i := slices.IndexFunc(data.Routes, func(r route) bool { return r.Path == path })
			if i < 0 {
				i, data.Routes = len(data.Routes), append(data.Routes, route{Function: f.Name, Path: path})
			}
			data.Routes[i].IsPrefix = data.Routes[i].IsPrefix || isPrefix
		}
	}
	// Some versions of an ingress take the first prefix that matches.
	slices.SortStableFunc(data.Routes, func(x, y route) int { return len(y.Path) - len(x.Path) })
	return execute(t, data)
}
