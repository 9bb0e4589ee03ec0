package catalog_test

import (
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/openapi/docs"
	"ticketing.com/auth/shared/endpoint"
)

func TestTheCatalogCanBeDeployed(t *testing.T) {
	if err := catalog.Check(catalog.Functions()); err != nil {
		t.Error(err)
	}
}

func TestAnEntryThatCannotBeDeployedIsNamed(t *testing.T) {
	good := endpoint.Spec{Name: "hello", Method: "GET", Path: "/api/hello", Success: 200, Summary: "Say hello."}
	with := func(change func(*endpoint.Endpoint)) endpoint.Endpoint {
		e := endpoint.Endpoint{Spec: good}
		change(&e)
		return e
	}
	other := with(func(e *endpoint.Endpoint) { e.Name, e.Path = "other", "/api/other" })
	woken := with(func(e *endpoint.Endpoint) {
		e.Name, e.Path, e.Trigger.Types = "woken", "", []string{"com.example.hello"}
	})
	for _, c := range []struct {
		name      string
		functions []endpoint.Endpoint
		want      string
	}{
		{"nothing is wrong", []endpoint.Endpoint{{Spec: good}, other, woken}, ""},
		{"two functions on one route", []endpoint.Endpoint{{Spec: good}, with(func(e *endpoint.Endpoint) { e.Name = "other" })},
			"other has the Path /api/hello, which is hello's"},
		{"two functions of one name", []endpoint.Endpoint{{Spec: good}, with(func(e *endpoint.Endpoint) { e.Path = "/api/other" })},
			"hello is there twice"},
		{"two functions for one event", []endpoint.Endpoint{woken, with(func(e *endpoint.Endpoint) { e.Trigger.Types = woken.Trigger.Types })},
			"hello takes the event com.example.hello, which is woken's"},
		{"a name that is no DNS label", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "say_hello" })},
			`"say_hello" is no name for a function: it must be a DNS label of at most 50 lower-case letters, digits and hyphens`},
		{"the name of all functions in one", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "auth" })},
			"auth is no name for a function: the Service of all functions in one has it"},
		{"the name of a database user", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "migrate" })},
			"migrate is no name for a function: the database user that makes the indexes has it"},
		{"the name of the database's administrator", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "root" })},
			"root is no name for a function: the administrator of the database has it"},
		{"the name of the key among the database's members, without a route", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name, e.Path, e.Trigger.Types = "keyfile", "", woken.Trigger.Types })},
			"keyfile is no name for a function: the password that the members of the database share has it"},
		{"a name that only begins like a kept one", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Name = "rooted" })}, ""},
		{"the path of the health of a process", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/health/liveness" })},
			"hello has the Path /health/liveness, which every process answers itself"},
		{"a path below it", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/health/of/hello" })},
			"hello has the Path /health/of/hello, which every process answers itself"},
		{"the path of the reference", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = docs.Path })},
			"hello has the Path /docs, which the local runner answers itself"},
		{"the path of the reference's document", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/openapi.yaml" })},
			"hello has the Path /openapi.yaml, which the local runner answers itself"},
		{"a path that only begins like a kept one", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/healthy" })}, ""},
		{"a path that ends with a slash", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/api/hello/" })},
			`hello has the Path "/api/hello/": it must be exact, such as /api/users/hello`},
		{"a path that is a pattern", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "/api/{name}" })},
			`hello has the Path "/api/{name}": it must be exact, such as /api/users/hello`},
		{"a method that is none", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Method = "get" })},
			`hello has the Method "get": it must be one of [GET POST PUT PATCH DELETE]`},
		{"a success that is a failure", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Success = 404 })},
			"hello has the Success 404: it must be a status from 200 to 299"},
		{"nothing calls it", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Path = "" })},
			"hello has neither a Path nor a Trigger: nothing can call it"},
		{"all that is wrong is told", []endpoint.Endpoint{with(func(e *endpoint.Endpoint) { e.Summary, e.Success = "", 0 })},
			"hello has no Summary\nhello has the Success 0: it must be a status from 200 to 299"},
	} {
		got := ""
		if err := catalog.Check(c.functions); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}
