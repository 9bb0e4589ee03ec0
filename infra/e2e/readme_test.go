package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ticketing.com/auth/infra/e2e"
)

// The conversation of the README is played on the local runner, and what it shows
// must be what comes back; an ellipsis stands for anything.
func TestTheConversationOfTheREADMEIsTrue(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the README speaks to a shell with %s, and there is none", tool)
		}
	}
	url, interrupt := e2e.Local(t, filepath.Join(t.TempDir(), "data"))
	defer interrupt()
	commands, want := conversation(t, url)
	cmd := exec.Command("bash", "-c", commands)
	cmd.Dir = t.TempDir()
	got, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want), "…", `[^"\n]+`)
	if !regexp.MustCompile("^" + pattern + "$").Match(got) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// conversation returns the commands of the README's first conversation, on
// another URL, and all that they print.
func conversation(t *testing.T, url string) (commands, output string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(readme), "## A conversation\n\n```console\n")
	block, _, ended := strings.Cut(after, "```\n")
	if !found || !ended {
		t.Fatal("the README has no conversation")
	}
	for line := range strings.Lines(block) {
		switch command, isCommand := strings.CutPrefix(line, "$ "); {
		case isCommand:
			commands += strings.ReplaceAll(command, "http://127.0.0.1:8080", url)
		case strings.TrimSpace(line) != "":
			output += line
		}
	}
	return commands, output
}
