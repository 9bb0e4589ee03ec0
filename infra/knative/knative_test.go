package knative_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/httpserver"
)

func rendered(t *testing.T, render func([]endpoint.Function) ([]byte, error)) string {
	t.Helper()
	out, err := render(catalog.Functions())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// documents returns the manifests of a kind, by name.
func documents(manifests, kind string) map[string]string {
	found := map[string]string{}
	name := regexp.MustCompile(`(?m)^  name: (\S+)`)
	for document := range strings.SplitSeq(manifests, "\n---\n") {
		if strings.Contains(document, "\nkind: "+kind+"\n") {
			found[name.FindStringSubmatch(document)[1]] = document
		}
	}
	return found
}

func TestServices_OwnServiceAccount(t *testing.T) {
	all := rendered(t, knative.Services) + "\n---\n" + rendered(t, knative.EventServices)
	services, accounts := documents(all, "Service"), documents(all, "ServiceAccount")
	for _, e := range catalog.Functions() {
		service := services[e.Name]
		if accounts[e.Name] == "" || !strings.Contains(service, "serviceAccountName: "+e.Name+"\n") {
			t.Errorf("%s has no service account of its own", e.Name)
		}
		const none = "automountServiceAccountToken: false"
		if !strings.Contains(accounts[e.Name], none) || !strings.Contains(service, none) {
			t.Errorf("%s mounts a token for the API server", e.Name)
		}
		if !strings.Contains(service, "networking.knative.dev/visibility: cluster-local\n") {
			t.Errorf("%s is not cluster-local", e.Name)
		}
	}
	if len(services) != len(catalog.Functions()) {
		t.Errorf("got %d services, want %d", len(services), len(catalog.Functions()))
	}
}

// A function accepts the connections of all requests that the queue-proxy sends at once,
// and as many again for probes and idle connections.
func TestServices_ConnectionsForQueueProxy(t *testing.T) {
	set := regexp.MustCompile(`(?s)containerConcurrency: (\d+)\n.*name: GOMEMLIMIT, value: (\d+)MiB`)
	for name, service := range documents(rendered(t, knative.Services)+"\n---\n"+rendered(t, knative.EventServices), "Service") {
		m := set.FindStringSubmatch(service)
		if m == nil {
			t.Errorf("%s has no containerConcurrency or no GOMEMLIMIT", name)
			continue
		}
		concurrency, _ := strconv.Atoi(m[1])
		limit, _ := strconv.Atoi(m[2])
		if connections := httpserver.MaxConnections(int64(limit) << 20); connections < 2*concurrency {
			t.Errorf("%s accepts %d connections, want %d", name, connections, 2*concurrency)
		}
	}
}

// The largest hash that can be imported needs a GOMEMLIMIT of 230 MiB, which a test of
// package password computes.
func TestServices_MemoryForImportedHashes(t *testing.T) {
	limit := regexp.MustCompile(`name: GOMEMLIMIT, value: (\d+)MiB`)
	services := documents(rendered(t, knative.Services)+"\n---\n"+rendered(t, knative.Small), "Service")
	for _, name := range []string{"signup", "signin", knative.AllInOne} {
		if m := limit.FindStringSubmatch(services[name]); m == nil || m[1] != "230" {
			t.Errorf("%s: got GOMEMLIMIT %v, want 230", name, m)
		}
	}
}

// The table is the intended state. The manifests follow from the needs of the functions.
func TestServices_SecretsOfEachFunction(t *testing.T) {
	services := documents(rendered(t, knative.Services)+"\n---\n"+rendered(t, knative.EventServices), "Service")
	secret := regexp.MustCompile(`secretKeyRef: \{name: (\S+), key`)
	for name, want := range map[string][]string{
		"signup":      {"mongodb-signup", "signing-keys"},
		"signin":      {"mongodb-signin", "signing-keys"},
		"refresh":     {"mongodb-refresh", "signing-keys"},
		"signout":     {"mongodb-signout", "verifying-keys"},
		"currentuser": {"mongodb-currentuser", "verifying-keys"},
		"jwks":        {"verifying-keys"},
		"relay":       {"mongodb-relay"},
	} {
		var got []string
		for _, m := range secret.FindAllStringSubmatch(services[name], -1) {
			got = append(got, m[1])
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s has the Secrets %v, want %v", name, got, want)
		}
	}
}

// A new secret is declared in one place, and every way of deploying refers to it.
func TestManifests_NewSecret(t *testing.T) {
	hello := endpoint.Function{
		Name:  "hello",
		Needs: []endpoint.Need{{Secret: &endpoint.Secret{Setting: "SMTP_URL", Name: "smtp", Key: "url", Sample: func() string { return "smtp://localhost" }}}},
		Endpoints: []endpoint.Endpoint{endpoint.Define(
			endpoint.Spec{Method: "GET", Path: "/api/hello", Access: endpoint.Public, Success: 200, Summary: "Say hello."},
			func(*config.Config) struct{} { return struct{}{} },
			func(struct{}, context.Context, endpoint.None) (string, error) { return "", nil })},
	}
	for name, c := range map[string]struct {
		render func([]endpoint.Function) ([]byte, error)
		want   string
	}{
		"services":   {knative.Services, "- {name: SMTP_URL, valueFrom: {secretKeyRef: {name: smtp, key: url}}}"},
		"all in one": {knative.Small, "- {name: SMTP_URL, valueFrom: {secretKeyRef: {name: smtp, key: url}}}"},
		"kn":         {knative.Kn, "--env-value-from SMTP_URL=secret:smtp:url"},
		"func":       {func(f []endpoint.Function) ([]byte, error) { return knative.Func(f[0]) }, "value: '{{ secret:smtp:url }}'"},
	} {
		if got, err := c.render([]endpoint.Function{hello}); err != nil || !strings.Contains(string(got), c.want) {
			t.Errorf("%s: got %s %v, want %s", name, got, err, c.want)
		}
	}
}

// No ingress routes by the method. A path with a {name} is a prefix, without what follows.
func TestIngress_PathsWithParameters(t *testing.T) {
	at := func(method, path string) endpoint.Endpoint {
		return endpoint.Endpoint{Spec: endpoint.Spec{Method: method, Path: path}}
	}
	tickets := []endpoint.Function{{Name: "tickets", Endpoints: []endpoint.Endpoint{
		at("GET", "/api/tickets"), at("POST", "/api/tickets"), at("GET", "/api/tickets/{id}"), at("POST", "/api/tickets/{id}/transfer")}}}
	for name, c := range map[string]struct {
		render func([]endpoint.Function) ([]byte, error)
		route  string
		want   []string
	}{
		"kourier": {knative.Kourier, `path: (\S+)\n +rewriteHost`, []string{"/api/tickets"}},
		"traefik": {knative.Traefik, `path: (\S+)\n +appendHeaders`, []string{"/api/tickets"}},
		"gateway": {knative.Gateway, `path: \{type: (\S+, value: \S+?)\}`, []string{"PathPrefix, value: /api/tickets"}},
	} {
		rendered, err := c.render(tickets)
		var got []string
		for _, m := range regexp.MustCompile(c.route).FindAllStringSubmatch(string(rendered), -1) {
			got = append(got, m[1])
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v %v, want %v", name, got, err, c.want)
		}
	}
}

// Longer paths come first, because some versions of an ingress take the first prefix that
// matches.
func TestIngress_RoutesToFunctions(t *testing.T) {
	var want []string
	for _, f := range catalog.Functions() {
		for _, e := range f.Routed() {
			path, _, _ := strings.Cut(e.Path, "/{")
			if route := path + " " + f.Name; !slices.Contains(want, route) {
				want = append(want, route)
			}
		}
	}
	slices.SortStableFunc(want, func(x, y string) int { return strings.Index(y, " ") - strings.Index(x, " ") })
	for name, ingress := range map[string]struct {
		render func([]endpoint.Function) ([]byte, error)
		route  string
	}{
		"kourier": {knative.Kourier, `path: (\S+)\n +rewriteHost: (\S+?)\.ticketing\.svc\.cluster\.local `},
		"traefik": {knative.Traefik, `path: (\S+)\n +appendHeaders: \{Host: (\S+?)\.ticketing\.svc\.cluster\.local\}\n.*traefik-internal`},
	} {
		var got []string
		for _, m := range regexp.MustCompile(ingress.route).FindAllStringSubmatch(rendered(t, ingress.render), -1) {
			got = append(got, m[1]+" "+m[2])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got  %v\nwant %v", name, got, want)
		}
	}
}

// The Gateway API limits the rules of a route, so each function has one rule with all its paths.
func TestGateway_RoutesToFunctions(t *testing.T) {
	rule := regexp.MustCompile(`    - matches:\n((?: +- path: .*\n)+) +filters: .*hostname: (\S+?)\.ticketing\.svc\.cluster\.local\}`)
	path := regexp.MustCompile(`value: (\S+?)\}`)
	got := map[string][]string{}
	for _, r := range rule.FindAllStringSubmatch(rendered(t, knative.Gateway), -1) {
		if got[r[2]] != nil {
			t.Errorf("%s has two rules, want one", r[2])
		}
		for _, p := range path.FindAllStringSubmatch(r[1], -1) {
			got[r[2]] = append(got[r[2]], p[1])
		}
	}
	for _, f := range catalog.Functions() {
		var want []string
		for _, e := range f.Routed() {
			if p, _, _ := strings.Cut(e.Path, "/{"); !slices.Contains(want, p) {
				want = append(want, p)
			}
		}
		slices.Sort(want)
		slices.Sort(got[f.Name])
		if !slices.Equal(got[f.Name], want) {
			t.Errorf("%s: got the paths %v, want %v", f.Name, got[f.Name], want)
		}
	}
	many := func(functions, paths int) (all []endpoint.Function) {
		for i := range functions {
			f := endpoint.Function{Name: fmt.Sprint("f", i)}
			for j := range paths {
				f.Endpoints = append(f.Endpoints, endpoint.Endpoint{Spec: endpoint.Spec{Path: fmt.Sprintf("/api/%d/%d", i, j)}})
			}
			all = append(all, f)
		}
		return all
	}
	for _, c := range []struct {
		functions, paths int
		fits             bool
	}{{16, 8, true}, {17, 1, false}, {1, 9, false}} {
		if _, err := knative.Gateway(many(c.functions, c.paths)); (err == nil) != c.fits {
			t.Errorf("%d functions with %d paths: got error %v, want one: %t", c.functions, c.paths, err, !c.fits)
		}
	}
}

// infra/keys creates every Secret that a manifest refers to, with the key.
func TestManifests_SecretReferencesExist(t *testing.T) {
	created := documents(secrets(t, ""), "Secret")
	reference := regexp.MustCompile(`secretKeyRef: \{name: (\S+), key: ([^}]+)\}|secretName: (\w+), items: \[\{key: (\w+)`)
	references := 0
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		manifest, err := os.ReadFile(path)
		for _, m := range reference.FindAllStringSubmatch(string(manifest), -1) {
			references++
			if name, key := m[1]+m[3], m[2]+m[4]; !strings.Contains(created[name], "\n  "+key+": ") {
				t.Errorf("%s refers to the key %s of the Secret %s, which infra/keys does not create", path, key, name)
			}
		}
		return err
	})
	if err != nil || references < 15 {
		t.Errorf("got %d references and the error %v, want at least 15", references, err)
	}
}

