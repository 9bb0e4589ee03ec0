// Package lambda generates the AWS SAM template that deploys the functions on AWS Lambda,
// behind an HTTP API of API Gateway. The generate command writes it.
//
// The template follows from the catalog and from the needs of each function. It omits functions without a public route, and events: the event receiver is a private address
// on Knative, and Lambda has no such address.
package lambda

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/shared/endpoint"
)

//go:embed template.yaml.tmpl
var source string

var page = template.Must(template.New("").Parse(source))

const (
	// oneCPUMemory is the memory, in MB, at which Lambda grants one virtual CPU. A hash
	// is CPU-bound: with less CPU, the response takes longer and costs the same.
	// https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
	oneCPUMemory = 1769
	// waitingMemory is the memory, in MB, of a function that mostly waits for the database.
	// A process uses a tenth of it. The rest buys CPU time for TLS and signatures.
	waitingMemory = 256
)

type document struct {
	Functions []function
	Omitted   []string  // functions without a route
	Secrets   []setting // in Secrets Manager
	Public    []setting // in Parameter Store
	Options   []setting // with a default
	Fallback  string    // the function that answers every other path
}

type function struct {
	endpoint.Function
	ID       string   // the logical id
	Paths    []string // without duplicates
	MemoryMB int
	Secrets  []setting
	Public   []setting
	Options  []setting
	Hashes   bool
}

// Routes returns the methods and paths, for the description.
func (f function) Routes() string {
	var all []string
	for _, e := range f.Routed() {
		all = append(all, e.Method+" "+e.Path)
	}
	if text := strings.Join(all, ", "); len(text) < 200 { // the limit of a description is 256
		return text
	}
	return all[0] + " and others"
}

// GoMemoryMiB returns the memory limit of the Go runtime. The rest is for memory that the
// runtime does not count.
func (f function) GoMemoryMiB() int { return f.MemoryMB * 9 / 10 }

// A setting is the name of an environment variable.
type setting string

// ID returns the name of the template parameter.
func (s setting) ID() string {
	var id strings.Builder
	for word := range strings.SplitSeq(string(s), "_") {
		id.WriteString(capitalize(strings.ToLower(word)))
	}
	return id.String()
}

// fallback is the function that answers paths without a route. It holds no secret.
const fallback = "jwks"

// Template returns the template for the functions that have a route.
func Template(functions []endpoint.Function) ([]byte, error) {
	d := document{Fallback: fallback}
	for _, fn := range functions {
		if len(fn.Routed()) == 0 {
			d.Omitted = append(d.Omitted, fn.Name)
			continue
		}
		f := describe(fn)
		d.Functions = append(d.Functions, f)
		d.Secrets = append(d.Secrets, f.Secrets...)
		d.Public = append(d.Public, f.Public...)
		d.Options = append(d.Options, f.Options...)
	}
	for _, all := range []*[]setting{&d.Secrets, &d.Public, &d.Options} {
		slices.Sort(*all)
		*all = slices.Compact(*all)
	}
	var out bytes.Buffer
	if err := page.Execute(&out, d); err != nil {
		return nil, fmt.Errorf("render the SAM template: %w", err)
	}
	return out.Bytes(), nil
}

func describe(fn endpoint.Function) function {
	n := needs.Of(fn)
	f := function{Function: fn, ID: capitalize(fn.Name), MemoryMB: waitingMemory, Hashes: n.Hashes}
	if n.Hashes {
		f.MemoryMB = oneCPUMemory
	}
	for _, e := range fn.Routed() {
		if !slices.Contains(f.Paths, e.Path) {
			f.Paths = append(f.Paths, e.Path)
		}
	}
	if n.UsesDatabase() {
		f.Secrets = append(f.Secrets, "MONGODB_URI")
	}
	for _, s := range n.Secrets {
		if s.Public {
			f.Public = append(f.Public, setting(s.Setting))
		} else {
			f.Secrets = append(f.Secrets, setting(s.Setting))
		}
	}
	for _, name := range n.Optional {
		switch name {
		case "HASH_CONCURRENCY": // 1, because Lambda sends one request at a time to an instance
		case "HASH_TESTING": // a deployment must not weaken its hashes
		case "TRUSTED_PROXIES", "PROXY_NETWORKS": // the gateway reports the client address itself
		default:
			if !isEventSetting(name) {
				f.Options = append(f.Options, setting(name))
			}
		}
	}
	return f
}

// isEventSetting reports whether a setting is for received or published events. Published
// events need the relay: without later deliveries, undelivered events would accumulate.
func isEventSetting(name string) bool {
	return strings.HasPrefix(name, "K_") || strings.HasPrefix(name, "EVENT")
}

func capitalize(word string) string {
	if word == "" {
		return ""
	}
	return strings.ToUpper(word[:1]) + word[1:]
}
