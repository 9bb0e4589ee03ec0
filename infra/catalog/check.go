package catalog

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"ticketing.com/auth/shared/endpoint"
)

var (
	// label matches the names that a Knative Service may have. The name is part of a host name
	// (RFC 1035 §2.3.1). Knative needs some of the 63 characters for the number of a revision.
	label = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$`)
	// route matches the paths that the functions, every ingress and OpenAPI interpret in the
	// same way: as an exact path.
	route = regexp.MustCompile(`^(/[a-z0-9._-]*[a-z0-9])+$`)

	methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

	// reserved maps names that a function must not have to their present use. Tests of
	// infra/knative and infra/lambda find names that are missing here.
	reserved = map[string]string{
		"allinone":         "another command",
		"api":              "the gateway of the AWS template",
		"architecture":     "a parameter of the AWS template",
		"auth":             "the Service with all functions",
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
		"/docs":         "the local runner",
		"/health":       "every process",
		"/openapi.yaml": "the local runner",
	}
)

// Check reports all errors of a list of functions, one per line. Files generated from such a list
// could not be deployed, or would not behave as declared.
func Check(functions []endpoint.Endpoint) error {
	var problems []error
	names, paths, events := map[string]bool{}, map[string]string{}, map[string]string{}
	for _, e := range functions {
		report := func(format string, args ...any) {
			problems = append(problems, fmt.Errorf("%s "+format, append([]any{e.Name}, args...)...))
		}
		if !label.MatchString(e.Name) {
			problems = append(problems, fmt.Errorf("%q cannot be the name of a function: it must be a DNS label of at most 50 lower-case letters, digits and hyphens", e.Name))
		}
		if of, is := reserved[e.Name]; is {
			report("cannot be the name of a function: it is %s", of)
		}
		if names[e.Name] {
			report("is listed twice")
		}
		names[e.Name] = true
		if e.Summary == "" {
			report("has no Summary")
		}
		switch {
		case e.Path == "" && len(e.Trigger.Types) == 0:
			report("has neither a Path nor a Trigger: no client can call it")
		case e.Path == "":
		case !route.MatchString(e.Path):
			report("has the Path %q: it must be exact, such as /api/users/%s", e.Path, e.Name)
		case servedBy(e.Path) != "":
			report("has the Path %s, but %s serves it", e.Path, servedBy(e.Path))
		case paths[e.Path] != "":
			report("has the Path %s, the same as %s", e.Path, paths[e.Path])
		case !slices.Contains(methods, e.Method):
			report("has the Method %q: it must be one of %v", e.Method, methods)
		case e.Success < 200 || e.Success > 299:
			report("has the Success %d: it must be a status from 200 to 299", e.Success)
		}
		paths[e.Path] = e.Name
		for _, kind := range e.Trigger.Types {
			if of := events[kind]; of != "" {
				report("accepts the event %s, the same as %s", kind, of)
			}
			events[kind] = e.Name
		}
	}
	return errors.Join(problems...)
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
