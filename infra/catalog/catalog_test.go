package catalog_test

import (
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/openapi/docs"
	"ticketing.com/auth/shared/endpoint"
)

func TestCheck_Catalog(t *testing.T) {
	if err := catalog.Check(catalog.Functions()); err != nil {
		t.Error(err)
	}
}

func TestCheck_Problems(t *testing.T) {
	good := endpoint.Spec{Name: "hello", Method: "GET", Path: "/api/hello", Success: 200, Summary: "Say hello."}
	with := func(change func(*endpoint.Endpoint)) endpoint.Endpoint {
		e := endpoint.Endpoint{Spec: good}
		change(&e)
		return e
	}
	other := with(func(e *endpoint.Endpoint) { e.Name, e.Path = "other", "/api/other" })
	triggered := with(func(e *endpoint.Endpoint) {
		e.Name, e.Path, e.Trigger.Types = "triggered", "", []string{"com.example.hello"}
	})
	for _, c := range []struct {
		name      string
		functions []endpoint.Endpoint
		want      string
	}{
		{"no problem", []endpoint.Endpoint{{Spec: good}, other, triggered}, ""},
		{"two functions on one route", []endpoint.Endpoint{{Spec: good}, with(func(e *endpoint.Endpoint) { e.Name = "other" })},
			"other has the Path /api/hello, the same as hello"},
		{"two functions of one name", []endpoint.Endpoint{{Spec: good}, with(func(e *endpoint.Endpoint) { e.Path = "/api/other" })},
			"hello is listed twice"},
		{"two functions for one event", []endpoint.Endpoint{triggered, with(func(e *endpoint.Endpoint) { e.Trigger.Types = triggered.Trigger.Types })},
			"hello accepts the event com.example.hello, the same as triggered"},
		{"a name that is not a DNS label", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "say_hello" })},
			`"say_hello" cannot be the name of a function: it must be a DNS label of at most 50 lower-case letters, digits and hyphens`},
		{"the name of the Service with all functions", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "auth" })},
			"auth cannot be the name of a function: it is the Service with all functions"},
		{"the name of a database user", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "migrate" })},
			"migrate cannot be the name of a function: it is the database user that creates the indexes"},
		{"the name of the database's administrator", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "root" })},
			"root cannot be the name of a function: it is the administrator of the database"},
		{"the name of the shared key of the database members, without a route", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name, e.Path, e.Trigger.Types = "keyfile", "", triggered.Trigger.Types })},
			"keyfile cannot be the name of a function: it is the shared key of the database members"},
		{"a name that only begins with a reserved one", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "rooted" })}, ""},
		{"the path of the health checks", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/health/liveness" })},
			"hello has the Path /health/liveness, but every process serves it"},
		{"a path below the health checks", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/health/of/hello" })},
			"hello has the Path /health/of/hello, but every process serves it"},
		{"the path of the reference", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = docs.Path })},
			"hello has the Path /docs, but the local runner serves it"},
		{"the path of the OpenAPI document", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/openapi.yaml" })},
			"hello has the Path /openapi.yaml, but the local runner serves it"},
		{"a path that only begins with a reserved one", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/healthy" })}, ""},
		{"a path that ends with a slash", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/api/hello/" })},
			`hello has the Path "/api/hello/": it must be exact, such as /api/users/hello`},
		{"a path that is a pattern", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/api/{name}" })},
			`hello has the Path "/api/{name}": it must be exact, such as /api/users/hello`},
		{"an unknown method", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Method = "get" })},
			`hello has the Method "get": it must be one of [GET POST PUT PATCH DELETE]`},
		{"a success status that is an error", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Success = 404 })},
			"hello has the Success 404: it must be a status from 200 to 299"},
		{"neither a path nor an event", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "" })},
			"hello has neither a Path nor a Trigger: no client can call it"},
		{"several problems", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Summary, e.Success = "", 0 })},
			"hello has no Summary\nhello has the Success 0: it must be a status from 200 to 299"},
	} {
		got := ""
		if err := catalog.Check(c.functions); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %s\nwant %s", c.name, got, c.want)
		}
	}
}
