package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ticketing.com/auth/infra/test/e2e"
)

// From a name to a route that answers, in a copy of the repository.
func TestANewFunctionIsServedAtOnce(t *testing.T) {
	root := e2e.CopyRepository(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	var steps []string
	if err := create(t.Context(), root, "hello", func(step string) { steps = append(steps, step) }); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "infra", "docs", "adding-a-service.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "$ go run ./infra/generate new hello\n" + strings.Join(steps, "\n") + "\n" + fmt.Sprintf(created, "hello"); !strings.Contains(string(page), want) {
		t.Errorf("adding-a-service.md does not contain %s", want)
	}
	run("run", "./infra/generate", "-check")
	run("test", "./functions/hello", "./infra/catalog")
	if formatted, err := exec.Command("gofmt", "-l", filepath.Join(root, "functions/hello"), filepath.Join(root, "infra/catalog")).Output(); err != nil || len(formatted) > 0 {
		t.Errorf("gofmt would change %s %v", formatted, err)
	}

	local := filepath.Join(t.TempDir(), "local")
	run("build", "-buildvcs=false", "-o", local, "./infra/local")
	runner := exec.Command(local, "-addr", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "data"))
	runner.Dir = root // where the embedded database is found
	runner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	url, interrupt := e2e.StartCommand(t, runner)
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
	const used = "is no name for a function: Go, the catalog or a function's own files use it"
	for name, says := range map[string]string{
		"":              "is no name for a function: it must be",
		"Hello":         "is no name for a function: it must be",
		"say-hello":     "is no name for a function: it must be",
		"../hello":      "is no name for a function: it must be",
		"9lives":        "is no name for a function: it must be",
		"func":          "func " + used, // of the language
		"string":        "string " + used,
		"error":         "error " + used,
		"init":          "init " + used,
		"internal":      "internal " + used, // of the go command
		"vendor":        "vendor " + used,
		"testdata":      "testdata " + used,
		"documentation": "documentation " + used,
		"endpoint":      "endpoint " + used, // of a function's file
		"http":          "http " + used,
		"testing":       "testing " + used, // of its test
		"play":          "play " + used,
		"t":             "t " + used,
		"main":          "main " + used,   // of its command
		"slices":        "slices " + used, // of the catalog
		"label":         "label " + used,
		"auth":          "auth is no name for a function: the Service of all functions in one has it",
		"currentuser":   "there is a function currentuser already",
	} {
		err := create(t.Context(), root, name, func(step string) { t.Errorf("%s: %s", name, step) })
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"hello", "events", "names", "fmt", "linux", "test"} { // no more than that
		if err := free(root, name); err != nil {
			t.Error(err)
		}
	}
}

// A step late in the way fails, or somebody presses Ctrl-C.
func TestWhatFailsLeavesNothingBehind(t *testing.T) {
	root := e2e.CopyRepository(t)
	readme := filepath.Join(root, "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	// after the manifests and skaffold.yaml are written
	if err := os.WriteFile(readme, bytes.Replace(text, []byte("<!-- functions:"), []byte("<!-- others:"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	before := tree(t, root)
	changed := false
	err = create(t.Context(), root, "hello", func(step string) { changed = changed || step == "entered it in "+listed })
	if err == nil || !strings.Contains(err.Error(), "go run ./infra/generate: exit status 1\ngenerate: README.md: there is no") || !changed {
		t.Errorf("%v %v", changed, err)
	}
	if now := tree(t, root); !maps.Equal(now, before) {
		t.Errorf("it fails, and is left as\n%v\nbefore\n%v", now, before)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	err = create(ctx, root, "hello", func(step string) {
		if strings.HasPrefix(step, "entered it in") {
			interrupt()
		}
	})
	if !errors.Is(err, context.Canceled) || !maps.Equal(tree(t, root), before) {
		t.Errorf("it is interrupted: %v", err)
	}
}

// tree is what is in a folder: the digest of each file by its path.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			all[path] = "folder"
			return nil
		}
		content, err := os.ReadFile(path)
		all[path] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
