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
	// label is what a Knative Service may be called: its name is a host's (RFC 1035
	// §2.3.1; Knative keeps some of the 63 characters for a revision's number).
	label = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$`)
	// route is a path that the functions, every ingress and OpenAPI take in the same
	// meaning: exactly as it is written.
	route = regexp.MustCompile(`^(/[a-z0-9._-]*[a-z0-9])+$`)

	methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

	// kept are the names that something beside the functions has, and what that is. Tests
	// of infra/knative and infra/lambda look for others of the kind.
	kept = map[string]string{
		"allinone":         "a command that is built beside the functions",
		"api":              "the gateway in the template for AWS",
		"architecture":     "a parameter of the template for AWS",
		"auth":             "the Service of all functions in one",
		"default":          "the account of every namespace",
		"keyfile":          "the password that the members of the database share",
		"listener":         "the Service that hears events in a cluster for tests",
		"local":            "a command that is built beside the functions",
		"migrate":          "the database user that makes the indexes",
		"mongod":           "the Service of the database in a cluster for tests",
		"mongodb":          "the Service of the database",
		"read":             "a role of every database in MongoDB",
		"root":             "the administrator of the database",
		"ratelimit":        "a parameter of the template for AWS",
		"ratelimitrefresh": "a parameter of the template for AWS",
		"ratelimitsession": "a parameter of the template for AWS",
		"ratelimitsignin":  "a parameter of the template for AWS",
		"ratelimitsignup":  "a parameter of the template for AWS",
		"traces":           "a policy of the template for AWS",
		"tracing":          "a parameter of the template for AWS",
	}
	// answered are the paths, and all below them, that are answered before a function is
	// looked for, and by whom.
	answered = map[string]string{
		"/docs":         "the local runner",
		"/health":       "every process",
		"/openapi.yaml": "the local runner",
	}
)

// Check returns all that is wrong with a list of functions, a sentence each: what is
// made from such a list could not be deployed, or would not do what it says.
func Check(functions []endpoint.Endpoint) error {
	var faults []error
	names, paths, events := map[string]bool{}, map[string]string{}, map[string]string{}
	for _, e := range functions {
		wrong := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("%s "+format, append([]any{e.Name}, args...)...))
		}
		if !label.MatchString(e.Name) {
			faults = append(faults, fmt.Errorf("%q is no name for a function: it must be a DNS label of at most 50 lower-case letters, digits and hyphens", e.Name))
		}
		if of, is := kept[e.Name]; is {
			wrong("is no name for a function: %s has it", of)
		}
		if names[e.Name] {
			wrong("is there twice")
		}
		names[e.Name] = true
		if e.Summary == "" {
			wrong("has no Summary")
		}
		switch {
		case e.Path == "" && len(e.Trigger.Types) == 0:
			wrong("has neither a Path nor a Trigger: nothing can call it")
		case e.Path == "":
		case !route.MatchString(e.Path):
			wrong("has the Path %q: it must be exact, such as /api/users/%s", e.Path, e.Name)
		case by(e.Path) != "":
			wrong("has the Path %s, which %s answers itself", e.Path, by(e.Path))
		case paths[e.Path] != "":
			wrong("has the Path %s, which is %s's", e.Path, paths[e.Path])
		case !slices.Contains(methods, e.Method):
			wrong("has the Method %q: it must be one of %v", e.Method, methods)
		case e.Success < 200 || e.Success > 299:
			wrong("has the Success %d: it must be a status from 200 to 299", e.Success)
		}
		paths[e.Path] = e.Name
		for _, kind := range e.Trigger.Types {
			if of := events[kind]; of != "" {
				wrong("takes the event %s, which is %s's", kind, of)
			}
			events[kind] = e.Name
		}
	}
	return errors.Join(faults...)
}

// by tells who answers a path before any function does, or "".
func by(path string) string {
	for top, who := range answered {
		if path == top || strings.HasPrefix(path, top+"/") {
			return who
		}
	}
	return ""
}
