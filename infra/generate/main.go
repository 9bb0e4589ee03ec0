// Command generate writes what is made from the catalog: everything that must agree
// on which functions there are, where they are reached and what they need.
//
//	go run ./infra/generate            writes what is stale
//	go run ./infra/generate -check     writes nothing, names what is stale, exits with 1
//	go run ./infra/generate new NAME   makes a new function, which works, and enters it
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

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/infra/lambda"
	"ticketing.com/auth/infra/openapi"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/usage"
)

const (
	call = "go run ./infra/generate"
	text = `usage: ` + call + ` [-check]
       ` + call + ` new NAME

  -check     write nothing; name the stale files and exit with 1
  new NAME   make a function that works, and add it to the catalog

Without arguments, it writes the files that are stale.
`
)

// outputs are what is generated. A new one is a line here.
func outputs() []output {
	all := []output{
		{"infra/lambda/template.yaml", "", lambda.Template},
		{"infra/openapi/openapi.yaml", "", openapi.Document},
		{"infra/knative/base/functions.yaml", "", knative.Services},
		{"infra/knative/eventing/functions.yaml", "", knative.EventServices},
		{"infra/knative/eventing/triggers.yaml", "", knative.Triggers},
		{"infra/knative/ingress/kourier/routes.yaml", "", knative.Kourier},
		{"infra/knative/ingress/traefik/routes.yaml", "", knative.Traefik},
		{"infra/knative/ingress/gateway/routes.yaml", "", knative.Gateway},
		{"infra/knative/accounts.yaml", "", knative.Accounts},
		{"infra/knative/overlays/small/service.yaml", "", knative.Small},
		{"skaffold.yaml", "", knative.Skaffold},
		{"func.yaml", "", knative.FuncAllInOne},
		{"README.md", "functions", knative.Table},
		{"infra/docs/deploy-kn.md", "kn", knative.Kn},
	}
	for _, e := range catalog.Functions() {
		all = append(all, output{"functions/" + e.Name + "/func.yaml", "", func([]endpoint.Endpoint) ([]byte, error) { return knative.Func(e) }})
	}
	return all
}

// An output is a file, by its path from the root of the repository, and what it is
// made by. Its first line says that it is generated, and by which command. Where it
// has a section, only that is made: what is between two comments
//
//	<!-- SECTION: made by "go run ./infra/generate" -->
//	<!-- end of SECTION -->
type output struct {
	path, section string
	render        func([]endpoint.Endpoint) ([]byte, error)
}

// in returns a file with what was rendered in it.
func (o output) in(file, rendered []byte) ([]byte, error) {
	if o.section == "" {
		return rendered, nil
	}
	begin, end := "<!-- "+o.section+": made by \"go run ./infra/generate\" -->\n", "<!-- end of "+o.section+" -->\n"
	before, rest, begins := strings.Cut(string(file), begin)
	_, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		return nil, fmt.Errorf("there is no %q and then %q in it", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return []byte(before + begin + string(rendered) + end + after), nil
}

func main() {
	help := usage.Command{Call: call, Text: text, Stdout: os.Stdout, Stderr: os.Stderr}
	args, flags, operands := os.Args[1:], new(flag.FlagSet), 0
	var check bool
	do := func() error { return regenerate(check) }
	if len(args) > 0 && args[0] == "new" {
		help.Call += " new"
		args, operands = args[1:], 1
		do = func() error { return newFunction(flags.Arg(0)) }
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

// created is the last line that "new" prints.
const created = "%s is POST /api/users/%[1]s now. Its story is in functions/%[1]s/%[1]s.go; go test ./functions/%[1]s\n"

func newFunction(name string) error {
	root, err := repository()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := create(ctx, root, name, func(step string) { fmt.Println(step) }); err != nil {
		return err
	}
	fmt.Printf(created, name)
	return nil
}

func regenerate(check bool) error {
	stale, err := run(!check)
	if err != nil {
		return err
	}
	if check && len(stale) > 0 {
		return fmt.Errorf("stale: %s: run go run ./infra/generate", strings.Join(stale, ", "))
	}
	for _, path := range stale {
		fmt.Println(path)
	}
	return nil
}

// run returns the files that differ from what they should be, and mends them if it
// is to write.
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
			want, err = o.in(have, want)
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

// repository returns the root of the repository, which has go.work, from anywhere
// in it.
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
			return "", fmt.Errorf("no go.work in %s or above: run it in the repository", start)
		}
	}
}
