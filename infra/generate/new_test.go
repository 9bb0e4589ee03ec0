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

// The test creates a function and a service in a copy of the repository. They pass the tests, and
// those of every package that reads the catalog, without an edit. Then it calls their routes.
func TestCreate_PassesTestsAndServes(t *testing.T) {
	root := e2e.CopyRepository(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	page, err := os.ReadFile(filepath.Join(root, "infra", "docs", "add-a-function.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind           kind
		name, argument string
	}{{aFunction, "hello", ""}, {aService, "things", "-service "}} {
		var steps []string
		if err := create(t.Context(), root, c.kind, c.name, func(step string) { steps = append(steps, step) }); err != nil {
			t.Fatal(err)
		}
		if want := "$ go run ./infra/generate new " + c.argument + c.name + "\n" + strings.Join(steps, "\n") + "\n" +
			fmt.Sprintf(createdFormat, c.kind.path(c.name), c.name); !strings.Contains(string(page), want) {
			t.Errorf("add-a-function.md does not contain %s", want)
		}
	}
	run("run", "./infra/generate", "-check")
	run("test", "./functions/hello", "./functions/things", "./infra/catalog", "./infra/generate/needs", "./infra/knative",
		"./infra/lambda", "./infra/openapi", "./infra/asyncapi")
	run("test", "-run", "Imports|LinkedPackages|HaveComments", "./infra/test/arch")
	if formatted, err := exec.Command("gofmt", "-l", filepath.Join(root, "functions"), filepath.Join(root, "infra/catalog")).Output(); err != nil || len(formatted) > 0 {
		t.Errorf("gofmt would change %s, want none: %v", formatted, err)
	}
	tidy := exec.Command("go", "mod", "tidy", "-diff")
	tidy.Dir, tidy.Env = filepath.Join(root, "functions"), append(os.Environ(), "GOWORK=off")
	if out, err := tidy.CombinedOutput(); err != nil {
		t.Errorf("functions/go.mod is not tidy: %v\n%s", err, out)
	}

	local := filepath.Join(t.TempDir(), "local")
	run("build", "-buildvcs=false", "-o", local, "./infra/local")
	runner := exec.Command(local, "-addr", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "data"))
	runner.Dir = root // the runner finds the embedded database here
	runner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	url, interrupt := e2e.StartCommand(t, runner)
	defer interrupt()
	response, err := http.Post(url+"/api/users/hello", "application/json", strings.NewReader(`{"name":"Ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || string(body) != `{"message":"Hello, Ann."}` {
		t.Errorf("got %d %s %v, want 200 and the greeting of Ann", response.StatusCode, body, err)
	}
	list, err := http.Get(url + "/api/things?limit=5")
	if err != nil {
		t.Fatal(err)
	}
	defer list.Body.Close()
	if body, err := io.ReadAll(list.Body); err != nil || list.StatusCode != http.StatusOK || string(body) != `{"items":[]}` {
		t.Errorf("got %d %s %v, want 200 and an empty list", list.StatusCode, body, err)
	}
}

func TestCreate_InvalidName(t *testing.T) {
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	const used = "cannot be the name of a function: Go, the catalog or the files of a function use it"
	for name, want := range map[string]string{
		"":              "cannot be the name of a function: it must have",
		"Hello":         "cannot be the name of a function: it must have",
		"say-hello":     "cannot be the name of a function: it must have",
		"../hello":      "cannot be the name of a function: it must have",
		"9lives":        "cannot be the name of a function: it must have",
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
		"auth":          "auth cannot be the name of a function: it is the Service with all functions",
		"currentuser":   "the function currentuser exists already",
	} {
		err := create(t.Context(), root, aFunction, name, func(step string) { t.Errorf("%s: got the step %s, want none", name, step) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", name, err, want)
		}
	}
	for _, name := range []string{"hello", "tickets", "names", "fmt", "linux", "test"} { // similar names are allowed
		if err := checkName(root, aFunction, name); err != nil {
			t.Error(err)
		}
	}
}

// A late step fails, or a signal interrupts the command.
func TestCreate_RestoresFiles(t *testing.T) {
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
	err = create(t.Context(), root, aFunction, "hello", func(step string) { changed = changed || step == "added it to "+catalogFile })
	if err == nil || !strings.Contains(err.Error(), "go run ./infra/generate: exit status 1\ngenerate: README.md: there is no") || !changed {
		t.Errorf("got %v, want an error of the generator after the catalog was changed (%v)", err, changed)
	}
	if now := tree(t, root); !maps.Equal(now, before) {
		t.Errorf("after the failed command: got the files\n%v\nwant\n%v", now, before)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	err = create(ctx, root, aFunction, "hello", func(step string) {
		if strings.HasPrefix(step, "added it to") {
			interrupt()
		}
	})
	if !errors.Is(err, context.Canceled) || !maps.Equal(tree(t, root), before) {
		t.Errorf("interrupted: got %v, want context.Canceled and unchanged files", err)
	}
}

// tree returns the digests of all files in a folder, by their paths.
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
