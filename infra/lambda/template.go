// Package lambda generates the AWS SAM template that deploys the functions on AWS Lambda,
// behind an HTTP API of API Gateway. The generate command writes it.
//
// The template follows from the catalog and from the settings that each function reads. It
// omits functions without a public route, and events: the event receiver is a private address
// on Knative, and Lambda has no such address.
package lambda

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"ticketing.com/auth/infra/generate/settings"
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
	Omitted   []endpoint.Endpoint // functions without a route
	Secrets   []setting           // in Secrets Manager
	Public    []setting           // in Parameter Store
	Options   []setting           // with a default
}

type function struct {
	endpoint.Endpoint
	ID       string // the logical id
	MemoryMB int
	Secrets  []setting
	Public   []setting
	Options  []setting
	Hashes   bool
}

// HasNoSecrets reports whether the function has no secrets.
func (f function) HasNoSecrets() bool { return len(f.Secrets) == 0 }

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

// Template returns the template for the functions that have a route.
func Template(endpoints []endpoint.Endpoint) ([]byte, error) {
	var d document
	for _, e := range endpoints {
		if e.Path == "" {
			d.Omitted = append(d.Omitted, e)
			continue
		}
		f, err := describe(e)
		if err != nil {
			return nil, err
		}
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

func describe(e endpoint.Endpoint) (function, error) {
	s, err := settings.Of(e)
	if err != nil {
		return function{}, err
	}
	f := function{Endpoint: e, ID: capitalize(e.Name), MemoryMB: waitingMemory}
	for _, name := range s.Required {
		if name == "VERIFYING_KEYS" { // the only required setting that is not secret
			f.Public = append(f.Public, setting(name))
		} else {
			f.Secrets = append(f.Secrets, setting(name))
		}
	}
	for _, name := range s.Optional {
		switch {
		case name == "HASH_CONCURRENCY":
			f.Hashes, f.MemoryMB = true, oneCPUMemory
		case name == "HASH_TESTING": // a deployment must not weaken its hashes
		case name == "TRUSTED_PROXIES", name == "PROXY_NETWORKS": // the gateway reports the client address itself
		case !isEventSetting(name):
			f.Options = append(f.Options, setting(name))
		}
	}
	return f, nil
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
