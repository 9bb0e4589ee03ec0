package knative

import (
	"text/template"

	"ticketing.com/auth/shared/endpoint"
)

const (
	// Host is the host of the routes. Overlays replace it.
	Host = "api.ticketing.example"
	// Namespace is the namespace of all resources.
	Namespace = "ticketing"
)

var kourier, traefik, gateway = parse("kourier.yaml.tmpl"), parse("traefik.yaml.tmpl"), parse("gateway.yaml.tmpl")

// Kourier returns the routes as a Knative Ingress, for Kourier and Istio. Knative creates
// such an Ingress for its own Routes.
func Kourier(functions []endpoint.Endpoint) ([]byte, error) { return routes(kourier, functions) }

// Traefik returns the routes as a Knative Ingress that Traefik supports.
func Traefik(functions []endpoint.Endpoint) ([]byte, error) { return routes(traefik, functions) }

// Gateway returns the routes for the Gateway API, which newer ingresses support.
func Gateway(functions []endpoint.Endpoint) ([]byte, error) { return routes(gateway, functions) }

func routes(t *template.Template, functions []endpoint.Endpoint) ([]byte, error) {
	data := struct {
		Host      string
		Functions []endpoint.Endpoint
	}{Host: Host}
	for _, e := range functions {
		if e.Path != "" {
			data.Functions = append(data.Functions, e)
		}
	}
	return execute(t, data)
}
