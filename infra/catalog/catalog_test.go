package catalog_test

import (
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/openapi/docs"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/inprocess"
)

func TestCheck_Catalog(t *testing.T) {
	if err := catalog.Check(catalog.Functions()); err != nil {
		t.Error(err)
	}
}

func TestCheck_Problems(t *testing.T) {
	spec := endpoint.Spec{Method: "GET", Path: "/api/hello", Access: endpoint.Public, Success: 200, Summary: "Say hello."}
	with := func(change func(*endpoint.Function, *endpoint.Spec)) endpoint.Function {
		f := endpoint.Function{Name: "hello", Endpoints: []endpoint.Endpoint{{Spec: spec}}}
		change(&f, &f.Endpoints[0].Spec)
		return f
	}
	named := func(name string) endpoint.Function {
		return with(func(f *endpoint.Function, _ *endpoint.Spec) { f.Name = name })
	}
	at := func(path string) endpoint.Function {
		return with(func(_ *endpoint.Function, e *endpoint.Spec) { e.Path = path })
	}
	good := named("hello")
	other := with(func(f *endpoint.Function, e *endpoint.Spec) { f.Name, e.Path = "other", "/api/other" })
	type payload struct {
		Name string `json:"name"`
	}
	hello := event.Define[payload]("com.example.hello.v1", "", "Hello.")
	received := event.Define[payload]("com.example.received.v1", "/api/hello", "Received.")
	receiving := func(name string, reply *event.Type) endpoint.Function {
		return endpoint.Function{Name: name, Receivers: []endpoint.Receiver{{Types: []*event.Type{hello}, Reply: reply, Summary: "Receive hello."}}}
	}
	publishing := func(name string, types ...*event.Type) endpoint.Function {
		f := receiving(name, nil)
		f.Needs = []endpoint.Need{{Publishes: types}}
		return f
	}
	several := func(name string, specs ...endpoint.Spec) endpoint.Function {
		f := endpoint.Function{Name: name}
		for _, s := range specs {
			s.Access, s.Summary = endpoint.Public, "Do it."
			f.Endpoints = append(f.Endpoints, endpoint.Endpoint{Spec: s})
		}
		return f
	}
	for _, c := range []struct {
		name      string
		functions []endpoint.Function
		want      string
	}{
		{"no problem", []endpoint.Function{good, other, receiving("triggered", nil)}, ""},
		{"two functions on one route", []endpoint.Function{good, named("other")},
			"other has the Path /api/hello, the same as hello: no ingress routes by the method\nother has the operation GET /api/hello, the same as hello"},
		{"two functions of one name", []endpoint.Function{good, at("/api/other")},
			"hello is listed twice\nhello has the operation hello, the same as hello"},
		{"two functions for one event", []endpoint.Function{receiving("one", nil), receiving("two", nil)}, ""},
		{"one of two functions replies to an event", []endpoint.Function{receiving("one", received), receiving("two", nil)}, ""},
		{"two functions reply to one event", []endpoint.Function{receiving("one", received), receiving("two", received)},
			"two replies to the event com.example.hello.v1, as one does"},
		{"one function replies and another refuses", []endpoint.Function{receiving("one", received), {Name: "two", Receivers: []endpoint.Receiver{{Types: []*event.Type{hello}, Refusal: received, Summary: "Receive hello."}}}},
			"two replies to the event com.example.hello.v1, as one does"},
		{"two functions publish one event", []endpoint.Function{publishing("one", received), publishing("two", received)}, ""},
		{"an event that has two declarations", []endpoint.Function{publishing("one", received), publishing("two", event.Define[payload](received.Name, "/api/two", "Received."))},
			"two declares the event com.example.received.v1, which has a declaration: use that one"},
		{"a published event without a source", []endpoint.Function{publishing("one", hello)},
			"one publishes the event com.example.hello.v1, which has no source or no payload"},
		{"a published event without a payload", []endpoint.Function{publishing("one", event.Untyped("com.example.bye.v1", "Bye."))},
			"one publishes the event com.example.bye.v1, which has no source or no payload"},
		{"an event without a version", []endpoint.Function{publishing("one", event.Define[payload]("com.example.bye", "/api/one", "Bye."))},
			`one has the event "com.example.bye": its name must be labels of lower-case letters and digits and a version, such as com.ticketing.one.done.v1`},
		{"an event whose name is no file name", []endpoint.Function{publishing("one", event.Define[payload]("../bye.v1", "/api/one", "Bye."))},
			`one has the event "../bye.v1": its name must be labels of lower-case letters and digits and a version, such as com.ticketing.one.done.v1`},
		{"an event with a source that depends on the host", []endpoint.Function{publishing("one", event.Define[payload]("com.example.bye.v1", "https://tickets.example/api", "Bye."))},
			`one has the event com.example.bye.v1 with the source "https://tickets.example/api": it must be a path such as /api/one`},
		{"an event without a Summary", []endpoint.Function{publishing("one", event.Define[payload]("com.example.bye.v1", "/api/one", ""))},
			"one has no Summary of the event com.example.bye.v1"},
		{"the path of the event reference", []endpoint.Function{at("/asyncapi.yaml")},
			"hello has the Path /asyncapi.yaml, but the local runner serves it"},
		{"a path of a schema", []endpoint.Function{at("/schemas/hello")},
			"hello has the Path /schemas/hello, but the local runner serves it"},
		{"the path of the mails", []endpoint.Function{at("/mail")},
			"hello has the Path /mail, but the local runner serves it"},
		{"the path of a page that a mail links to", []endpoint.Function{at("/confirm/hello")},
			"hello has the Path /confirm/hello, but the local runner serves it"},
		{"several endpoints", []endpoint.Function{several("tickets",
			endpoint.Spec{ID: "list", Method: "GET", Path: "/api/tickets"}, endpoint.Spec{ID: "create", Method: "POST", Path: "/api/tickets"},
			endpoint.Spec{ID: "show", Method: "GET", Path: "/api/tickets/{id}"}, endpoint.Spec{ID: "mine", Method: "GET", Path: "/api/tickets/mine"})}, ""},
		{"one method and path twice", []endpoint.Function{several("tickets",
			endpoint.Spec{ID: "list", Method: "GET", Path: "/api/tickets"}, endpoint.Spec{ID: "find", Method: "GET", Path: "/api/tickets"})},
			"tickets has the operation GET /api/tickets, the same as tickets"},
		{"several endpoints without an id", []endpoint.Function{several("tickets",
			endpoint.Spec{ID: "list", Method: "GET", Path: "/api/tickets"}, endpoint.Spec{Method: "POST", Path: "/api/tickets"})},
			"tickets has several endpoints, and no ID of POST /api/tickets"},
		{"a path below the parameter of another function", []endpoint.Function{
			several("tickets", endpoint.Spec{ID: "show", Method: "GET", Path: "/api/tickets/{id}"}),
			several("sales", endpoint.Spec{ID: "sales", Method: "GET", Path: "/api/tickets/sales"})},
			"tickets has the Path /api/tickets/{id}, and sales has /api/tickets/sales: one function must serve both"},
		{"the path above the parameter of another function", []endpoint.Function{
			several("show", endpoint.Spec{ID: "show", Method: "GET", Path: "/api/tickets/{id}"}),
			several("list", endpoint.Spec{ID: "list", Method: "GET", Path: "/api/tickets"})},
			"show has the Path /api/tickets/{id}, and list has /api/tickets: one function must serve both"},
		{"two names for one parameter", []endpoint.Function{several("tickets",
			endpoint.Spec{ID: "show", Method: "GET", Path: "/api/tickets/{id}"}, endpoint.Spec{ID: "remove", Method: "DELETE", Path: "/api/tickets/{name}"})},
			"tickets has the Paths /api/tickets/{id} and /api/tickets/{name}: use one name for the parameter"},
		{"a name that is not a DNS label", []endpoint.Function{named("say_hello")},
			`"say_hello" cannot be the name of a function: it must be a DNS label of at most 50 lower-case letters, digits and hyphens`},
		{"the name of the Service with all functions", []endpoint.Function{named("auth")},
			"auth cannot be the name of a function: it is the Service with all functions"},
		{"the name of a database user", []endpoint.Function{named("migrate")},
			"migrate cannot be the name of a function: it is the database user that creates the indexes"},
		{"the name of the database's administrator", []endpoint.Function{named("root")},
			"root cannot be the name of a function: it is the administrator of the database"},
		{"the name of the shared key of the database members, without a route", []endpoint.Function{receiving("keyfile", nil)},
			"keyfile cannot be the name of a function: it is the shared key of the database members"},
		{"a name that only begins with a reserved one", []endpoint.Function{named("rooted")}, ""},
		{"the path of the health checks", []endpoint.Function{at("/health/liveness")},
			"hello has the Path /health/liveness, but every process serves it"},
		{"a path below the health checks", []endpoint.Function{at("/health/of/hello")},
			"hello has the Path /health/of/hello, but every process serves it"},
		{"the path of the reference", []endpoint.Function{at(docs.Path)},
			"hello has the Path /docs, but the local runner serves it"},
		{"the path of the OpenAPI document", []endpoint.Function{at("/openapi.yaml")},
			"hello has the Path /openapi.yaml, but the local runner serves it"},
		{"a path that only begins with a reserved one", []endpoint.Function{at("/healthy")}, ""},
		{"a path that ends with a slash", []endpoint.Function{at("/api/hello/")},
			`hello has the Path "/api/hello/": it must be exact, such as /api/users/hello, with at most one {name}`},
		{"a path with two parameters", []endpoint.Function{at("/api/{a}/{b}")},
			`hello has the Path "/api/{a}/{b}": it must be exact, such as /api/users/hello, with at most one {name}`},
		{"an unknown method", []endpoint.Function{with(func(_ *endpoint.Function, e *endpoint.Spec) { e.Method = "get" })},
			`hello has the Method "get": it must be one of [GET POST PUT PATCH DELETE]`},
		{"neither a path nor an event", []endpoint.Function{{Name: "hello"}},
			"hello has neither an endpoint nor a receiver: no client can call it"},
		{"several problems", []endpoint.Function{with(func(_ *endpoint.Function, e *endpoint.Spec) { e.Summary, e.Method = "", "get" })},
			"hello has no Summary of get /api/hello\nhello has the Method \"get\": it must be one of [GET POST PUT PATCH DELETE]"},
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

// A process with all functions includes each function that can work there, and a public one no
// internal endpoint.
func TestUsable(t *testing.T) {
	// the types that an added function takes from its own process
	own := inprocess.Types(slices.DeleteFunc(catalog.Functions(), func(f endpoint.Function) bool { return f.Name == "mail" }))
	for _, c := range []struct {
		settings              map[string]string
		confirms, relay, mail bool
	}{
		{nil, false, false, false},
		{map[string]string{"EVENTS": "insecure"}, false, false, false},
		{map[string]string{"MAIL_KEYS": "key"}, true, false, false},
		{map[string]string{"MAIL_KEYS_FILE": "/run/keys"}, true, false, false},
		{map[string]string{"SMTP_URL": "smtp://localhost"}, false, false, false},
		{map[string]string{"MAIL_KEYS": "key", "SMTP_URL": "smtp://localhost"}, true, true, true},
		{map[string]string{"MAIL_KEYS": "key", "SMTP_URL_FILE": "/run/smtp"}, true, true, true},
		{map[string]string{"EVENTS": "insecure", "MAIL_KEYS": "key", "SMTP_URL": "smtp://localhost"}, true, true, true},
		{map[string]string{"K_SINK": "http://sink"}, false, false, false},
		{map[string]string{"K_SINK": "http://sink", "MAIL_KEYS": "key", "SMTP_URL": "smtp://localhost"}, true, false, false},
		{map[string]string{"EVENTS": "insecure", "K_SINK": "http://sink"}, false, true, false},
	} {
		cfg := config.New(func(name string) (string, bool) { s, is := c.settings[name]; return s, is },
			func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
		for _, public := range []bool{false, true} {
			all := catalog.Usable(cfg)
			if public {
				all = catalog.AllInOne(cfg)
			}
			var got []string
			for _, f := range all {
				got = append(got, f.Name)
			}
			for _, f := range catalog.Functions() {
				internal := f.Name == "introspect" || f.Name == "revocations"
				confirms := f.Name == "verification" || f.Name == "recovery" || f.Name == "email"
				relay := c.relay || c.settings["K_SINK"] == "" && len(own) > 0
				if want := (f.Name != "relay" || relay) && (f.Name != "mail" || c.mail) && (!confirms || c.confirms) && !(public && internal); slices.Contains(got, f.Name) != want {
					t.Errorf("%v, public %t: got the functions %v, want %s among them: %t", c.settings, public, got, f.Name, want)
				}
			}
		}
	}
}

// Without K_SINK, a function that takes an event of the process is usable, and so is the relay.
func TestUsable_ReceiverInTheProcess(t *testing.T) {
	mail := endpoint.Function{Name: "mail", Receivers: []endpoint.Receiver{{Types: []*event.Type{event.SignedUp}, Summary: "Send a mail."}}}
	for _, c := range []struct {
		settings    map[string]string
		mail, relay bool
	}{
		{nil, true, true},
		{map[string]string{"EVENTS": "insecure"}, true, true},
		{map[string]string{"K_SINK": "http://sink"}, false, false},
		{map[string]string{"EVENTS": "insecure", "K_SINK": "http://sink"}, true, true},
	} {
		cfg := config.New(func(name string) (string, bool) { s, is := c.settings[name]; return s, is },
			func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
		all := catalog.UsableOf(cfg, append(catalog.Functions(), mail))
		for name, want := range map[string]bool{"mail": c.mail, "relay": c.relay, "signup": true} {
			if got := slices.ContainsFunc(all, func(f endpoint.Function) bool { return f.Name == name }); got != want {
				t.Errorf("%v: got the function %s: %t, want %t", c.settings, name, got, want)
			}
		}
	}
}
