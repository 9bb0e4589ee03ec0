package catalog_test

import (
	"testing"

	"ticketing.com/auth/infra/catalog"
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
