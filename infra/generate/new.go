package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/endpoint"
)

// parts are the templates of the files of a function: the endpoint, its test, its command.
//
//go:embed function
var parts embed.FS

// identifier is a name that is a Go package, a DNS label and a segment of a path.
var identifier = regexp.MustCompile(`^[a-z][a-z0-9]{0,39}$`)

const listed = "infra/catalog/catalog.go"

// create makes a function that works, and everything that must know of it: its
// folder, its line in the catalog, and what is generated.
// say is told what it does, step by step. If a step fails, or ctx ends, all is put back
// as it was.
func create(ctx context.Context, root, name string, say func(string)) (err error) {
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(listed)))
	if err != nil {
		return err
	}
	if err := free(root, name); err != nil {
		return err
	}
	entered, err := enter(source, name)
	if err != nil {
		return err
	}
	folder := "functions/" + name
	putBack, err := remember(root, folder)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if fault := putBack(); fault != nil {
			err = fmt.Errorf("%w\nand not all is put back: %w", err, fault)
			return
		}
		say("put all back as it was")
	}()
	if err := write(filepath.Join(root, filepath.FromSlash(folder)), name); err != nil {
		return err
	}
	say("wrote " + folder)
	if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(listed)), entered, 0o644); err != nil {
		return err
	}
	say("entered it in " + listed)

	for _, args := range [][]string{
		{"run", "./infra/generate"},                        // a process of its own, because this one has the old catalog
		{"vet", "./" + folder + "/...", "./infra/catalog"}, // compiles the test too
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput() // to its end in any case: what goes on would write after all was put back
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		say("go " + strings.Join(args, " "))
	}
	return nil
}

// free tells whether a function may be called so.
func free(root, name string) error {
	if !identifier.MatchString(name) {
		return fmt.Errorf("%q is no name for a function: it must be 1 to 40 lower-case letters and digits, a letter first", name)
	}
	for _, e := range catalog.Functions() {
		if e.Name == name {
			return fmt.Errorf("there is a function %s already", name)
		}
	}
	made := endpoint.Spec{Name: name, Method: http.MethodPost, Path: "/api/users/" + name, Success: http.StatusOK, Summary: "Greet somebody."}
	if err := catalog.Check(append(catalog.Functions(), endpoint.Endpoint{Spec: made})); err != nil {
		return err
	}
	used, err := words(root)
	if err != nil {
		return err
	}
	if token.IsKeyword(name) || types.Universe.Lookup(name) != nil || slices.Contains(used, name) {
		return fmt.Errorf("%s is no name for a function: Go, the catalog or a function's own files use it", name)
	}
	if _, err := os.Stat(filepath.Join(root, "functions", name)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("functions/%s is there already", name)
	}
	return nil
}

// words are the names that would have a second meaning: for the go command, in the
// files of a function, and in those of the catalog.
func words(root string) ([]string, error) {
	all := []string{"init", "internal", "vendor", "testdata", "documentation"}
	files, err := render("X") // which no function is called
	if err != nil {
		return nil, err
	}
	for name, source := range files {
		if path.Ext(name) != ".go" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, 0)
		if err != nil {
			return nil, err
		}
		all = append(all, imports(file)...)
		for n := range ast.Preorder(file) {
			if id, is := n.(*ast.Ident); is {
				all = append(all, id.Name)
			}
		}
	}
	listing, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(path.Dir(listed)), "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range listing {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return nil, err
		}
		if filepath.Base(name) == path.Base(listed) {
			all = append(all, imports(file)...)
		}
		all = append(all, declared(file)...)
	}
	return all, nil
}

func imports(file *ast.File) (names []string) {
	for _, i := range file.Imports {
		names = append(names, path.Base(strings.Trim(i.Path.Value, `"`)))
	}
	return names
}

// declared are the names that a file declares for its package.
func declared(file *ast.File) (names []string) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, id := range s.Names {
						names = append(names, id.Name)
					}
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				}
			}
		}
	}
	return names
}

// remember keeps all that create changes beside the folder that it makes. What it
// returns puts that back, and removes the folder.
func remember(root, folder string) (putBack func() error, err error) {
	kept := map[string][]byte{}
	paths := []string{listed}
	for _, o := range outputs() {
		paths = append(paths, o.path)
	}
	for _, p := range paths {
		file := filepath.Join(root, filepath.FromSlash(p))
		content, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		kept[file] = content // nil where there is none
	}
	return func() error {
		faults := []error{os.RemoveAll(filepath.Join(root, filepath.FromSlash(folder)))}
		for file, before := range kept {
			now, err := os.ReadFile(file)
			switch {
			case err == nil && before == nil:
				err = os.Remove(file)
			case before != nil && !bytes.Equal(now, before):
				err = os.WriteFile(file, before, 0o644)
			case before == nil && errors.Is(err, fs.ErrNotExist):
				err = nil
			}
			faults = append(faults, err)
		}
		return errors.Join(faults...)
	}, nil
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

// render returns the files of a function's folder, by their path in it.
func render(name string) (map[string][]byte, error) {
	pages, err := template.ParseFS(parts, "function/*.tmpl")
	if err != nil {
		return nil, err
	}
	data := struct{ Name, Title, Path string }{name, strings.ToUpper(name[:1]) + name[1:], "/api/users/" + name}
	files := map[string][]byte{}
	for page, file := range map[string]string{
		"function.go.tmpl":      name + ".go",
		"function_test.go.tmpl": name + "_test.go",
		"main.go.tmpl":          "cmd/" + name + "/main.go",
	} {
		var out bytes.Buffer
		if err := pages.ExecuteTemplate(&out, page, data); err != nil {
			return nil, err
		}
		files[file] = out.Bytes()
	}
	return files, nil
}

// write writes the folder of a function.
func write(folder, name string) error {
	files, err := render(name)
	if err != nil {
		return err
	}
	for file, content := range files {
		target := filepath.Join(folder, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
