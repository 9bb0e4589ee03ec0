package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
)

var update = flag.Bool("update", false, "write what is stale")

func TestNothingThatIsGeneratedIsStale(t *testing.T) {
	stale, err := run(*update)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stale {
		if *update {
			t.Logf("%s is written", path)
		} else {
			t.Errorf("%s is stale: run go run ./infra/generate", path)
		}
	}
}

func TestAGeneratedFileSaysWhoseItIsAndIsAlwaysTheSame(t *testing.T) {
	for _, o := range outputs() {
		one, err := o.render(catalog.Functions())
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(one), "\n")
		if o.section == "" && (!strings.Contains(first, "go run ./infra/generate") || !strings.Contains(first, "DO NOT EDIT")) {
			t.Errorf("%s begins with %s", o.path, first)
		}
		if other, err := o.render(catalog.Functions()); err != nil || !bytes.Equal(one, other) {
			t.Errorf("%s differs from one run to the next: %v", o.path, err)
		}
	}
}

// A file that is not there is stale; it is written, and only what is stale is. Of a
// file with sections the rest stays.
func TestWhatIsStaleIsNamedAndMended(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "go.work"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{"README.md": "Before.\n"}
	for _, o := range outputs() {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(o.path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if o.section != "" {
			pages[o.path] += fmt.Sprintf("<!-- %s: made by \"go run ./infra/generate\" -->\n<!-- end of %[1]s -->\nAfter %[1]s.\n", o.section)
		}
	}
	for path, text := range pages {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(root, filepath.Dir(outputs()[0].path))) // from below the root, as go generate does
	for _, c := range []struct {
		name  string
		write bool
		stale int
	}{
		{"a check names all", false, len(outputs())},
		{"it has written none", true, len(outputs())},
		{"all were written", false, 0},
		{"so there is nothing to write", true, 0},
	} {
		if stale, err := run(c.write); err != nil || len(stale) != c.stale {
			t.Errorf("%s: %v %v", c.name, stale, err)
		}
	}
	written, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil || !strings.HasPrefix(string(written), "Before.\n<!-- functions") || !strings.Contains(string(written), "end of functions -->\nAfter functions.\n") {
		t.Errorf("%s %v", written, err)
	}
	if err := os.WriteFile(filepath.Join(root, "README.md"), []byte("No section.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(true); err == nil || !strings.Contains(err.Error(), "README.md: there is no") {
		t.Errorf("a section that is not there: %v", err)
	}
	t.Chdir(os.TempDir())
	if _, err := run(false); err == nil {
		t.Error("it found a repository where there is none")
	}
}
