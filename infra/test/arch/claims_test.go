package arch_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every test that security.md names exists, and every claim names a test.
func TestSecurityClaims_NameExistingTests(t *testing.T) {
	existing := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
			existing[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := testName.FindAllStringSubmatch(string(document), -1)
	if len(named) < 30 {
		t.Errorf("security.md names %d tests, want at least 30", len(named))
	}
	for _, m := range named {
		if !existing[m[1]] {
			t.Errorf("security.md names %s, which does not exist", m[1])
		}
	}
	claims, untested := untestedClaims(string(document))
	if claims < 40 {
		t.Errorf("got %d claims, want at least 40", claims)
	}
	for _, row := range untested {
		t.Errorf("this claim names no test: %s", row)
	}
}

var testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`")

// untestedClaims returns the number of claims in the tables, and the claims that neither name
// a test nor say that they are met by absence. In the section about attacks every row is a
// claim, except the header. In the table of requirements every row that is met is a claim. A
// benchmark does not count as a test.
func untestedClaims(document string) (claims int, untested []string) {
	attack := false
	lines := strings.Split(document, "\n")
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---") {
			continue
		}
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
		claims++
		tested := slices.ContainsFunc(testName.FindAllStringSubmatch(cells[3], -1), func(m []string) bool {
			return !strings.HasPrefix(m[1], "Benchmark")
		})
		if !tested && !(met && strings.HasPrefix(strings.TrimSpace(cells[3]), "by absence: ")) {
			untested = append(untested, line)
		}
	}
	return claims, untested
}

func TestSecurityClaims_FindsUntestedClaims(t *testing.T) {
	for row, want := range map[string]int{
		"| 6.2.1 at least 8 characters | met | `TestCheck` |":                                                      0,
		"| 6.4.1 initial passwords | met | by absence: there are none |":                                           0,
		"| 6.3.3 a second factor | not met | passwords alone |":                                                    0,
		"| 6.2.6 input fields | not applicable | |":                                                                0,
		"| 6.4.1 initial passwords | met | there are none |":                                                       1,
		"| 7.1.1 lifetime | met in part | 30 days |":                                                               1,
		"| 6.1.1 brute force | met | `README` |":                                                                   1,
		"## What holds under attack\n| a flood | a queue | `TestGate` |":                                           0,
		"## What holds under attack\n| a flood | a queue | `BenchmarkLoad` |":                                      1,
		"## What holds under attack\n| a flood | a queue | by absence: there is no attack |":                       1,
		"## What holds under attack\n| attack | behaviour | test |\n|---|---|---|\n| a flood | a queue | a word |": 1,
	} {
		if _, untested := untestedClaims(row); len(untested) != want {
			t.Errorf("%s\ngot the untested claims %q, want %d", row, untested, want)
		}
	}
}

// The table has every requirement of chapters V6, V7 and V9 of OWASP ASVS 5.0.0 once, with
// its level.
func TestASVS_ListsEveryRequirement(t *testing.T) {
	document, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(document), "\n## OWASP ASVS 5.0.0\n")
	got := requirements(table)
	want := 0
	for section, levels := range map[string]string{ // a digit for each requirement
		"6.1": "122", "6.2": "111111112222", "6.3": "11223333", "6.4": "112233", "6.5": "22222333", "6.6": "2223", "6.7": "33", "6.8": "2222",
		"7.1": "222", "7.2": "1111", "7.3": "22", "7.4": "11222", "7.5": "223", "7.6": "22",
		"9.1": "111", "9.2": "1222",
	} {
		for i, level := range levels {
			want++
			number := fmt.Sprintf("%s.%d", section, i+1)
			if listed := got[number]; !slices.Equal(listed, []string{string(level)}) {
				t.Errorf("%s: got the levels %v, want %c once", number, listed, level)
			}
		}
	}
	if len(got) != want {
		t.Errorf("got %d requirements, want %d", len(got), want)
	}
}

// requirements returns the levels of each requirement in a table. It parses cells such as
// "6.5.1 – 6.5.5 (L2), 6.5.8 (L3) codes".
func requirements(table string) map[string][]string {
	levels := map[string][]string{}
	group, number := regexp.MustCompile(`([\d., –]+)\(L([123])\)`), regexp.MustCompile(`(\d+\.\d+\.)(\d+)(?: – \d+\.\d+\.(\d+))?`)
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		for _, g := range group.FindAllStringSubmatch(cells[1], -1) {
			for _, n := range number.FindAllStringSubmatch(g[1], -1) {
				first, _ := strconv.Atoi(n[2])
				last, err := strconv.Atoi(n[3])
				if err != nil {
					last = first
				}
				for i := first; i <= last; i++ {
					levels[n[1]+strconv.Itoa(i)] = append(levels[n[1]+strconv.Itoa(i)], g[2])
				}
			}
		}
	}
	return levels
}

// A tag can move to another commit; a commit hash always names the same code.
func TestWorkflows_PinActionsByCommit(t *testing.T) {
	workflows, err := filepath.Glob("../../../.github/workflows/*")
	if err != nil || len(workflows) == 0 {
		t.Fatalf("got no workflows: %v", err)
	}
	uses, pinned := regexp.MustCompile(`(?m)\buses:\s*(\S+)`), regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40}$`)
	for _, path := range workflows {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := uses.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s uses no action", path)
		}
		for _, m := range found {
			if !pinned.MatchString(m[1]) {
				t.Errorf("%s: got the action %s, want a commit hash behind @", path, m[1])
			}
		}
	}
}