// Only functions with rate limits have write access to the collection ratelimits. Only functions that
// read the client address have the activator in every request path.
func TestDatabaseUsers_RateLimitAccess(t *testing.T) {
	script, err := os.ReadFile("mongodb/users.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range catalog.Functions() {
		limited := slices.Contains(needs.Of(e).Optional, "RATE_LIMIT")
		reads := needs.Of(e).ReadsClient
		granted := regexp.MustCompile(`(?m)^  "` + e.Name + `": \[\n(?:    .*\n)*?.*"ratelimits", actions: \["find", "insert", "update"\]`).Match(script)
		activator := strings.Contains(documents(rendered(t, knative.Services), "Service")[e.Name], `target-burst-capacity: "-1"`)
		if granted != limited || activator != reads {
			t.Errorf("%s: rate limited: %v; has write access: %v; reads the client address: %v; behind the activator: %v; want two equal pairs", e.Name, limited, granted, reads, activator)
		}
	}
}

// The Service with all routes has the needs of a function that takes its events in the process. It
// has no sink, and it accepts no events of clients.
func TestSmall_ReceiverInTheProcess(t *testing.T) {
	mails := &endpoint.Collection{Database: "users", Name: "mails"}
	mail := endpoint.Function{
		Name: "mail",
		Needs: []endpoint.Need{{Secret: &endpoint.Secret{Setting: "SMTP_URL", Name: "smtp", Key: "url", Sample: func() string { return "smtp://localhost" }}},
			mails.Grant(endpoint.Insert)},
		Receivers: []endpoint.Receiver{{Types: []*event.Type{event.SignedUp}, Summary: "Send a mail."}},
	}
	functions := append(catalog.Functions(), mail)
	for name, c := range map[string]struct {
		render func([]endpoint.Function) ([]byte, error)
		want   string
	}{
		"manifest": {knative.Small, "- {name: SMTP_URL, valueFrom: {secretKeyRef: {name: smtp, key: url}}}"},
		"func":     {knative.FuncAllInOne, "value: '{{ secret:smtp:url }}'"},
		"rights":   {knative.Rights, `"auth": [`},
	} {
		got, err := c.render(functions)
		if err != nil || !strings.Contains(string(got), c.want) || name != "rights" && strings.Contains(string(got), "EVENTS") {
			t.Errorf("%s: got %s %v, want %s and no EVENTS", name, got, err, c.want)
		}
		if _, auth, _ := strings.Cut(string(got), c.want); name == "rights" && !strings.Contains(strings.Split(auth, "\n  ],")[0], `collection: "mails"`) {
			t.Errorf("got the rights %s, want one on mails", got)
		}
	}
}

