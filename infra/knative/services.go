// Package knative generates the Knative manifests from the catalog: a Service and a
// ServiceAccount for each function. A function gets the secrets that its constructor
// requires. Its scaling settings follow from its workload.
//
// The package applies nothing to a cluster. kustomize, kn, func or skaffold do that.
package knative

import (
	"bytes"
	"embed"
	"fmt"
	"slices"
	"text/template"

	"ticketing.com/auth/infra/generate/settings"
	"ticketing.com/auth/shared/endpoint"
)

//go:embed *.tmpl
var sources embed.FS

var services = parse("services.yaml.tmpl")

func parse(name string) *template.Template {
	functions := template.FuncMap{"namespace": func() string { return Namespace }}
	return template.Must(template.New(name).Funcs(functions).ParseFS(sources, name, "service.yaml.tmpl"))
}

// A service is the Knative Service of a function.
type service struct {
	endpoint.Spec
	Main        string // the folder of its main package, from the root
	Secrets     []secret
	Publishes   bool // publishes events, so that SinkBinding selects it
	Receives    bool // receives events
	Public      bool // has a public address; other services are behind the ingress
	RateLimited bool // counts proxies, so that the number of hops must not change
	workload
}

// A secret is a setting with a value from a Kubernetes Secret.
type secret struct{ Setting, Name, Key string }

// A workload holds the scaling settings and resources that follow from the cost of a
// request.
type workload struct {
	Concurrency int    // concurrent requests of a pod; the queue-proxy queues more
	Target      int    // concurrent requests of a pod at which another pod starts
	MaxScale    int    // pods
	CPU, Memory string // requests; the memory limit is the same
	CPULimit    string
	GoMemory    string // GOMEMLIMIT: a tenth below the limit, for memory that the runtime does not count
	Timeout     int    // seconds for a request, more than its own budget
}

var (
	// hashing is CPU-bound. A pod with one core computes one hash of 25 ms at a time. More
	// requests would queue in this pod, and no other pod could take them.
	//
	// Its memory suffices for the largest hash that can be imported, of 128 MiB. Connections
	// use up to a third of it (see package password).
	hashing = workload{Concurrency: 8, Target: 4, MaxScale: 20, CPU: "500m", CPULimit: "1", Memory: "256Mi", GoMemory: "230MiB", Timeout: 15}
	// reading waits for the database only.
	reading = workload{Concurrency: 100, Target: 70, MaxScale: 20, CPU: "100m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 15}
	// everything is the workload of one process that serves all routes. Most requests
	// read, and it computes one hash at a time.
	everything = workload{Concurrency: 50, Target: 10, MaxScale: 20, CPU: "500m", CPULimit: "1", Memory: "256Mi", GoMemory: "230MiB", Timeout: 15}
	// relaying runs on a schedule, one run at a time. A concurrent run would send the same
	// events again.
	relaying = workload{Concurrency: 1, Target: 1, MaxScale: 1, CPU: "50m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 30}
)

// AllInOne is the name of the Service of infra/allinone.
const AllInOne = "auth"

// Services returns the manifests of the functions that have a route.
func Services(functions []endpoint.Endpoint) ([]byte, error) {
	return render(functions, func(e endpoint.Endpoint) bool { return e.Path != "" })
}

// EventServices returns the manifests of the functions that only receive events. A cluster
// without Knative Eventing does not need them.
func EventServices(functions []endpoint.Endpoint) ([]byte, error) {
	return render(functions, func(e endpoint.Endpoint) bool { return e.Path == "" })
}

func render(functions []endpoint.Endpoint, include func(endpoint.Endpoint) bool) ([]byte, error) {
	var all []service
	for _, e := range functions {
		if !include(e) {
			continue
		}
		s, err := serviceOf(e)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return execute(services, all)
}

func execute(t *template.Template, data any) ([]byte, error) {
	var out bytes.Buffer
	err := t.Execute(&out, data)
	return out.Bytes(), err
}

func serviceOf(e endpoint.Endpoint) (service, error) {
	read, err := settings.Of(e)
	if err != nil {
		return service{}, err
	}
	s := service{
		Spec: e.Spec, workload: reading,
		Main:        "functions/" + e.Name + "/cmd/" + e.Name,
		Publishes:   slices.Contains(append(read.Optional, read.Required...), "K_SINK"),
		Receives:    len(e.Trigger.Types) > 0,
		RateLimited: slices.Contains(read.Optional, "TRUSTED_PROXIES"),
	}
	if slices.Contains(read.Optional, "HASH_CONCURRENCY") {
		s.workload = hashing
	}
	if slices.Contains(e.Trigger.Types, ping) {
		s.workload = relaying
	}
	s.Secrets, err = secretsOf(e.Name, read.Required)
	return s, err
}

// allInOne returns the service that serves all routes, with the secrets of all functions.
// It receives no events, because the public could send events to its address.
func allInOne(functions []endpoint.Endpoint) (service, error) {
	s := service{
		Spec: endpoint.Spec{Name: AllInOne, Summary: "Every route in one process."},
		Main: "infra/allinone", Publishes: true, Public: true, RateLimited: true, workload: everything,
	}
	var required []string
	for _, e := range functions {
		if e.Path == "" {
			continue
		}
		read, err := settings.Of(e)
		if err != nil {
			return s, err
		}
		required = append(required, read.Required...)
	}
	slices.Sort(required)
	var err error
	s.Secrets, err = secretsOf(s.Name, slices.Compact(required))
	return s, err
}

// allServices returns the service of each function, and the one that serves all routes.
func allServices(functions []endpoint.Endpoint) (all []service, err error) {
	for _, e := range functions {
		s, err := serviceOf(e)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	s, err := allInOne(functions)
	return append(all, s), err
}

// secretsOf returns the Secrets that contain the settings of a service.
func secretsOf(service string, settings []string) (all []secret, err error) {
	for _, name := range settings {
		switch name {
		case "MONGODB_URI": // each service has its own database user
			all = append(all, secret{name, "mongodb-" + service, "uri"})
		case "SIGNING_KEYS":
			all = append(all, secret{name, "signing-keys", "signing.jwks"})
		case "VERIFYING_KEYS":
			all = append(all, secret{name, "verifying-keys", "verifying.jwks"})
		case "K_SINK", "EVENTS": // set by SinkBinding and by the component eventing
		default:
			return nil, fmt.Errorf("%s needs %s, but no Secret contains it: add it to infra/knative/services.go", service, name)
		}
	}
	return all, nil
}
