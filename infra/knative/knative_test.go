package knative_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/settings"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

func rendered(t *testing.T, render func([]endpoint.Endpoint) ([]byte, error)) string {
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

func TestEveryFunctionIsAServiceWithAnAccountOfItsOwn(t *testing.T) {
	all := rendered(t, knative.Services) + "\n---\n" + rendered(t, knative.Takers)
	services, accounts := documents(all, "Service"), documents(all, "ServiceAccount")
	for _, e := range catalog.Functions() {
		service := services[e.Name]
		if accounts[e.Name] == "" || !strings.Contains(service, "serviceAccountName: "+e.Name+"\n") {
			t.Errorf("%s has no account of its own", e.Name)
		}
		const none = "automountServiceAccountToken: false"
		if !strings.Contains(accounts[e.Name], none) || !strings.Contains(service, none) {
			t.Errorf("%s has a token for the API server", e.Name)
		}
		if !strings.Contains(service, "networking.knative.dev/visibility: cluster-local\n") {
			t.Errorf("%s can be reached from outside", e.Name)
		}
	}
	if len(services) != len(catalog.Functions()) {
		t.Errorf("%d services for %d functions", len(services), len(catalog.Functions()))
	}
}

// A function accepts the connections of all requests that the queue-proxy sends at once,
// and as many again for probes and idle connections.
func TestServices_ConnectionsForQueueProxy(t *testing.T) {
	set := regexp.MustCompile(`(?s)containerConcurrency: (\d+)\n.*name: GOMEMLIMIT, value: (\d+)MiB`)
	for name, service := range documents(rendered(t, knative.Services)+"\n---\n"+rendered(t, knative.Takers), "Service") {
		m := set.FindStringSubmatch(service)
		if m == nil {
			t.Errorf("%s has no limits", name)
			continue
		}
		atOnce, _ := strconv.Atoi(m[1])
		limit, _ := strconv.Atoi(m[2])
		if most := httpserver.MaxConnections(int64(limit) << 20); most < 2*atOnce {
			t.Errorf("%s accepts %d connections, want %d", name, most, 2*atOnce)
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
			t.Errorf("%s: GOMEMLIMIT %v, want 230", name, m)
		}
	}
}

// What is written here is the intention; the manifests are made from what the
// functions ask for.
func TestAFunctionHoldsTheSecretsOfItsRoleAndNoOther(t *testing.T) {
	services := documents(rendered(t, knative.Services)+"\n---\n"+rendered(t, knative.Takers), "Service")
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
			t.Errorf("%s holds %v, want %v", name, got, want)
		}
	}
}

func TestAFunctionThatNeedsASecretNobodyHasIsNamed(t *testing.T) {
	spec := endpoint.Spec{Name: "hello", Method: "GET", Path: "/api/hello", Success: 200, Summary: "Say hello."}
	hello := endpoint.Define(spec, func(cfg *config.Config) endpoint.Handler[endpoint.None, string] {
		cfg.Required("SMTP_URL")
		return func(context.Context, endpoint.None) (string, error) { return "", nil }
	})
	for name, render := range map[string]func([]endpoint.Endpoint) ([]byte, error){
		"services": knative.Services, "all in one": knative.Small, "kn": knative.Kn, "skaffold": knative.Skaffold,
	} {
		if _, err := render([]endpoint.Endpoint{hello}); err == nil || !strings.Contains(err.Error(), "hello needs SMTP_URL, and nothing says where a deployment has that") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryFormOfTheIngressLeadsEveryRouteToItsFunction(t *testing.T) {
	var want []string
	for _, e := range catalog.Functions() {
		if e.Path != "" {
			want = append(want, fmt.Sprintf("%s %s", e.Path, e.Name))
		}
	}
	for name, form := range map[string]struct {
		render func([]endpoint.Endpoint) ([]byte, error)
		route  string
	}{
		"kourier": {knative.Kourier, `path: (\S+)\n +rewriteHost: (\S+?)\.ticketing\.svc\.cluster\.local `},
		"traefik": {knative.Traefik, `path: (\S+)\n +appendHeaders: \{Host: (\S+?)\.ticketing\.svc\.cluster\.local\}\n.*traefik-internal`},
		"gateway": {knative.Gateway, `type: Exact, value: (\S+?)\}\}\]\n.*hostname: (\S+?)\.ticketing\.svc\.cluster\.local\}`},
	} {
		var got []string
		for _, m := range regexp.MustCompile(form.route).FindAllStringSubmatch(rendered(t, form.render), -1) {
			got = append(got, m[1]+" "+m[2])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v\nwant %v", name, got, want)
		}
	}
}

// Every Secret that a manifest names is made by infra/keys, and with that key.
func TestEverySecretThatIsNamedIsMade(t *testing.T) {
	made := documents(secrets(t, ""), "Secret")
	reference := regexp.MustCompile(`secretKeyRef: \{name: (\S+), key: ([^}]+)\}|secretName: (\w+), items: \[\{key: (\w+)`)
	named := 0
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		manifest, err := os.ReadFile(path)
		for _, m := range reference.FindAllStringSubmatch(string(manifest), -1) {
			named++
			if name, key := m[1]+m[3], m[2]+m[4]; !strings.Contains(made[name], "\n  "+key+": ") {
				t.Errorf("%s names %s of the Secret %s, which is not made", path, key, name)
			}
		}
		return err
	})
	if err != nil || named < 15 {
		t.Errorf("%d names: %v", named, err)
	}
}

