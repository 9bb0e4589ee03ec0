package arch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestVersionsPage_MatchesGoMod(t *testing.T) {
	const folder = "../../docs"
	document, err := os.ReadFile(filepath.Join(folder, "versions.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| ([^|]+) \\| ([0-9.]+) \\| `([^`]+)` \\| \\[go.mod\\]\\(([^)]+)\\) \\|")
	rows := row.FindAllStringSubmatch(string(document), -1)
	if want := strings.Count(string(document), "go.mod)"); len(rows) != want || want == 0 {
		t.Fatalf("got %d rows with the version of a module, want %d and more than 0", len(rows), want)
	}
	for _, r := range rows {
		mod, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(r[4])))
		if err != nil {
			t.Error(err)
			continue
		}
		pinned := regexp.MustCompile(`(?m)^(?:require )?\s*` + regexp.QuoteMeta(r[3]) + ` v(\S+)`).FindSubmatch(mod)
		if pinned == nil || string(pinned[1]) != r[2] {
			t.Errorf("%s: versions.md has %s, and %s has %q", r[1], r[2], r[4], pinned)
		}
	}
}
