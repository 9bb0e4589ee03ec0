package needs

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/httpserver"
)

// The page lists exactly the settings that the code reads. The test finds them in the source, and
// by constructing all functions with a lookup that records the names.
func TestConfigurationPage_ListsAllSettings(t *testing.T) {
	read := sourceSettings(t)
	if len(read) < 20 {
		t.Fatalf("got only the settings %v", slices.Sorted(maps.Keys(read)))
	}
	for _, name := range lookedUp() {
		if _, found := read[name]; !found {
			read[name] = ""
		}
	}
	listed := table(t, "infra/docs/configuration.md")
	for name, byDefault := range read {
		stated, found := listed[name]
		if !found {
			t.Errorf("the code reads %s, and configuration.md does not list it", name)
		}
		if found && byDefault != "" && !strings.Contains(stated, "`"+byDefault+"`") {
			t.Errorf("%s: got the default %s in configuration.md, want `%s`", name, stated, byDefault)
		}
	}
	for name := range listed {
		if _, found := read[name]; !found {
			t.Errorf("configuration.md lists %s, and the code does not read it", name)
		}
	}
	for name, byDefault := range table(t, "README.md") {
		if listed[name] != byDefault {
			t.Errorf("%s: got the default %s in README.md, want %s as in configuration.md", name, byDefault, listed[name])
		}
	}
}

// table returns the settings in the tables of a page, and their defaults.
func table(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../..", page))
	if err != nil {
		t.Fatal(err)
	}
	all, row := map[string]string{}, regexp.MustCompile("(?m)^\\| (`[A-Z][A-Z0-9_, `]+`) \\| (.*?) \\|")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		for _, name := range regexp.MustCompile("[A-Z0-9_]+").FindAllString(m[1], -1) {
			if _, twice := all[name]; twice {
				t.Errorf("%s lists %s twice", page, name)
			}
			all[name] = m[2]
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no table of settings", page)
	}
	return all
}

// lookedUp returns the settings that all functions look up if they accept and publish events. It
// includes the settings that name files.
func lookedUp() (names []string) {
	given := map[string]string{"EVENTS": "on", "K_SINK": "http://localhost", "EVENT_OIDC_ISSUER": "https://localhost", "EVENT_OIDC_AUDIENCE": "auth"}
	lookup := func(name string) (string, bool) {
		names = append(names, name)
		value, set := given[name]
		return value, set
	}
	cfg := config.New(lookup, func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
	httpserver.Handler(cfg, catalog.Functions()...)
	return names
}

// sourceSettings returns the settings that the source reads by a constant name, and their
// constant defaults.
func sourceSettings(t *testing.T) map[string]string {
	t.Helper()
	packages := map[string][]*ast.File{}
	for _, root := range []string{"../../../shared", "../../../functions", "../../catalog", "../../local", "../../allinone", "../../migrate"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			packages[filepath.Dir(path)] = append(packages[filepath.Dir(path)], file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	all := map[string]string{}
	for _, files := range packages {
		constants := constantsOf(files)
		for _, file := range files {
			for n := range ast.Preorder(file) {
				if name, byDefault, reads := reading(n, constants); reads && (all[name] == "" || byDefault != "") {
					all[name] = byDefault
				}
			}
		}
	}
	return all
}

// constantsOf returns the values of the constants of a package, as in the source.
func constantsOf(files []*ast.File) map[string]string {
	all := map[string]string{}
	for _, file := range files {
		for n := range ast.Preorder(file) {
			if spec, is := n.(*ast.ValueSpec); is && len(spec.Names) == 1 && len(spec.Values) == 1 {
				all[spec.Names[0].Name] = types.ExprString(spec.Values[0])
			}
		}
	}
	return all
}

var settingName = regexp.MustCompile(`^"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*"$`)

// reading returns the name and the constant default of a setting that an expression such as
// w.Number("PORT", 8080, 0, 65535) reads.
func reading(n ast.Node, constants map[string]string) (name, byDefault string, reads bool) {
	call, is := n.(*ast.CallExpr)
	if !is || len(call.Args) == 0 {
		return "", "", false
	}
	method, is := call.Fun.(*ast.SelectorExpr)
	name = types.ExprString(call.Args[0])
	if value, found := constants[name]; found {
		name = value
	}
	if !is || !settingName.MatchString(name) ||
		!slices.Contains([]string{"Text", "Lines", "Required", "Number", "Duration", "Switch", "Document"}, method.Sel.Name) {
		return "", "", false
	}
	if len(call.Args) > 1 {
		byDefault = constantOf(method.Sel.Name, call.Args[1], constants)
	}
	return strings.Trim(name, `"`), byDefault, true
}

// constantOf returns a default in the format of a setting, or "" if the expression is not a
// constant. For min(15*time.Minute, session) it returns the first argument.
func constantOf(method string, e ast.Expr, constants map[string]string) string {
	if bounded, is := e.(*ast.CallExpr); is && types.ExprString(bounded.Fun) == "min" {
		e = bounded.Args[0]
	}
	text := types.ExprString(e)
	if value, found := constants[text]; found {
		text = value
	}
	for unit, d := range map[string]time.Duration{"time.Millisecond": time.Millisecond, "time.Second": time.Second, "time.Minute": time.Minute, "time.Hour": time.Hour} {
		text = strings.ReplaceAll(text, unit, fmt.Sprint(int64(d)))
	}
	value, err := types.Eval(token.NewFileSet(), nil, token.NoPos, text)
	if err != nil || value.Value == nil {
		return ""
	}
	switch n, exact := constant.Int64Val(constant.ToInt(value.Value)); {
	case method == "Switch":
		return map[bool]string{true: "on", false: "off"}[constant.BoolVal(value.Value)]
	case value.Value.Kind() == constant.String:
		return constant.StringVal(value.Value)
	case exact && method == "Duration":
		return short(time.Duration(n))
	case exact && n != 0: // 0 stands for a computed value
		return fmt.Sprint(n)
	}
	return ""
}

// short formats 15 minutes as 15m, and 30 days as 720h.
func short(d time.Duration) string {
	return regexp.MustCompile(`(\D)0s$`).ReplaceAllString(strings.ReplaceAll(d.String(), "h0m0s", "h"), "$1")
}

func TestReading_FindsNamesAndDefaults(t *testing.T) {
	for source, want := range map[string]string{
		`w.Number("PORT", 8080, 0, 65535)`:                       "PORT 8080",
		`w.Duration("LIFE", min(15*time.Minute, session), 0, 0)`: "LIFE 15m",
		`w.Duration("MAX", 2160*time.Hour, 0, 0)`:                "MAX 2160h",
		`w.Duration("WAIT", 300*time.Millisecond, 0, 0)`:         "WAIT 300ms",
		`w.Text("TOKEN_ISSUER", "ticketing")`:                    "TOKEN_ISSUER ticketing",
		`w.Switch("HASH_TESTING", false)`:                        "HASH_TESTING off",
		`w.Number("HASH_TIME", defaultTime, 1, 16)`:              "HASH_TIME 2",
		`w.Number("HASH_TIME", computed(), 1, 16)`:               "HASH_TIME ",
		`w.Required("MONGODB_URI")`:                              "MONGODB_URI ",
		`w.Text(portSetting, "")`:                                "PORT ",
		`w.Text("lower", "")`:                                    "",
		`fmt.Println("PORT")`:                                    "",
	} {
		e, err := parser.ParseExpr(source)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if name, byDefault, reads := reading(e, map[string]string{"portSetting": `"PORT"`, "defaultTime": "2"}); reads {
			got = name + " " + byDefault
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", source, got, want)
		}
	}
}
