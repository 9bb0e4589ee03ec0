// Package arch holds the walls of the house: which package may know of which.
//
//	functions/* → shared/*, infra/* → both; never sideways between functions,
//	never back
package arch_test

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	_ "ticketing.com/auth/infra/catalog" // so that a result is not remembered when a function has changed
)

const root = "ticketing.com/auth/"

type pkg struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Doc          string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Imports,TestImports,XTestImports,Deps,Doc", "work").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages", len(all))
	}
	return all
}

// room is the part of the house a package is in: shared, infra, or one function.
func room(importPath string) string {
	parts := strings.Split(strings.TrimPrefix(importPath, root), "/")
	if parts[0] == "functions" && len(parts) > 1 {
		return path.Join(parts[0], parts[1])
	}
	return parts[0]
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range packages(t) {
		from := room(p.ImportPath)
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if !strings.HasPrefix(imported, root) {
				continue
			}
			if to := room(imported); to != from && to != "shared" && from != "infra" {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && !strings.HasSuffix(p.ImportPath, "/arch") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// What a function links is what its cold start pays for, and what can be attacked
// in it.
func TestAFunctionLinksOnlyWhatItNeeds(t *testing.T) {
	const (
		functions = root + "functions/"
		driver    = "go.mongodb.org/mongo-driver/"
		hashes    = "golang.org/x/crypto/argon2"
		words     = root + "shared/password/policy/"
		events    = "github.com/cloudevents/sdk-go/"
		oidc      = "github.com/coreos/go-oidc/"
	)
	may := map[string][]string{ // what is not named here may link none of it
		functions + "signup/":      {driver, hashes, words, events, oidc},
		functions + "signin/":      {driver, hashes, events},
		functions + "signout/":     {driver, events, oidc},
		functions + "currentuser/": {driver},
		functions + "refresh/":     {driver, events},
		functions + "relay/":       {driver, events, oidc},
	}
	for _, p := range packages(t) {
		if p.Name != "main" || !strings.HasPrefix(p.ImportPath, functions) {
			continue
		}
		allowed := may[functions+path.Base(p.ImportPath)+"/"]
		for _, dep := range p.Deps {
			for _, heavy := range []string{driver, hashes, words, events, oidc} {
				if strings.HasPrefix(dep+"/", heavy) && !slices.Contains(allowed, heavy) {
					t.Errorf("%s links %s", p.ImportPath, dep)
				}
			}
			for _, never := range []string{"testing", "expvar", "net/http/pprof", "net/http/httptest", root + "shared/testing/mongotest", root + "shared/testing/devdb"} {
				if dep == never {
					t.Errorf("%s links %s", p.ImportPath, dep)
				}
			}
		}
	}
}
