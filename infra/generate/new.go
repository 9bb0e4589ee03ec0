package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"ticketing.com/auth/infra/catalog"
)

// The parts of a function's folder: what it is, its test, its command, its module.
//
//go:embed function
var parts embed.FS

// identifier is a name that is a Go package, a DNS label and a segment of a path.
var identifier = regexp.MustCompile(`^[a-z][a-z0-9]{0,39}$`)

const listed = "infra/catalog/catalog.go"

// create makes a function that works, and everything that must know of it: its
// folder, its line in the catalog, its place in the workspace, and what is generated.
// say is told what it does, step by step.
func create(root, name string, say func(string)) error {
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(listed)))
	if err != nil {
		return err
	}
	if err := free(root, name, source); err != nil {
		return err
	}
	entered, err := enter(source, name)
	if err != nil {
		return err
	}
	folder := "functions/" + name
	if err := write(filepath.Join(root, filepath.FromSlash(folder)), name); err != nil {
		return err
	}
	say("wrote " + folder)
	if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(listed)), entered, 0o644); err != nil {
		return err
	}
	say("entered it in " + listed)

	module := "ticketing.com/auth/" + folder
	for _, step := range []struct {
		in   string
		args []string
	}{
		{"", []string{"work", "use", "./" + folder}},
		{"infra", []string{"mod", "edit", "-require=" + module + "@v0.0.0", "-replace=" + module + "=../" + folder}},
		{folder, []string{"mod", "tidy"}},
		{"infra", []string{"mod", "tidy"}},
		{"", []string{"run", "./infra/generate"}}, // which is of another catalog than this process
	} {
		cmd := exec.Command("go", step.args...)
		cmd.Dir = filepath.Join(root, filepath.FromSlash(step.in))
		if step.args[0] == "mod" {
			cmd.Env = append(os.Environ(), "GOWORK=off")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s in %s: %w\n%s", strings.Join(step.args, " "), path.Join(".", step.in), err, out)
		}
		say("go " + strings.Join(step.args, " "))
	}
	return nil
}

// free tells whether a function may be called so.
func free(root, name string, source []byte) error {
	if !identifier.MatchString(name) {
		return fmt.Errorf("%q is no name for a function: it must be 1 to 40 lower-case letters and digits, a letter first", name)
	}
	file, err := parser.ParseFile(token.NewFileSet(), listed, source, parser.ImportsOnly)
	if err != nil {
		return err
	}
	taken := []string{"main", "fault", "context", "http", "endpointtest"} // and what its own files import
	for _, i := range file.Imports {
		taken = append(taken, path.Base(strings.Trim(i.Path.Value, `"`)))
	}
	for _, e := range catalog.Functions() {
		if e.Name == name {
			return fmt.Errorf("there is a function %s already", name)
		}
	}
	if token.IsKeyword(name) || slices.Contains(taken, name) {
		return fmt.Errorf("%s is no name for a function: Go, or the catalog, uses it", name)
	}
	if _, err := os.Stat(filepath.Join(root, "functions", name)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("functions/%s is there already", name)
	}
	return nil
}

// enter returns the catalog with one more function: an import, and a line at the end
// of the list.
func enter(source []byte, name string) ([]byte, error) {
	const imports, end = "\t\"ticketing.com/auth/functions/", "\n\t}\n}\n"
	text := string(source)
	first, last := strings.Index(text, imports), strings.Index(text, end)
	if first < 0 || last < 0 {
		return nil, fmt.Errorf("%s is not as it was: it has no list", listed)
	}
	text = text[:first] + imports + name + "\"\n" + text[first:last] + "\n\t\t" + name + ".Endpoint," + text[last:]
	return format.Source([]byte(text)) // which sorts the imports
}

// write writes the folder of a function.
func write(folder, name string) error {
	pages, err := template.ParseFS(parts, "function/*.tmpl")
	if err != nil {
		return err
	}
	data := struct{ Name, Title, Path string }{name, strings.ToUpper(name[:1]) + name[1:], "/api/users/" + name}
	for page, file := range map[string]string{
		"function.go.tmpl":      name + ".go",
		"function_test.go.tmpl": name + "_test.go",
		"main.go.tmpl":          "cmd/" + name + "/main.go",
		"go.mod.tmpl":           "go.mod",
	} {
		var out bytes.Buffer
		if err := pages.ExecuteTemplate(&out, page, data); err != nil {
			return err
		}
		target := filepath.Join(folder, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