// The rights agree with "read only" in the table of functions.
func TestDatabaseUsers_ReadOnly(t *testing.T) {
	script, err := os.ReadFile("mongodb/users.js")
	if err != nil {
		t.Fatal(err)
	}
	readers := regexp.MustCompile(`\[(\w+)\].* database \(read only\)`).FindAllStringSubmatch(rendered(t, knative.Table), -1)
	if len(readers) == 0 {
		t.Error("the table has no read-only function, want at least one")
	}
	for _, m := range readers {
		if !strings.Contains(string(script), "\n  \""+m[1]+"\": [\n    { db: \"users\", collection: \"users\", actions: [\"find\"] },\n  ],\n") {
			t.Errorf("users.js grants %s more than find", m[1])
		}
	}
}

// No function can have the name of a resource in the handwritten manifests.
func TestCatalog_RejectsNamesOfManifests(t *testing.T) {
	taken := map[string]string{knative.AllInOne: "the service of all routes"}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, "functions.yaml") || path == "accounts.yaml" {
			return err
		}
		manifest, err := os.ReadFile(path)
		for _, kind := range []string{"Service", "ServiceAccount", "Deployment", "StatefulSet", "Job"} {
			for name := range documents(string(manifest), kind) {
				taken[name] = path
			}
		}
		return err
	})
	if err != nil || len(taken) < 5 {
		t.Errorf("got %d names and the error %v, want at least 5", len(taken), err)
	}
	_, err = knative.Secrets(catalog.Functions(), knative.Material{Password: func(user string) string {
		if !slices.ContainsFunc(catalog.Functions(), func(f endpoint.Function) bool { return f.Name == user }) {
			taken[user] = "a database user"
		}
		return "secret"
	}})
	if err != nil || taken["root"] == "" {
		t.Errorf("got the error %v, want a password of root", err)
	}
	for name, of := range taken {
		e := endpoint.Endpoint{Spec: endpoint.Spec{Method: "GET", Path: "/api/hello", Summary: "Say hello."}}
		if err := catalog.Check([]endpoint.Function{{Name: name, Endpoints: []endpoint.Endpoint{e}}}); err == nil {
			t.Errorf("a function can have the name %s of %s", name, of)
		}
	}
}

