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

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
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

// Every linked package adds to the cold start and to the attack surface. So a function links only
// what its Needs and its receivers require.
func TestFunctions_LinkedPackages(t *testing.T) {
	const functions = root + "functions/"
	allowed := map[string]map[string]bool{}
	for _, f := range catalog.Functions() {
		n := needs.Of(f)
		allowed[f.Name] = map[string]bool{
			"go.mongodb.org/mongo-driver/":   n.UsesDatabase(),
			"golang.org/x/crypto/argon2":     n.Hashes,
			"github.com/wneessen/go-mail/":   n.Mails,
			root + "shared/password/policy/": slices.Contains(n.Optional, "PASSWORD_BLOCKLIST_FILE"),
			"github.com/cloudevents/sdk-go/": len(n.Publishes)+len(f.Receivers) > 0,
			"github.com/coreos/go-oidc/":     len(f.Receivers) > 0,
			"github.com/golang-jwt/jwt/v5":   len(n.Secrets) > 0 || slices.Contains(n.Optional, "ACCESS_TOKEN_TTL"),
		}
	}
	for _, p := range packages(t) {
		if p.Name != "main" || !strings.HasPrefix(p.ImportPath, functions) {
			continue
		}
		name := path.Base(p.ImportPath)
		if allowed[name] == nil {
			t.Errorf("%s is not in the catalog", p.ImportPath)
		}
		for _, dep := range p.Deps {
			for heavy, is := range allowed[name] {
				if strings.HasPrefix(dep+"/", heavy) && !is {
					t.Errorf("%s links %s, want a program without it", p.ImportPath, dep)
				}
			}
			for _, never := range []string{"testing", "expvar", "net/http/pprof", "net/http/httptest", root + "shared/testing/mongotest", root + "shared/testing/devdb", root + "shared/testing/smtptest"} {
				if dep == never {
					t.Errorf("%s links %s, want a program without it", p.ImportPath, dep)
				}
			}
		}
	}
}
