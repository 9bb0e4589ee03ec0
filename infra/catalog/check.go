package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
)

var (
	// label matches the names that a Knative Service may have. The name is part of a host name
	// (RFC 1035 §2.3.1). Knative needs some of the 63 characters for the number of a revision.
	label = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$`)
	// route matches the paths that the functions, every ingress and OpenAPI interpret in the
	// same way: as an exact path, of which one segment may be a parameter.
	route = regexp.MustCompile(`^(/[a-z0-9._-]*[a-z0-9]|/\{[a-z][A-Za-z0-9]*\})+$`)

	// eventName matches the types of events: labels with dots, and a version.
	eventName = regexp.MustCompile(`^[a-z][a-z0-9]*(\.[a-z][a-z0-9]*)*\.v[1-9][0-9]*$`)
	// eventSource matches the sources of events, which are paths.
	eventSource = regexp.MustCompile(`^(/[a-z0-9-]+)+$`)

	// parameter matches the name of a parameter.
	parameter = regexp.MustCompile(`\{[^}]*\}`)

	methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

	// reserved maps names that a function must not have to their present use. Tests of
	// infra/knative and infra/lambda find names that are missing here.
	reserved = map[string]string{
		"allinone":         "another command",
		"api":              "the gateway of the AWS template",
		"architecture":     "a parameter of the AWS template",
		"auth":             "the Service with all functions",
		"collector":        "the Deployment of the telemetry collector",
		"default":          "the default service account of a namespace",
		"keyfile":          "the shared key of the database members",
		"listener":         "the Service that receives events in the test cluster",
		"local":            "another command",
		"migrate":          "the database user that creates the indexes",
		"mongod":           "the Service of the database in the test cluster",
		"mongodb":          "the Service of the database",
		"read":             "a built-in role of MongoDB",
		"root":             "the administrator of the database",
		"ratelimit":        "a parameter of the AWS template",
		"ratelimitrefresh": "a parameter of the AWS template",
		"ratelimitsession": "a parameter of the AWS template",
		"ratelimitsignin":  "a parameter of the AWS template",
		"ratelimitsignup":  "a parameter of the AWS template",
		"traces":           "a policy of the AWS template",
		"tracing":          "a parameter of the AWS template",
	}
	// reservedPaths maps paths to the program that serves them and all paths below them. A
	// function with such a path would never receive a request.
	reservedPaths = map[string]string{
		"/asyncapi.yaml": "the local runner",
		"/confirm":       "the local runner",
		"/docs":          "the local runner",
		"/health":        "every process",
		"/mail":          "the local runner",
		"/openapi.yaml":  "the local runner",
		"/schemas":       "the local runner",
	}
)

// Check reports all errors of a list of functions, one per line. Files generated from such a list
// could not be deployed, or would not behave as declared.
func Check(functions []endpoint.Function) error {
	c := checker{names: map[string]bool{}, types: map[string]*event.Type{}, operations: map[string]string{}, paths: map[string]string{}, shapes: map[string]string{}, replies: map[string]string{}}
	for _, f := range functions {
		c.function(f)
	}
	c.prefixes(functions)
	return errors.Join(c.problems...)
}

type checker struct {
	names      map[string]bool
	operations map[string]string // the function, by the id and by the method and path of an operation
	paths      map[string]string // the function, by the path
	shapes     map[string]string // the path, by the path without the name of its parameter
	replies    map[string]string // the function that replies to an event type
	types      map[string]*event.Type
	problems   []error
}

func (c *checker) report(f endpoint.Function, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("%s "+format, append([]any{f.Name}, args...)...))
}

func (c *checker) function(f endpoint.Function) {
	if !label.MatchString(f.Name) {
		c.problems = append(c.problems, fmt.Errorf("%q cannot be the name of a function: it must be a DNS label of at most 50 lower-case letters, digits and hyphens", f.Name))
	}
	if of, is := reserved[f.Name]; is {
		c.report(f, "cannot be the name of a function: it is %s", of)
	}
	if c.names[f.Name] {
		c.report(f, "is listed twice")
	}
	c.names[f.Name] = true
	if len(f.Endpoints)+len(f.Receivers) == 0 {
		c.report(f, "has neither an endpoint nor a receiver: no client can call it")
	}
	for _, e := range f.Endpoints {
		c.endpoint(f, e)
	}
	for _, r := range f.Receivers {
		if r.Summary == "" {
			c.report(f, "has a receiver without a Summary")
		}
		for _, t := range r.Types {
			if r.Reply == nil && r.Refusal == nil {
				continue
			}
			if of := c.replies[t.Name]; of != "" {
				c.report(f, "replies to the event %s, as %s does", t.Name, of)
			}
			c.replies[t.Name] = f.Name
		}
	}
	c.events(f)
}

// events reports errors in the types of events that a function publishes, takes and replies with.
func (c *checker) events(f endpoint.Function) {
	for _, need := range f.Needs {
		for _, t := range need.Publishes {
			if t.Source == "" || t.Data == nil {
				c.report(f, "publishes the event %s, which has no source or no payload", t.Name)
			}
			c.event(f, t)
		}
	}
	for _, r := range f.Receivers {
		for _, t := range append(slices.Clone(r.Types), r.Reply, r.Refusal) {
			if t != nil {
				c.event(f, t)
			}
		}
	}
}

func (c *checker) event(f endpoint.Function, t *event.Type) {
	known := c.types[t.Name]
	if known == t {
		return
	}
	c.types[t.Name] = t
	if known != nil {
		c.report(f, "declares the event %s, which has a declaration: use that one", t.Name)
	}
	if t.Summary == "" {
		c.report(f, "has no Summary of the event %s", t.Name)
	}
	if t.Data != nil && !eventName.MatchString(t.Name) {
		c.report(f, "has the event %q: its name must be labels of lower-case letters and digits and a version, such as com.ticketing.%s.done.v1", t.Name, f.Name)
	}
	if t.Source != "" && !eventSource.MatchString(t.Source) {
		c.report(f, "has the event %s with the source %q: it must be a path such as /api/%s", t.Name, t.Source, f.Name)
	}
}

func (c *checker) endpoint(f endpoint.Function, e endpoint.Endpoint) {
	if e.Summary == "" {
		c.report(f, "has no Summary of %s %s", e.Method, e.Path)
	}
	if e.ID == "" && len(f.Endpoints) > 1 {
		c.report(f, "has several endpoints, and no ID of %s %s", e.Method, e.Path)
	}
	switch {
	case !route.MatchString(e.Path) || strings.Count(e.Path, "{") > 1:
		c.report(f, "has the Path %q: it must be exact, such as /api/users/%s, with at most one {name}", e.Path, f.Name)
	case servedBy(e.Path) != "":
		c.report(f, "has the Path %s, but %s serves it", e.Path, servedBy(e.Path))
	case c.paths[e.Path] != "" && c.paths[e.Path] != f.Name:
		c.report(f, "has the Path %s, the same as %s: no ingress routes by the method", e.Path, c.paths[e.Path])
	case !slices.Contains(methods, e.Method):
		c.report(f, "has the Method %q: it must be one of %v", e.Method, methods)
	}
	shape := parameter.ReplaceAllString(e.Path, "{}")
	if other := c.shapes[shape]; other != "" && other != e.Path {
		c.report(f, "has the Paths %s and %s: use one name for the parameter", other, e.Path)
	}
	c.shapes[shape] = e.Path
	c.paths[e.Path] = f.Name
	for _, operation := range []string{e.Method + " " + e.Path, cmp.Or(e.ID, f.Name)} {
		if of := c.operations[operation]; of != "" {
			c.report(f, "has the operation %s, the same as %s", operation, of)
		}
		c.operations[operation] = f.Name
	}
}

// prefixes reports a path of one function below the {name} of another. An ingress routes by
// prefixes, so it would send the requests of one of them to the other.
func (c *checker) prefixes(functions []endpoint.Function) {
	for _, f := range functions {
		for _, e := range f.Endpoints {
			prefix, _, found := strings.Cut(e.Path, "{")
			if !found {
				continue
			}
			for path, of := range c.paths {
				if of != f.Name && strings.HasPrefix(path+"/", prefix) {
					c.report(f, "has the Path %s, and %s has %s: one function must serve both", e.Path, of, path)
				}
			}
		}
	}
}

// servedBy returns the program that serves a path instead of a function, or "".
func servedBy(path string) string {
	for top, program := range reservedPaths {
		if path == top || strings.HasPrefix(path, top+"/") {
			return program
		}
	}
	return ""
}
