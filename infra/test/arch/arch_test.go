// Package arch tests rules for the whole repository. The first is the direction of imports:
//
//	functions/* → shared/*, infra/* → both; never between functions, never back
package arch_test

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	_ "ticketing.com/auth/infra/catalog" // a changed function invalidates the test cache
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
		t.Fatalf("got %d packages, want at least 20", len(all))
	}
	return all
}

// part returns the part of the repository that a package belongs to: shared, infra, or one
// function.
func part(importPath string) string {
	parts := strings.Split(strings.TrimPrefix(importPath, root), "/")
	if parts[0] == "functions" && len(parts) > 1 {
		return path.Join(parts[0], parts[1])
	}
	return parts[0]
}

func TestImports_OneDirection(t *testing.T) {
	for _, p := range packages(t) {
		from := part(p.ImportPath)
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if !strings.HasPrefix(imported, root) {
				continue
			}
			if to := part(imported); to != from && to != "shared" && from != "infra" {
				t.Errorf("%s imports %s, want imports of its own part and shared only", p.ImportPath, imported)
			}
		}
	}
}

func TestPackages_HaveComments(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && !strings.HasSuffix(p.ImportPath, "/arch") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// Every linked package adds to the cold start and to the attack surface.
func TestFunctions_LinkedPackages(t *testing.T) {
	const (
		functions = root + "functions/"
		driver    = "go.mongodb.org/mongo-driver/"
		hashes    = "golang.org/x/crypto/argon2"
		words     = root + "shared/password/policy/"
		events    = "github.com/cloudevents/sdk-go/"
		oidc      = "github.com/coreos/go-oidc/"
	)
	may := map[string][]string{ // other functions may link none of these
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
					t.Errorf("%s links %s, want a program without it", p.ImportPath, dep)
				}
			}
			for _, never := range []string{"testing", "expvar", "net/http/pprof", "net/http/httptest", root + "shared/testing/mongotest", root + "shared/testing/devdb"} {
				if dep == never {
					t.Errorf("%s links %s, want a program without it", p.ImportPath, dep)
				}
			}
		}
	}
}
