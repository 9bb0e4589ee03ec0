package arch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestVersionsTried_AreThoseOfGoMod(t *testing.T) {
	const folder = "../../docs"
	document, err := os.ReadFile(filepath.Join(folder, "versions.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| ([^|]+) \\| ([0-9.]+) \\| `([^`]+)` \\| \\[go.mod\\]\\(([^)]+)\\) \\|")
	rows := row.FindAllStringSubmatch(string(document), -1)
	if want := strings.Count(string(document), "go.mod)"); len(rows) != want || want == 0 {
		t.Fatalf("%d rows have the form of a version of a module, want %d", len(rows), want)
	}
	for _, r := range rows {
		mod, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(r[4])))
		if err != nil {
			t.Error(err)
			continue
		}
		pinned := regexp.MustCompile(`(?m)^(?:require )?\s*` + regexp.QuoteMeta(r[3]) + ` v(\S+)`).FindSubmatch(mod)
		if pinned == nil || string(pinned[1]) != r[2] {
			t.Errorf("%s: the version is %s, and %s has %q", r[1], r[2], r[4], pinned)
		}
	}
}
