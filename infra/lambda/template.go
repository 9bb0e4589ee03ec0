// Package lambda renders the AWS SAM template that deploys the functions on AWS
// Lambda, behind an HTTP API of API Gateway. The generate command writes it.
//
// The template is made from the catalog and from what each function asks of its
// environment. It leaves out what has no public route, and events: their door is an
// address of Knative's, and Lambda has none.
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
	// wholeCore is the memory, in MB, at which Lambda grants one virtual CPU. A
	// hash is nothing but CPU time: with less of it the answer takes longer and
	// costs the same.
	// https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
	wholeCore = 1769
	// small is the memory, in MB, of a function that waits more than it works. A
	// process takes a tenth of it; what the rest buys is CPU time for TLS and
	// signatures.
	small = 256
)

type document struct {
	Functions []function
	Absent    []endpoint.Endpoint // have no route
	Secrets   []setting           // in Secrets Manager
	Public    []setting           // in the Parameter Store
	Options   []setting           // which have a default
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

// NothingToLose tells whether it holds no secret.
func (f function) NothingToLose() bool { return len(f.Secrets) == 0 }

// GoMemoryMiB is how much memory the Go runtime may use: what it may not, is for
// what it does not count.
func (f function) GoMemoryMiB() int { return f.MemoryMB * 9 / 10 }

// A setting is a name of the environment.
type setting string

// ID returns the name of the template's parameter.
func (s setting) ID() string {
	var id strings.Builder
	for word := range strings.SplitSeq(string(s), "_") {
		id.WriteString(capital(strings.ToLower(word)))
	}
	return id.String()
}

// Template renders the template.
func Template(endpoints []endpoint.Endpoint) ([]byte, error) {
	var d document
	for _, e := range endpoints {
		if e.Path == "" {
			d.Absent = append(d.Absent, e)
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
	f := function{Endpoint: e, ID: capital(e.Name), MemoryMB: small}
	for _, name := range s.Required {
		if name == "VERIFYING_KEYS" { // the one that is no secret
			f.Public = append(f.Public, setting(name))
		} else {
			f.Secrets = append(f.Secrets, setting(name))
		}
	}
	for _, name := range s.Optional {
		switch {
		case name == "HASH_CONCURRENCY":
			f.Hashes, f.MemoryMB = true, wholeCore
		case name == "HASH_TESTING": // a deployment does not weaken its hashes
		case name == "TRUSTED_PROXIES", name == "PROXY_NETWORKS": // the gateway reports the client address itself
		case !ofEvents(name):
			f.Options = append(f.Options, setting(name))
		}
	}
	return f, nil
}

// ofEvents tells the settings of events, in and out. Out they need the relay: where
// nothing delivers them later, the undelivered ones would pile up.
func ofEvents(name string) bool {
	return strings.HasPrefix(name, "K_") || strings.HasPrefix(name, "EVENT")
}

func capital(word string) string {
	if word == "" {
		return ""
	}
	return strings.ToUpper(word[:1]) + word[1:]
}
