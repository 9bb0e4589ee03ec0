package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ticketing.com/auth/infra/test/e2e"
)

// Each test runs the console blocks of a page and compares their output with the page. An
// ellipsis in the page stands for any text.

func TestDocuments_LocalRunnerCommands(t *testing.T) {
	url, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"))
	defer interrupt()
	// README.md and api.md sign up the same user, so each has a database of its own.
	other, interruptOther := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"))
	defer interruptOther()
	for page, at := range map[string]string{"README.md": url, "infra/docs/api.md": other, "infra/docs/events.md": other, "infra/docs/rate-limits.md": other} {
		t.Run(page, func(t *testing.T) {
			commands, want := console(t, page)
			compare(t, strings.ReplaceAll(commands, "http://127.0.0.1:8080", at), want, t.TempDir())
		})
	}
}

func TestDocuments_RepositoryCommands(t *testing.T) {
	for _, page := range []string{"infra/docs/architecture.md", "infra/docs/configuration.md", "infra/docs/development.md"} {
		t.Run(page, func(t *testing.T) {
			commands, want := console(t, page)
			compare(t, commands+"true\n", want, repository)
		})
	}
}

const repository = "../../.."

// compare runs commands in a folder, without settings, and compares their output.
func compare(t *testing.T, commands, want, folder string) {
	t.Helper()
	for _, tool := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the documents use %s, and it is not installed", tool)
		}
	}
	cmd := exec.Command("bash", "-c", commands)
	cmd.Dir = folder
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "MONGODB_URI=") })
	got, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("a command failed: %v: %s", err, got)
	}
	without := func(s string) string { return strings.TrimSpace(regexp.MustCompile(`\n+`).ReplaceAllString(s, "\n")) }
	pattern := strings.ReplaceAll(regexp.QuoteMeta(without(want)), "…", `[^"\n]+`)
	if !regexp.MustCompile("^" + pattern + "$").MatchString(without(string(got))) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// console returns the commands of the console blocks of a page, and all that they print.
func console(t *testing.T, page string) (commands, output string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatalf("%s has no console block", page)
	}
	for _, block := range blocks {
		for line := range strings.Lines(block[1]) {
			if command, isCommand := strings.CutPrefix(line, "$ "); isCommand {
				commands += command
			} else {
				output += line
			}
		}
	}
	return commands, output
}
