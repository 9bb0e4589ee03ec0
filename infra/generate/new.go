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

// templates are the files of a new function and of a new service: the endpoints, their test, the
// store of a service, the command.
//
//go:embed function service
var templates embed.FS

// A kind is what the command creates, with the folder of its templates.
type kind string

const (
	aFunction kind = "function" // one endpoint
	aService  kind = "service"  // a resource with a collection and events
)

// path returns the path of the first endpoint.
func (k kind) path(name string) string {
	if k == aService {
		return "/api/" + name
	}
	return "/api/users/" + name
}

// identifier matches names that are a Go package, a DNS label and a path segment.
var identifier = regexp.MustCompile(`^[a-z][a-z0-9]{0,39}$`)

const catalogFile = "infra/catalog/catalog.go"

// create writes the folder of a new function, adds the function to the catalog and runs the
// generator. It calls progress after each step. If a step fails or ctx is cancelled, it
// restores all files.
func create(ctx context.Context, root string, k kind, name string, progress func(string)) (err error) {
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(catalogFile)))
	if err != nil {
		return err
	}
	if err := checkName(root, k, name); err != nil {
		return err
	}
	extended, err := addToCatalog(source, name)
	if err != nil {
		return err
	}
	folder := "functions/" + name
	restore, err := snapshot(root, folder)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if problem := restore(); problem != nil {
			err = fmt.Errorf("%w\nand not all files were restored: %w", err, problem)
			return
		}
		progress("restored all files")
	}()
	if err := write(filepath.Join(root, filepath.FromSlash(folder)), k, name); err != nil {
		return err
	}
	progress("wrote " + folder)
	if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(catalogFile)), extended, 0o644); err != nil {
		return err
	}
	progress("added it to " + catalogFile)

	for _, args := range [][]string{
		{"run", "./infra/generate"},                        // in a new process, because this one has the old catalog
		{"vet", "./" + folder + "/...", "./infra/catalog"}, // compiles the test too
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput() // always waits for the end: a running command would write after the restore
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		progress("go " + strings.Join(args, " "))
	}
	return nil
}

// checkName returns an error if a function cannot have the name.
func checkName(root string, k kind, name string) error {
	if !identifier.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of a function: it must have 1 to 40 lower-case letters and digits, and a letter first", name)
	}
	for _, f := range catalog.Functions() {
		if f.Name == name {
			return fmt.Errorf("the function %s exists already", name)
		}
	}
	planned := endpoint.Spec{Method: http.MethodPost, Path: k.path(name), Success: http.StatusOK, Summary: "Return a greeting."}
	f := endpoint.Function{Name: name, Endpoints: []endpoint.Endpoint{{Spec: planned}}}
	if err := catalog.Check(append(catalog.Functions(), f)); err != nil {
		return err
	}
	used, err := usedNames(root, k)
	if err != nil {
		return err
	}
	if token.IsKeyword(name) || types.Universe.Lookup(name) != nil || slices.Contains(used, name) {
		return fmt.Errorf("%s cannot be the name of a function: Go, the catalog or the files of a function use it", name)
	}
	if _, err := os.Stat(filepath.Join(root, "functions", name)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the folder functions/%s exists already", name)
	}
	return nil
}

// usedNames returns the names that have a meaning to the go command, in the files of a function
// or in those of the catalog.
func usedNames(root string, k kind) ([]string, error) {
	all := []string{"init", "internal", "vendor", "testdata", "documentation"}
	files, err := render(k, "X") // no function can have this name
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
	sources, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(path.Dir(catalogFile)), "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return nil, err
		}
		if filepath.Base(name) == path.Base(catalogFile) {
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

// declared returns the names that a file declares in its package.
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

// snapshot reads all files that create may change outside the folder of the function. The
// function that it returns restores these files and removes the folder.
func snapshot(root, folder string) (restore func() error, err error) {
	contents := map[string][]byte{}
	paths := []string{catalogFile}
	for _, o := range outputs() {
		paths = append(paths, o.path)
	}
	for _, p := range paths {
		file := filepath.Join(root, filepath.FromSlash(p))
		content, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		contents[file] = content // nil if there is no file
	}
	return func() error {
		problems := []error{os.RemoveAll(filepath.Join(root, filepath.FromSlash(folder)))}
		for file, before := range contents {
			now, err := os.ReadFile(file)
			switch {
			case err == nil && before == nil:
				err = os.Remove(file)
			case before != nil && !bytes.Equal(now, before):
				err = os.WriteFile(file, before, 0o644)
			case before == nil && errors.Is(err, fs.ErrNotExist):
				err = nil
			}
			problems = append(problems, err)
		}
		return errors.Join(problems...)
	}, nil
}

// addToCatalog returns the source of the catalog with one more function: an import, and a line
// at the end of the list.
func addToCatalog(source []byte, name string) ([]byte, error) {
	const imports, end = "\t\"ticketing.com/auth/functions/", "\n\t}\n}\n"
	text := string(source)
	first, last := strings.Index(text, imports), strings.Index(text, end)
	if first < 0 || last < 0 {
		return nil, fmt.Errorf("%s has no list of functions that the command can extend", catalogFile)
	}
	text = text[:first] + imports + name + "\"\n" + text[first:last] + "\n\t\t" + name + ".Function," + text[last:]
	return format.Source([]byte(text)) // sorts the imports
}

// render returns the files of the folder of a function, by their path in it.
func render(k kind, name string) (map[string][]byte, error) {
	pages, err := template.New("").Delims("<<", ">>").ParseFS(templates, string(k)+"/*.tmpl") // Go code has {{
	if err != nil {
		return nil, err
	}
	data := struct{ Name, Title, Path string }{name, strings.ToUpper(name[:1]) + name[1:], k.path(name)}
	files := map[string][]byte{}
	for _, page := range pages.Templates() {
		var out bytes.Buffer
		if err := page.Execute(&out, data); err != nil {
			return nil, err
		}
		file := strings.Replace(strings.TrimSuffix(page.Name(), ".tmpl"), string(k), name, 1)
		if file == "main.go" {
			file = "cmd/" + name + "/main.go"
		}
		files[file] = out.Bytes()
	}
	return files, nil
}

// write writes the folder of a function.
func write(folder string, k kind, name string) error {
	files, err := render(k, name)
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
