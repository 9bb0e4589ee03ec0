// Package knative makes what the functions are on Knative from the catalog: a
// Service and a ServiceAccount for each. What a function may read of its secrets is
// what its own wiring asks for; how it scales follows from what its work is made of.
//
// Nothing of it is applied from here: kustomize, kn or skaffold do that.
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

var services = page("services.yaml.tmpl")

func page(name string) *template.Template {
	functions := template.FuncMap{"namespace": func() string { return Namespace }}
	return template.Must(template.New(name).Funcs(functions).ParseFS(sources, name))
}

// A service is a function as the cluster runs it.
type service struct {
	endpoint.Endpoint
	Secrets []secret
	Sink    bool // tells of changes, so SinkBinding looks for it
	work
}

// A secret is a setting that is read from a Kubernetes Secret.
type secret struct{ Setting, Name, Key string }

// A work is what a request costs, and so how many of them one pod takes and what
// it needs for them.
type work struct {
	Concurrency int    // requests in a pod at once; the queue-proxy holds back the others
	Target      int    // requests in a pod at once at which another is started
	MaxScale    int    // pods
	CPU, Memory string // requested; memory is the limit too
	CPULimit    string
	GoMemory    string // GOMEMLIMIT: a tenth below the limit, for what Go does not count
	Timeout     int    // seconds for a request, above its own budget
}

var (
	// hashing is bound by the processor: a pod of one core does one hash at a time,
	// of 25 ms, and beside it what little the others need. More in a pod would
	// queue there, where no other pod can take them over.
	hashing = work{Concurrency: 8, Target: 4, MaxScale: 20, CPU: "500m", CPULimit: "1", Memory: "128Mi", GoMemory: "115MiB", Timeout: 15}
	// reading waits for the database and for nothing else.
	reading = work{Concurrency: 100, Target: 70, MaxScale: 20, CPU: "100m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 15}
	// relaying is one run at a time: a second one would send the same again.
	relaying = work{Concurrency: 1, Target: 1, MaxScale: 1, CPU: "50m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 30}
)

// Services renders those functions that have a route.
func Services(functions []endpoint.Endpoint) ([]byte, error) {
	return render(functions, func(e endpoint.Endpoint) bool { return e.Path != "" })
}

// Takers renders those functions that only take events: a cluster without Knative
// Eventing has no use for them.
func Takers(functions []endpoint.Endpoint) ([]byte, error) {
	return render(functions, func(e endpoint.Endpoint) bool { return e.Path == "" })
}

func render(functions []endpoint.Endpoint, which func(endpoint.Endpoint) bool) ([]byte, error) {
	var all []service
	for _, e := range functions {
		if !which(e) {
			continue
		}
		s, err := serviceOf(e)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	var out bytes.Buffer
	err := services.Execute(&out, all)
	return out.Bytes(), err
}

func serviceOf(e endpoint.Endpoint) (service, error) {
	asked, err := settings.Of(e)
	if err != nil {
		return service{}, err
	}
	s := service{Endpoint: e, work: reading, Sink: slices.Contains(append(asked.Optional, asked.Required...), "K_SINK")}
	if slices.Contains(asked.Optional, "HASH_CONCURRENCY") {
		s.work = hashing
	}
	if e.Path == "" {
		s.work = relaying
	}
	for _, name := range asked.Required {
		switch name {
		case "MONGODB_URI": // each function has a database user of its own
			s.Secrets = append(s.Secrets, secret{name, "mongodb-" + e.Name, "uri"})
		case "SIGNING_KEYS":
			s.Secrets = append(s.Secrets, secret{name, "signing-keys", "signing.jwks"})
		case "VERIFYING_KEYS":
			s.Secrets = append(s.Secrets, secret{name, "verifying-keys", "verifying.jwks"})
		case "K_SINK", "EVENTS": // from SinkBinding, and from the eventing component
		default:
			return service{}, fmt.Errorf("%s needs %s, and nothing says where the cluster has that", e.Name, name)
		}
	}
	return s, nil
}
