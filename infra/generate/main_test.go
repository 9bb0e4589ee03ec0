package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
)

var update = flag.Bool("update", false, "write the stale files")

func TestGenerate_NothingIsStale(t *testing.T) {
	stale, err := run(*update)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stale {
		if *update {
			t.Logf("wrote %s", path)
		} else {
			t.Errorf("%s is stale: run \"go run ./infra/generate\"", path)
		}
	}
}

func TestOutputs_HeaderAndDeterminism(t *testing.T) {
	for _, o := range outputs() {
		one, err := o.render(catalog.Functions())
		if err != nil {
			t.Fatal(err)
		}
		first, rest, _ := strings.Cut(string(one), "\n")
		if first == "{" { // JSON has no comments, so the first member is one
			first, _, _ = strings.Cut(rest, "\n")
		}
		if o.section == "" && (!strings.Contains(first, "go run ./infra/generate") || !strings.Contains(first, "DO NOT EDIT")) {
			t.Errorf("%s: got the first line %s, want one with the command and DO NOT EDIT", o.path, first)
		}
		if other, err := o.render(catalog.Functions()); err != nil || !bytes.Equal(one, other) {
			t.Errorf("%s: got different content in a second run, want the same: %v", o.path, err)
		}
	}
}

// A missing file is stale. The command writes only stale files. In a file with sections it
// changes nothing else.
func TestRun_StaleFiles(t *testing.T) {
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
			begin, end := o.markers()
			pages[o.path] += begin + end + "After " + o.section + ".\n"
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
		{"a check lists all", false, len(outputs())},
		{"the check has written none", true, len(outputs())},
		{"all were written", false, 0},
		{"there is nothing to write", true, 0},
	} {
		if stale, err := run(c.write); err != nil || len(stale) != c.stale {
			t.Errorf("%s: got the stale files %v and %v, want %d files", c.name, stale, err, c.stale)
		}
	}
	written, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil || !strings.HasPrefix(string(written), "Before.\n<!-- functions") || !strings.Contains(string(written), "end of functions -->\nAfter functions.\n") {
		t.Errorf("got README.md %s and %v, want the text before and after the section unchanged", written, err)
	}
	if err := os.WriteFile(filepath.Join(root, "README.md"), []byte("No section.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(true); err == nil || !strings.Contains(err.Error(), "README.md: there is no") {
		t.Errorf("a missing section: got %v, want an error that names README.md", err)
	}
	t.Chdir(os.TempDir())
	if _, err := run(false); err == nil {
		t.Error("outside a repository: got no error, want one")
	}
}
