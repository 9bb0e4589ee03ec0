package gobuild

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module writes a module with a program that prints a text.
func module(t *testing.T, prints string) Module {
	t.Helper()
	t.Setenv("GOCACHE", goEnv(t, "GOCACHE")) // not in the cache folder of the test
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := filepath.Join(t.TempDir(), "hello")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "go.mod", "module example.com/hello\n\ngo 1.26\n")
	write(t, dir, "main.go", "package main\n\nfunc main() { print(\""+prints+"\") }\n")
	return Module{Name: "hello", Title: "hello", Dir: dir, Duration: "a second"}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run builds the program, runs it and returns its output.
func run(t *testing.T, m Module) string {
	t.Helper()
	folder, err := m.Build(t.Context(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(folder, "hello")).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestBuild_ChangedSource(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	m := module(t, "one")
	if got := run(t, m); got != "one" {
		t.Errorf("got %q, want one", got)
	}
	write(t, m.Dir, "main.go", "package main\n\nfunc main() { print(\"two\") }\n")
	if got := run(t, m); got != "two" {
		t.Errorf("got %q, want two", got)
	}
}

// Without a change, Build does not run the go command.
func TestBuild_Unchanged(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	m := module(t, "one")
	run(t, m)
	path := os.Getenv("PATH")
	noGo := func() error {
		t.Setenv("PATH", "")
		defer t.Setenv("PATH", path)
		_, err := m.Build(t.Context(), func(string) {})
		return err
	}
	if err := noGo(); err != nil {
		t.Errorf("an unchanged module: got %v, want no error", err)
	}
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"a new file", func() { write(t, m.Dir, "new.go", "package main\n") }},
		{"other flags", func() { m.Flags = append(m.Flags, "-tags=other") }},
		{"no program", func() { folder, _ := CacheDir(m.Name); os.RemoveAll(folder) }},
	} {
		c.change()
		if err := noGo(); err == nil {
			t.Errorf("%s: got no error, want one of the missing go command", c.name)
		}
		run(t, m)
	}
}

func TestBuild_Parallel(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	m := module(t, "one")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if got := run(t, m); got != "one" {
				t.Errorf("got %q, want one", got)
			}
		})
	}
	group.Wait()
}

func TestBuild_Errors(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	m := module(t, "one")
	write(t, m.Dir, "main.go", "package main\n\nfunc main() { undefined() }\n")
	if _, err := m.Build(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), "build hello: exit status 1") || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("a failing build: got %v, want the error of the compiler", err)
	}
	folder, err := CacheDir(m.Name)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(t.Context(), folder+".lock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Build(ctx, func(string) {}); err == nil || err.Error() != "wait for another build: context canceled" {
		t.Errorf("a build that waits for another: got %v, want context canceled", err)
	}
	unlock()
	t.Setenv("PATH", "")
	if _, err := m.Build(t.Context(), func(string) {}); err == nil || err.Error() != "build hello: the go command is not on the PATH: install Go" {
		t.Errorf("without a go command: got %v", err)
	}
	t.Chdir(t.TempDir())
	if _, err := m.Build(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), "is not inside the repository: no folder above it has go.work") {
		t.Errorf("outside the repository: got %v, want an error about go.work", err)
	}
}
