// Package arch holds the walls of the house: which package may know of which.
//
//	functions/* → shared/*, infra/* → both; never sideways between functions,
//	never back
package arch_test

import (
	"encoding/json"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const root = "ticketing.com/auth/"

type pkg struct {
	ImportPath string
	Name       string
	Imports    []string
	Deps       []string
	Doc        string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Imports,Deps,Doc", "work").Output()
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
		for _, imported := range p.Imports {
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

// What a function links is what its cold start pays for, and what can be
// attacked in it.
func TestAFunctionLinksNoTestBenchAndNoWordListItDoesNotNeed(t *testing.T) {
	for _, p := range packages(t) {
		if p.Name != "main" || !strings.HasPrefix(room(p.ImportPath), "functions/") {
			continue
		}
		for _, dep := range p.Deps {
			switch {
			case dep == "testing", dep == "flag", dep == "expvar", dep == "net/http/pprof",
				strings.HasPrefix(dep, root+"shared/mongotest"), strings.HasPrefix(dep, root+"shared/embedded"):
				t.Errorf("%s links %s", p.ImportPath, dep)
			case strings.Contains(dep, "zxcvbn") && room(p.ImportPath) != "functions/signup":
				t.Errorf("%s links %s", p.ImportPath, dep)
			}
		}
	}
}
