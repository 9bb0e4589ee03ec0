package arch_test

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// Every relative link of a Markdown file names a file of the repository. Its #anchor names a
// heading of that file.
func TestDocuments_RelativeLinks(t *testing.T) {
	pages := repositoryFiles(t, "*.md")
	if len(pages) < 20 {
		t.Fatalf("got %d Markdown files, want at least 20", len(pages))
	}
	checked := 0
	for _, page := range pages {
		for _, target := range links(readRepositoryFile(t, page)) {
			checked++
			if problem := deadLink(t, page, target); problem != "" {
				t.Errorf("%s: the link %q %s", page, target, problem)
			}
		}
	}
	if checked < 50 {
		t.Errorf("got %d relative links, want at least 50", checked)
	}
}

func TestDocuments_FindsDeadLinks(t *testing.T) {
	for _, c := range []struct {
		page, text string
		dead       int
	}{
		{"README.md", "[a](infra/docs/api.md) [b](infra/docs) [c](infra/docs/api.md#errors) [d](https://example.com/x) [e](#functions)", 0},
		{"README.md", "[a](infra/docs/none.md)", 1},
		{"README.md", "[a](infra/docs/api.md#none)", 1},
		{"README.md", "[a](#none)", 1},
		{"README.md", "[over two\nlines](none.md)", 1},
		{"README.md", "![image](none.png) <a href=\"none.html\">", 2},
		{"README.md", "[a]: none.md\n[b][a]", 1},
		{"README.md", "`[a](none.md)` and\n```\n[b](none.md)\n```\n", 0},
		{"infra/docs/api.md", "[a](../../README.md#functions) [b](../../../outside.md)", 1},
		{".github/SECURITY.md", "[a](../../../security/advisories/new)", 0}, // a page of GitHub
	} {
		var dead []string
		for _, target := range links(c.text) {
			if problem := deadLink(t, c.page, target); problem != "" {
				dead = append(dead, target+" "+problem)
			}
		}
		if len(dead) != c.dead {
			t.Errorf("%q in %s: got the dead links %q, want %d", c.text, c.page, dead, c.dead)
		}
	}
}

func TestAnchors_GitHubFormat(t *testing.T) {
	got := anchors("# Rotate keys\n## `func` & kn: a try\n## Twice\n## Twice\n```\n# no heading\n```\n### [Link](x.md) _one_\n")
	want := []string{"rotate-keys", "func--kn-a-try", "twice", "twice-1", "link-one"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The code contains each log message in the table of alerts.
func TestDocuments_AlertMessages(t *testing.T) {
	var code strings.Builder
	for _, file := range repositoryFiles(t, "*.go") {
		if !strings.HasSuffix(file, "_test.go") {
			code.WriteString(readRepositoryFile(t, file))
		}
	}
	_, table, _ := strings.Cut(readRepositoryFile(t, "infra/docs/operations.md"), "## Alert on logs")
	rows := regexp.MustCompile("(?m)^\\| `(.+?)` \\| (?:error|warn|info) ").FindAllStringSubmatch(table, -1)
	if len(rows) == 0 {
		t.Fatal("operations.md lists no alerts")
	}
	for _, row := range rows {
		if !strings.Contains(code.String(), `"`+row[1]+`"`) {
			t.Errorf("operations.md lists %q, and no code logs it", row[1])
		}
	}
}

const repositoryRoot = "../../.."

// repositoryFiles returns the files of the next commit that match a git pattern.
func repositoryFiles(t *testing.T, pattern string) []string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-co", "--exclude-standard", pattern)
	list.Dir = repositoryRoot
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool {
		_, err := os.Stat(filepath.Join(repositoryRoot, name))
		return errors.Is(err, fs.ErrNotExist) // deleted, and not committed yet
	})
}

func readRepositoryFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repositoryRoot, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fence  = regexp.MustCompile("(?ms)^ *```.*?^ *```[^\n]*$")
	inline = regexp.MustCompile("`[^`\n]*`")
	link   = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)[^)]*\)|(?m:^ *\[[^\]]+\]:\s*(\S+))|(?:href|src)="([^"]+)"`)
)

// links returns the relative targets of the links of a page.
func links(text string) (targets []string) {
	for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(fence.ReplaceAllString(text, ""), ""), -1) {
		target := m[1] + m[2] + m[3]
		if u, err := url.Parse(target); err != nil || u.Scheme == "" && u.Host == "" {
			targets = append(targets, target)
		}
	}
	return targets
}

// deadLink returns the problem with a link of a page, or "" if the link is valid.
func deadLink(t *testing.T, page, target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "is malformed"
	}
	file := page
	if u.Path != "" {
		file = filepath.ToSlash(filepath.Join(filepath.Dir(page), filepath.FromSlash(u.Path)))
	}
	if file == "../../security/advisories/new" { // a page of the repository on GitHub
		return ""
	}
	if strings.HasPrefix(file, "..") || strings.HasPrefix(u.Path, "/") {
		return "leaves the repository"
	}
	if _, err := os.Stat(filepath.Join(repositoryRoot, filepath.FromSlash(file))); err != nil {
		return "names no file"
	}
	if u.Fragment != "" && (!strings.HasSuffix(file, ".md") || !slices.Contains(anchors(readRepositoryFile(t, file)), u.Fragment)) {
		return "names no heading"
	}
	return ""
}

// anchors returns the anchors that GitHub generates for the headings of a page.
func anchors(text string) (all []string) {
	text = fence.ReplaceAllString(text, "")
	seen := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^#{1,6} +(.+?)\s*$`).FindAllStringSubmatch(text, -1) {
		heading := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		heading = regexp.MustCompile(`\b_|_\b`).ReplaceAllString(heading, "")
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ' || r == '-':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, heading)
		n := seen[slug]
		seen[slug]++
		if n > 0 {
			slug += "-" + strconv.Itoa(n)
		}
		all = append(all, slug)
	}
	return all
}
