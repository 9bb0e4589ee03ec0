package knative

import (
	"text/template"

	"ticketing.com/auth/shared/endpoint"
)

const (
	// Host is where the routes are reached. Overlays put their own in its place.
	Host = "api.ticketing.example"
	// Namespace is where everything of the system is.
	Namespace = "ticketing"
)

var kourier, traefik, gateway = page("kourier.yaml.tmpl"), page("traefik.yaml.tmpl"), page("gateway.yaml.tmpl")

// Kourier renders the routes as a Knative Ingress, the form that Knative writes
// itself for its own Routes: Kourier and Istio take it.
func Kourier(functions []endpoint.Endpoint) ([]byte, error) { return routes(kourier, functions) }

// Traefik renders them as a Knative Ingress that Traefik understands.
func Traefik(functions []endpoint.Endpoint) ([]byte, error) { return routes(traefik, functions) }

// Gateway renders the routes for the Gateway API, the form that every newer ingress
// takes.
func Gateway(functions []endpoint.Endpoint) ([]byte, error) { return routes(gateway, functions) }

func routes(page *template.Template, functions []endpoint.Endpoint) ([]byte, error) {
	data := struct {
		Host      string
		Functions []endpoint.Endpoint
	}{Host: Host}
	for _, e := range functions {
		if e.Path != "" {
			data.Functions = append(data.Functions, e)
		}
	}
	return fill(page, data)
}
