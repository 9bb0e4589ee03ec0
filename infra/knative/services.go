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
	return template.Must(template.New(name).Funcs(functions).ParseFS(sources, name, "service.yaml.tmpl"))
}

// A service is a function as the cluster runs it.
type service struct {
	endpoint.Spec
	Main    string // the folder of its main package, from the root
	Secrets []secret
	Tells   bool // of changes, so SinkBinding looks for it
	Takes   bool // events
	Public  bool // is reached at its own address; the others by the ingress alone
	Counts  bool // counts its callers, so the way to it must always be the same
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
	//
	// Its memory has room for the largest hash that can be imported, of 128 MiB, beside
	// the connections, which have a third (see package password).
	hashing = work{Concurrency: 8, Target: 4, MaxScale: 20, CPU: "500m", CPULimit: "1", Memory: "256Mi", GoMemory: "230MiB", Timeout: 15}
	// reading waits for the database and for nothing else.
	reading = work{Concurrency: 100, Target: 70, MaxScale: 20, CPU: "100m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 15}
	// everything is what one process that serves all routes does: it reads much and
	// hashes one at a time.
	everything = work{Concurrency: 50, Target: 10, MaxScale: 20, CPU: "500m", CPULimit: "1", Memory: "256Mi", GoMemory: "230MiB", Timeout: 15}
	// relaying is what a clock wakes, one run at a time: a second one would send the
	// same again.
	relaying = work{Concurrency: 1, Target: 1, MaxScale: 1, CPU: "50m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 30}
)

// AllInOne is the name of infra/allinone as a service, beside the functions'.
const AllInOne = "auth"

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
	return fill(services, all)
}

func fill(page *template.Template, data any) ([]byte, error) {
	var out bytes.Buffer
	err := page.Execute(&out, data)
	return out.Bytes(), err
}

func serviceOf(e endpoint.Endpoint) (service, error) {
	asked, err := settings.Of(e)
	if err != nil {
		return service{}, err
	}
	s := service{
		Spec: e.Spec, work: reading,
		Main:   "functions/" + e.Name + "/cmd/" + e.Name,
		Tells:  slices.Contains(append(asked.Optional, asked.Required...), "K_SINK"),
		Takes:  len(e.Trigger.Types) > 0,
		Counts: slices.Contains(asked.Optional, "TRUSTED_PROXIES"),
	}
	if slices.Contains(asked.Optional, "HASH_CONCURRENCY") {
		s.work = hashing
	}
	if slices.Contains(e.Trigger.Types, ping) {
		s.work = relaying
	}
	s.Secrets, err = secretsOf(e.Name, asked.Required)
	return s, err
}

// allInOne is what serves all functions that have a route, with the secrets of all. It
// takes no events: the public reaches the address where it would take them.
func allInOne(functions []endpoint.Endpoint) (service, error) {
	s := service{
		Spec: endpoint.Spec{Name: AllInOne, Summary: "Every route in one process."},
		Main: "infra/allinone", Tells: true, Public: true, Counts: true, work: everything,
	}
	var required []string
	for _, e := range functions {
		if e.Path == "" {
			continue
		}
		asked, err := settings.Of(e)
		if err != nil {
			return s, err
		}
		required = append(required, asked.Required...)
	}
	slices.Sort(required)
	var err error
	s.Secrets, err = secretsOf(s.Name, slices.Compact(required))
	return s, err
}

// everyService are the functions, and all of them in one.
func everyService(functions []endpoint.Endpoint) (all []service, err error) {
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

// secretsOf says where a cluster has the settings that a service needs.
func secretsOf(service string, settings []string) (all []secret, err error) {
	for _, name := range settings {
		switch name {
		case "MONGODB_URI": // each has a database user of its own
			all = append(all, secret{name, "mongodb-" + service, "uri"})
		case "SIGNING_KEYS":
			all = append(all, secret{name, "signing-keys", "signing.jwks"})
		case "VERIFYING_KEYS":
			all = append(all, secret{name, "verifying-keys", "verifying.jwks"})
		case "K_SINK", "EVENTS": // from SinkBinding, and from the eventing component
		default:
			return nil, fmt.Errorf("%s needs %s, and nothing says where the cluster has that", service, name)
		}
	}
	return all, nil
}