// users.js grants rights to exactly the users that have a password.
func TestDatabaseUsers_MatchSecrets(t *testing.T) {
	script, err := os.ReadFile("mongodb/users.js")
	if err != nil {
		t.Fatal(err)
	}
	var granted, want []string
	for _, m := range regexp.MustCompile(`(?m)^  "(\w+)": \[$`).FindAllStringSubmatch(string(script), -1) {
		granted = append(granted, m[1])
	}
	for name := range documents(secrets(t, ""), "Secret") {
		if user, is := strings.CutPrefix(name, "mongodb-"); is {
			want = append(want, user)
		}
	}
	slices.Sort(granted)
	if slices.Sort(want); len(want) < 2 || !slices.Equal(granted, want) {
		t.Errorf("users.js gives rights to %v, Secrets are for %v", granted, want)
	}
}

func TestSecrets_ExternalDatabase(t *testing.T) {
	for uri, want := range map[string]string{
		"mongodb://u:p@db.example/users": "must not contain a user",
		"db.example":                     "must begin with mongodb://",
		"http://db.example":              "must begin with mongodb://",
		"mongodb+srv://db.example":       "must end with the database name users",
		"mongodb://db.example/tickets":   "must end with the database name users",
		"mongodb://db.example/?w=1":      "must end with the database name users",
	} {
		_, err := knative.Secrets(catalog.Functions(), knative.Material{Password: strings.ToUpper, MongoDB: uri})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), uri) {
			t.Errorf("%s: got the error %v, want one with %q and without the URI", uri, err, want)
		}
	}
	if got := secrets(t, "mongodb+srv://db.example/users?authSource=admin"); strings.Contains(got, "root") ||
		!strings.Contains(got, `uri: "mongodb+srv://signin:SIGNIN@db.example/users?authSource=admin"`) {
		t.Errorf("got %s, want the URI of each user and no root", got)
	}
}

