// Package knative generates the Knative manifests from the catalog: a Service and a
// ServiceAccount for each function. The secrets and the scaling settings of a function follow
// from its needs.
//
// The package applies nothing to a cluster. kustomize, kn, func or skaffold do that.
package knative

import (
	"bytes"
	"embed"
	"slices"
	"text/template"
	"time"

	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/inprocess"
)

//go:embed *.tmpl
var sources embed.FS

var services = parse("services.yaml.tmpl")

func parse(name string) *template.Template {
	functions := template.FuncMap{"namespace": func() string { return Namespace }, "host": func() string { return Host }}
	return template.Must(template.New(name).Funcs(functions).ParseFS(sources, name, "service.yaml.tmpl", "kourier.yaml.tmpl"))
}

// A service is the Knative Service of a function.
type service struct {
	Name      string
	Summaries []string // of its endpoints, or of its receivers if it has no endpoints
	Main      string   // the folder of its main package, from the root
	needs.Needs
	Receives bool // receives events
	Public   bool // has a public address; other services are behind the ingress
	workload
}

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
	// hashing is CPU-bound: a hash takes about 30 ms of the CPU of a pod. More requests would
	// queue in this pod, and no other pod could take them (see infra/docs/capacity.md).
	//
	// Its memory suffices for the largest hash that can be imported, of 128 MiB. Connections
	// use up to a third of it (see package password).
	hashing = workload{Concurrency: 8, Target: 4, MaxScale: 20, CPU: "500m", CPULimit: "1", Memory: "256Mi", GoMemory: "230MiB", Timeout: 15}
	// reading waits for the database only.
	reading = workload{Concurrency: 100, Target: 70, MaxScale: 20, CPU: "100m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 15}
	// everything is the workload of one process that serves all routes. Most requests
	// read.
	everything = workload{Concurrency: 50, Target: 10, MaxScale: 20, CPU: "500m", CPULimit: "1", Memory: "256Mi", GoMemory: "230MiB", Timeout: 15}
	// relaying runs on a schedule, one run at a time. A concurrent run would send the same
	// events again.
	relaying = workload{Concurrency: 1, Target: 1, MaxScale: 1, CPU: "50m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 30}
	// sending waits for a mail server. A pod transfers one mail at a time, and opens the connections
	// for the next ones meanwhile. Mail servers limit the connections of a client.
	sending = workload{Concurrency: 4, Target: 3, MaxScale: 5, CPU: "50m", CPULimit: "1", Memory: "64Mi", GoMemory: "57MiB", Timeout: 15}
)

// AllInOne is the name of the Service of infra/allinone.
const AllInOne = "auth"

// Migrate is the name of the database user that creates the indexes.
const Migrate = "migrate"

// Services returns the manifests of the functions that have endpoints.
func Services(functions []endpoint.Function) ([]byte, error) { return render(functions, false) }

// EventServices returns the manifests of the functions that only receive events. A cluster
// without Knative Eventing does not need them.
func EventServices(functions []endpoint.Function) ([]byte, error) { return render(functions, true) }

func render(functions []endpoint.Function, events bool) ([]byte, error) {
	var all []service
	for _, f := range functions {
		if s := serviceOf(f); s.Events == events {
			all = append(all, s)
		}
	}
	return execute(services, all)
}

func execute(t *template.Template, data any) ([]byte, error) {
	var out bytes.Buffer
	err := t.Execute(&out, data)
	return out.Bytes(), err
}

func serviceOf(f endpoint.Function) service {
	s := service{
		Name: f.Name, Main: "functions/" + f.Name + "/cmd/" + f.Name,
		Needs: needs.Of(f), Receives: len(f.Receivers) > 0, workload: reading,
	}
	switch {
	case s.Hashes:
		s.workload = hashing
	case isScheduled(f) && s.Events:
		s.workload = relaying
	case s.Mails:
		s.workload = sending
	}
	for _, e := range f.Endpoints {
		s.Summaries = append(s.Summaries, e.Summary)
		s.allow(e.Limit())
	}
	for _, r := range f.Receivers {
		if len(f.Endpoints) == 0 {
			s.Summaries = append(s.Summaries, r.Summary)
		}
		s.allow(r.Limit())
	}
	return s
}

// allow makes the timeout longer than a time limit of the function, with time for the answer.
func (s *service) allow(limit time.Duration) {
	s.Timeout = max(s.Timeout, int((limit+5*time.Second)/time.Second))
}

// allInOne returns the service that serves all routes. It has the needs of all functions that
// have endpoints, and of those that take their events in the process, where no broker does. It
// receives no events of clients, because the public could send events to its address.
func allInOne(functions []endpoint.Function) service {
	types := inprocess.Types(functions)
	served := slices.DeleteFunc(slices.Clone(functions), func(f endpoint.Function) bool {
		return len(f.Routed()) == 0 && !inprocess.Takes(f, types)
	})
	all := needs.Of(served...)
	all.Events, all.Sink = false, false
	return service{
		Name: AllInOne, Summaries: []string{"Every route in one process."}, Main: "infra/allinone",
		Needs: all, Public: true, workload: everything,
	}
}

// allServices returns the service of each function, and the one that serves all routes.
func allServices(functions []endpoint.Function) (all []service) {
	for _, f := range functions {
		all = append(all, serviceOf(f))
	}
	return append(all, allInOne(functions))
}

// SecretRefs returns where the values of the required settings come from. SinkBinding and the
// component eventing set K_SINK and EVENTS.
func (s service) SecretRefs() (all []endpoint.Secret) {
	if s.UsesDatabase() { // each service has its own database user
		all = append(all, endpoint.Secret{Setting: "MONGODB_URI", Name: "mongodb-" + s.Name, Key: "uri"})
	}
	return append(all, s.Secrets...)
}
