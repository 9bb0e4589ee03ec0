// Command generate writes the files that are generated from the catalog: all that depend on the
// functions, their routes or their settings.
//
//	go run ./infra/generate            writes the stale files
//	go run ./infra/generate -check     writes nothing, lists the stale files, exits with 1
//	go run ./infra/generate new NAME            creates a function and adds it to the catalog
//	go run ./infra/generate new -service NAME   the same with a resource, a collection and events
package main

//go:generate go run .

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"ticketing.com/auth/infra/asyncapi"
	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/infra/lambda"
	"ticketing.com/auth/infra/openapi"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/usage"
)

const (
	call = "go run ./infra/generate"
	text = `usage: ` + call + ` [-check]
       ` + call + ` new [-service] NAME

  -check     write nothing; list the stale files and exit with 1
  new NAME   create a function that works, and add it to the catalog
  -service   with a resource: list, create, show, update, a collection, events

Without arguments, it writes the stale files.
`
)

// outputs returns all generated files. Add a line here for a new one.
func outputs() []output {
	all := []output{
		{"infra/lambda/template.yaml", "", lambda.Template},
		{"infra/openapi/openapi.yaml", "", openapi.Document},
		{"infra/asyncapi/asyncapi.yaml", "", asyncapi.Document},
		{"infra/docs/events.md", "published", asyncapi.Published},
		{"infra/docs/events.md", "accepted", asyncapi.Accepted},
		{"infra/knative/base/functions.yaml", "", knative.Services},
		{"infra/knative/eventing/functions.yaml", "", knative.EventServices},
		{"infra/knative/eventing/triggers.yaml", "", knative.Triggers},
		{"infra/knative/ingress/kourier/routes.yaml", "", knative.Kourier},
		{"infra/knative/overlays/local-tickets/kustomization.yaml", "", knative.LocalTickets},
		{"infra/knative/ingress/traefik/routes.yaml", "", knative.Traefik},
		{"infra/knative/ingress/gateway/routes.yaml", "", knative.Gateway},
		{"infra/knative/accounts.yaml", "", knative.Accounts},
		{"infra/knative/overlays/small/service.yaml", "", knative.Small},
		{"skaffold.yaml", "", knative.Skaffold},
		{"func.yaml", "", knative.FuncAllInOne},
		{"README.md", "functions", knative.Table},
		{"infra/docs/deploy-kn.md", "kn", knative.Kn},
		{"infra/docs/operations.md", "atlas", knative.Atlas},
		{"infra/knative/mongodb/users.js", "rights", knative.Rights},
	}
	for _, f := range catalog.Functions() {
		all = append(all, output{"functions/" + f.Name + "/func.yaml", "", func([]endpoint.Function) ([]byte, error) { return knative.Func(f) }})
	}
	for _, t := range asyncapi.Types(catalog.Functions()) {
		all = append(all, output{"infra/asyncapi" + event.SchemaPath(t.Name), "", func([]endpoint.Function) ([]byte, error) { return asyncapi.Schema(t) }})
	}
	return all
}

// An output is a generated file: its path from the root of the repository, and the function
// that renders it. Its first lines name the command that generates it. If it has a section,
// only the text between these two comments is generated:
//
//	<!-- SECTION: made by "go run ./infra/generate" -->
//	<!-- end of SECTION -->
//
// In a script the comments begin with //.
type output struct {
	path, section string
	render        func([]endpoint.Function) ([]byte, error)
}

// merge returns the content of a file after its generated part was replaced.
func (o output) merge(file, rendered []byte) ([]byte, error) {
	if o.section == "" {
		return rendered, nil
	}
	begin, end := o.markers()
	head, rest, begins := strings.Cut(string(file), begin)
	_, tail, ends := strings.Cut(rest, end)
	if !begins || !ends {
		return nil, fmt.Errorf("there is no %q followed by %q in it", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return []byte(head + begin + string(rendered) + end + tail), nil
}

// markers returns the comments before and after the section.
func (o output) markers() (begin, end string) {
	before, after := "<!-- ", " -->\n"
	if filepath.Ext(o.path) == ".js" {
		before, after = "// ", "\n"
	}
	return before + o.section + ": made by \"go run ./infra/generate\"" + after, before + "end of " + o.section + after
}

func main() {
	help := usage.Command{Call: call, Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	args, flags, operands := os.Args[1:], new(flag.FlagSet), 0
	var check bool
	do := func() error { return regenerate(check) }
	if len(args) > 0 && args[0] == "new" {
		help.Call += " new"
		args, operands = args[1:], 1
		service := flags.Bool("service", false, "")
		do = func() error {
			return newFunction(map[bool]kind{false: aFunction, true: aService}[*service], flags.Arg(0))
		}
	} else {
		flags.BoolVar(&check, "check", false, "")
	}
	if code, end := help.Parse(flags, args, operands); end {
		os.Exit(code)
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// createdFormat is the last line that "new" prints.
const createdFormat = "POST %s calls the new function. Edit functions/%s/%[2]s.go, then run: go test ./functions/%[2]s\n"

func newFunction(k kind, name string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := create(ctx, root, k, name, func(step string) { fmt.Println(step) }); err != nil {
		return err
	}
	fmt.Printf(createdFormat, k.path(name), name)
	return nil
}

func regenerate(check bool) error {
	stale, err := run(!check)
	if err != nil {
		return err
	}
	if check && len(stale) > 0 {
		return fmt.Errorf("stale files: %s: run \"go run ./infra/generate\"", strings.Join(stale, ", "))
	}
	for _, path := range stale {
		fmt.Println(path)
	}
	return nil
}

// run returns the stale files. If write is set, it also writes them.
func run(write bool) (stale []string, err error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	if err := catalog.Check(catalog.Functions()); err != nil {
		return nil, err
	}
	for _, o := range outputs() {
		file := filepath.Join(root, filepath.FromSlash(o.path))
		have, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		want, err := o.render(catalog.Functions())
		if err == nil {
			want, err = o.merge(have, want)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.path, err)
		}
		if bytes.Equal(have, want) {
			continue
		}
		stale = append(stale, o.path)
		if !write {
			continue
		}
		if err := os.WriteFile(file, want, 0o644); err != nil {
			return nil, err
		}
	}
	return stale, nil
}

// repository returns the root of the repository, the folder of go.work. It works in all folders of
// the repository.
func repository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.work in %s or above: run the command in the repository", start)
		}
	}
}
