package main

import (
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ticketing.com/auth/infra/e2e"
)

// From a name to a route that answers, in a copy of the repository.
func TestANewFunctionIsServedAtOnce(t *testing.T) {
	root := e2e.Repository(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	var steps []string
	if err := create(root, "hello", func(step string) { steps = append(steps, step) }); err != nil {
		t.Fatal(err)
	}
	if len(steps) != 7 {
		t.Errorf("it says %q", steps)
	}
	run("run", "./infra/generate", "-check")
	run("vet", "./functions/hello/...", "./infra/catalog")
	run("test", "./functions/hello", "./infra/catalog")
	if formatted, err := exec.Command("gofmt", "-l", filepath.Join(root, "functions/hello"), filepath.Join(root, "infra/catalog")).Output(); err != nil || len(formatted) > 0 {
		t.Errorf("gofmt would change %s %v", formatted, err)
	}

	local := filepath.Join(t.TempDir(), "local")
	run("build", "-buildvcs=false", "-o", local, "./infra/local")
	runner := exec.Command(local, "-addr", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "data"))
	runner.Dir = root // where the embedded database is found
	runner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	url, interrupt := e2e.Begin(t, runner)
	defer interrupt()
	response, err := http.Post(url+"/api/users/hello", "application/json", strings.NewReader(`{"name":"Ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || string(body) != `{"message":"Hello, Ann."}` {
		t.Errorf("%d %s %v", response.StatusCode, body, err)
	}
}

func TestANameThatCannotBeIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{
		"":            "is no name for a function: it must be",
		"Hello":       "is no name for a function: it must be",
		"say-hello":   "is no name for a function: it must be",
		"../hello":    "is no name for a function: it must be",
		"9lives":      "is no name for a function: it must be",
		"func":        "func is no name for a function: Go, or the catalog, uses it",
		"endpoint":    "endpoint is no name for a function: Go, or the catalog, uses it",
		"main":        "main is no name for a function: Go, or the catalog, uses it",
		"currentuser": "there is a function currentuser already",
	} {
		err := create(root, name, func(step string) { t.Errorf("%s: %s", name, step) })
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