func secrets(t *testing.T, mongodb string) string {
	t.Helper()
	out, err := knative.Secrets(catalog.Functions(), knative.Material{Password: strings.ToUpper, MongoDB: mongodb})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Each function that takes a type has a Trigger of its own for it, and only one, although several
// of its receivers may take the type. A PingSource delivers without a broker.
func TestTriggers(t *testing.T) {
	sold := event.Define[struct{}]("com.example.sold.v1", "/api/tickets", "A ticket was sold.")
	bought := event.Define[struct{}]("com.example.bought.v1", "/api/tickets", "A ticket was bought.")
	ping := event.Untyped("dev.knative.sources.ping", "A ping.")
	taking := func(types ...*event.Type) endpoint.Receiver { return endpoint.Receiver{Types: types} }
	out, err := knative.Triggers([]endpoint.Function{
		{Name: "mail", Receivers: []endpoint.Receiver{taking(sold), taking(bought, sold)}},
		{Name: "audit", Receivers: []endpoint.Receiver{taking(ping, sold)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name, document := range documents(string(out), "Trigger") {
		kind := regexp.MustCompile(`type: (\S+)}}`).FindStringSubmatch(document)[1]
		got[name] = kind + " " + regexp.MustCompile(`kind: Service, name: (\S+)}}`).FindStringSubmatch(document)[1]
	}
	want := map[string]string{"mail-1": sold.Name + " mail", "mail-2": bought.Name + " mail", "audit-2": sold.Name + " audit"}
	if !maps.Equal(got, want) {
		t.Errorf("got the triggers %v, want %v", got, want)
	}
	if sources := documents(string(out), "PingSource"); len(sources) != 1 || sources["audit"] == "" {
		t.Errorf("got the sources %v, want one of audit", sources)
	}
}
