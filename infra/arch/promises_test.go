package arch_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A promise is worth what its test is worth, and a test that is gone holds none.
func TestEveryPromiseNamesATestThatExists(t *testing.T) {
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
			there[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	promises, err := os.ReadFile("../../.github/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	named := aTest.FindAllStringSubmatch(string(promises), -1)
	if len(named) < 30 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
	rows, bare := unheld(string(promises))
	if rows < 40 {
		t.Errorf("only %d promises were found", rows)
	}
	for _, row := range bare {
		t.Errorf("nothing holds: %s", row)
	}
}

var aTest = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`")

// unheld returns how many promises the tables make, and those that neither name a test
// nor say that they are met by absence. In the table of what holds under attack every
// row is a promise, in that of requirements what is said to be met. A benchmark holds
// nothing: it only tells.
func unheld(document string) (rows int, bare []string) {
	attack := false
	for line := range strings.Lines(document) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") {
			attack = strings.Contains(line, "under attack")
		}
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.TrimSpace(cells[1]) == "" || strings.Contains(cells[1], "---") {
			continue
		}
		met := strings.HasPrefix(strings.TrimSpace(cells[2]), "met")
		if !attack && !met {
			continue
		}
		rows++
		held := slices.ContainsFunc(aTest.FindAllStringSubmatch(cells[3], -1), func(m []string) bool {
			return !strings.HasPrefix(m[1], "Benchmark")
		})
		if !held && !(met && strings.HasPrefix(strings.TrimSpace(cells[3]), "by absence: ")) {
			bare = append(bare, line)
		}
	}
	return rows, bare
}

func TestAPromiseThatNothingHoldsIsFound(t *testing.T) {
	for row, want := range map[string]int{
		"| 6.2.1 at least 8 characters | met | `TestCheck` |":                               0,
		"| 6.4.1 initial passwords | met | by absence: there are none |":                    0,
		"| 6.3.3 a second factor | not met | passwords alone |":                             0,
		"| 6.2.6 input fields | not ours | |":                                               0,
		"| 6.4.1 initial passwords | met | there are none |":                                1,
		"| 7.1.1 lifetime | met in part | 30 days |":                                        1,
		"| 6.1.1 brute force | met | `README` |":                                            1,
		"## What holds under attack\n| a flood | a line | `TestGate` |":                     0,
		"## What holds under attack\n| a flood | a line | `BenchmarkLoad` |":                1,
		"## What holds under attack\n| a flood | a line | by absence: nobody comes |":       1,
		"## What holds under attack\n| | | |\n|---|---|---|\n| a flood | a line | a word |": 1,
	} {
		if _, bare := unheld(row); len(bare) != want {
			t.Errorf("%s\nfound: %q", row, bare)
		}
	}
}

// A tag may be moved to another commit, a commit is what it is.
func TestEveryActionIsPinnedByItsCommit(t *testing.T) {
	workflows, err := filepath.Glob("../../.github/workflows/*")
	if err != nil || len(workflows) == 0 {
		t.Fatal("no workflows", err)
	}
	uses, pinned := regexp.MustCompile(`(?m)\buses:\s*(\S+)`), regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40}$`)
	for _, path := range workflows {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := uses.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s uses nothing", path)
		}
		for _, m := range found {
			if !pinned.MatchString(m[1]) {
				t.Errorf("%s: %s is not named by its commit", path, m[1])
			}
		}
	}
}