// Who counts is given the right to, and nobody else.
func TestOnlyWhoCountsMayWriteThere(t *testing.T) {
	script, err := os.ReadFile("mongodb/users.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range catalog.Functions() {
		asked, err := settings.Of(e)
		if err != nil {
			t.Fatal(err)
		}
		counts := slices.Contains(asked.Optional, "RATE_LIMIT")
		may := regexp.MustCompile(`(?m)^  ` + e.Name + `: .*ratelimits: count`).Match(script)
		always := strings.Contains(documents(rendered(t, knative.Services), "Service")[e.Name], `target-burst-capacity: "-1"`)
		if may != counts || always != counts {
			t.Errorf("%s counts: %v; it may: %v; it has the activator before it: %v", e.Name, counts, may, always)
		}
	}
}

// What the README's table calls read only is.
func TestWhoOnlyReadsMayOnlyRead(t *testing.T) {
	script, err := os.ReadFile("mongodb/users.js")
	if err != nil {
		t.Fatal(err)
	}
	readers := regexp.MustCompile(`\[(\w+)\].* database \(read only\)`).FindAllStringSubmatch(rendered(t, knative.Table), -1)
	if len(readers) == 0 {
		t.Error("nobody only reads")
	}
	for _, m := range readers {
		if !strings.Contains(string(script), "\n  "+m[1]+": { users: [\"find\"] },\n") {
			t.Errorf("%s may more than find", m[1])
		}
	}
}

// Whatever of the manifests is written by hand has a name that no function may take.
func TestNoFunctionTakesTheNameOfSomethingElse(t *testing.T) {
	taken := map[string]string{knative.AllInOne: "all functions in one"}
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
		t.Errorf("%d names: %v", len(taken), err)
	}
	_, err = knative.Secrets(catalog.Functions(), knative.Material{Password: func(user string) string {
		if !slices.ContainsFunc(catalog.Functions(), func(e endpoint.Endpoint) bool { return e.Name == user }) {
			taken[user] = "a password"
		}
		return "secret"
	}})
	if err != nil || taken["root"] == "" {
		t.Errorf("root has no password: %v", err)
	}
	for name, of := range taken {
		e := endpoint.Endpoint{Spec: endpoint.Spec{Name: name, Method: "GET", Path: "/api/hello", Success: 200, Summary: "Say hello."}}
		if err := catalog.Check([]endpoint.Endpoint{e}); err == nil {
			t.Errorf("a function may be called %s, as %s is", name, of)
		}
	}
}

// The script that makes the database's users knows the ones who have a password.
func TestEveryDatabaseUserIsGivenRights(t *testing.T) {
	script, err := os.ReadFile("mongodb/users.js")
	if err != nil {
		t.Fatal(err)
	}
	var given, want []string
	for _, m := range regexp.MustCompile(`(?m)^  (\w+): \{ users: `).FindAllStringSubmatch(string(script), -1) {
		given = append(given, m[1])
	}
	for name := range documents(secrets(t, ""), "Secret") {
		if user, is := strings.CutPrefix(name, "mongodb-"); is {
			want = append(want, user)
		}
	}
	slices.Sort(given)
	if slices.Sort(want); len(want) < 2 || !slices.Equal(given, want) {
		t.Errorf("users.js gives rights to %v, Secrets have %v", given, want)
	}
}

func TestADatabaseOfOnesOwnIsNamedWithoutAUser(t *testing.T) {
	for uri, says := range map[string]string{
		"mongodb://u:p@db.example/users": "must name no user",
		"db.example":                     "must begin with mongodb://",
		"http://db.example":              "must begin with mongodb://",
		"mongodb+srv://db.example":       "must name the database",
		"mongodb://db.example/tickets":   "must name the database",
		"mongodb://db.example/?w=1":      "must name the database",
	} {
		_, err := knative.Secrets(catalog.Functions(), knative.Material{Password: strings.ToUpper, MongoDB: uri})
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), uri) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	if made := secrets(t, "mongodb+srv://db.example/users?authSource=admin"); strings.Contains(made, "root") ||
		!strings.Contains(made, `uri: "mongodb+srv://signin:SIGNIN@db.example/users?authSource=admin"`) {
		t.Error(made)
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
