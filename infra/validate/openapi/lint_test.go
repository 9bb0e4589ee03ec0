package validate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	liberrors "github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	"github.com/pb33f/libopenapi/datamodel/high/base"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"
)

func committed(t *testing.T) string {
	t.Helper()
	document, err := os.ReadFile(filepath.Join(root, "infra", "openapi", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

func TestLint_CommittedReference(t *testing.T) {
	for _, problem := range lint(committed(t)) {
		t.Error(problem)
	}
}

// Each case breaks one rule. The lint must report it.
func TestLint_ReportsProblems(t *testing.T) {
	const (
		operation = "      operationId: signin\n"
		user      = "    User:\n      type: object\n"
		found     = "message: Email or password is wrong."
	)
	for name, c := range map[string]struct{ old, new, want string }{
		"another version":                           {"openapi: 3.1.0", "openapi: 4.0.0", "got OpenAPI 4.0.0, want 3.1"},
		"no title":                                  {"  title: Ticketing auth\n", "", "missing property 'title'"},
		"an unknown member of OpenAPI":              {operation, operation + "      remark: none\n", "false schema"},
		"a reference to a missing schema":           {"'#/components/schemas/SigninInput'", "'#/components/schemas/Missing'", "Missing` does not exist"},
		"an unknown JSON type":                      {user, strings.Replace(user, "object", "struct", 1), "not valid against metaschema"},
		"an invalid status":                         {`"422":`, `"four":`, "false schema"},
		"a path without a slash":                    {"  /api/users/signout:", "  api/users/signout:", "does not begin with a slash"},
		"two operations with one id":                {operation, "      operationId: signup\n", "the operation id \"signup\""},
		"an operation without an id":                {operation, "", "the operation id \"\""},
		"an operation without a summary":            {"      summary: Start a session with an email and a password.\n", "", "signin has no summary"},
		"an undefined tag":                          {"      tags: [auth]\n", "      tags: [other]\n", "the tag other is not defined"},
		"an undefined security scheme":              {"[{bearer: []}]", "[{cookie: []}]", "the security scheme cookie is not defined"},
		"a parameter with an invalid location":      {"          in: header\n", "          in: body\n", "'query', 'header', 'path', 'cookie'"},
		"a response without a description":          {"          description: The resource was created.\n", "", "201 has no description"},
		"a request that does not match its schema":  {"password: wrong horse", "password: 7", "got number, want string"},
		"a response that does not match its schema": {found, strings.Replace(found, "message", "text", 1), "missing property 'message'"},
		"an example without a value":                {"                anonymous:\n                  summary: The request has no token.\n                  value:\n                    currentUser: null\n", "                anonymous:\n                  summary: The request has no token.\n", "has no value"},
		"a required member without a description":   {"required: [id, email]", "required: [id, email, name]", "requires name and does not describe it"},
		"an unused schema":                          {user, "    Unused:\n      type: object\n" + user, "the schema Unused is not used"},
		"an unused header":                          {"    NoSniff:\n", "    Unused:\n      schema: {type: string}\n    NoSniff:\n", "the header Unused is not used"},
		"an error in another form":                  {"              schema:\n                $ref: '#/components/schemas/Errors'", "              schema:\n                type: object", "400 does not use the schema Errors"},
		"a response without nosniff":                {"            X-Content-Type-Options:\n              $ref: '#/components/headers/NoSniff'\n", "", "201 has no X-Content-Type-Options"},
		"a private key":                             {"        kid:\n", "        d:\n          type: string\n        kid:\n", "JWK contains the private key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := committed(t)
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("the document has no %q", c.old)
			}
			if got := strings.Join(lint(bad), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want a problem with %q", got, c.want)
			}
		})
	}
}

// lint returns the problems of a document.
func lint(text string) (problems []string) {
	document, err := libopenapi.NewDocument([]byte(text))
	if err != nil {
		return []string{err.Error()}
	}
	if version := document.GetVersion(); !strings.HasPrefix(version, "3.1.") {
		return []string{"got OpenAPI " + version + ", want 3.1"}
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return []string{err.Error()}
	}
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		return []string{errors.Join(errs...).Error()}
	}
	if _, errs := v.ValidateDocument(); len(errs) > 0 {
		problems = append(problems, messages(errs)...)
	}
	l := linter{&model.Model, map[string]bool{}, schema_validation.NewSchemaValidator(config.WithFormatAssertions()), &problems}
	l.operations()
	l.components(text)
	return problems
}

func messages(errs []*liberrors.ValidationError) (problems []string) {
	for _, e := range errs {
		problem := fmt.Sprintf("line %d: %s: %s", e.SpecLine, e.Message, e.Reason)
		for _, s := range e.SchemaValidationErrors {
			problem += "; " + s.Reason
		}
		problems = append(problems, problem)
	}
	return problems
}

// A linter checks the rules of this project.
type linter struct {
	*v3.Document
	ids      map[string]bool // of operations
	schema   schema_validation.SchemaValidator
	problems *[]string
}

func (l linter) report(format string, args ...any) {
	*l.problems = append(*l.problems, fmt.Sprintf(format, args...))
}

func (l linter) operations() {
	for path, item := range l.Paths.PathItems.FromOldest() {
		if !strings.HasPrefix(path, "/") {
			l.report("%s does not begin with a slash", path)
		}
		for method, o := range item.GetOperations().FromOldest() {
			l.operation(strings.ToUpper(method)+" "+path, o, method == "head")
		}
	}
}

func (l linter) operation(at string, o *v3.Operation, bodiless bool) {
	if o.OperationId == "" || l.ids[o.OperationId] {
		l.report("%s: the operation id %q is empty or not unique", at, o.OperationId)
	}
	l.ids[o.OperationId] = true
	if o.Summary == "" {
		l.report("%s has no summary", at)
	}
	for _, name := range o.Tags {
		if !slices.ContainsFunc(l.Tags, func(t *base.Tag) bool { return t.Name == name }) {
			l.report("%s: the tag %s is not defined", at, name)
		}
	}
	for _, requirement := range o.Security {
		for name := range requirement.Requirements.FromOldest() {
			if _, found := l.Components.SecuritySchemes.Get(name); !found {
				l.report("%s: the security scheme %s is not defined", at, name)
			}
		}
	}
	if o.RequestBody != nil {
		for _, content := range o.RequestBody.Content.FromOldest() {
			l.content(at+": the request", content)
		}
	}
	for status, r := range o.Responses.Codes.FromOldest() {
		l.response(at+" "+status, status, r, bodiless)
	}
}

func (l linter) response(at, status string, r *v3.Response, bodiless bool) {
	if r.Description == "" {
		l.report("%s has no description", at)
	}
	for _, name := range []string{"Cache-Control", "X-Content-Type-Options"} {
		if r.Headers == nil || r.Headers.GetOrZero(name) == nil {
			l.report("%s has no %s", at, name)
		}
	}
	if bodiless {
		return
	}
	if r.Content == nil {
		if status != "204" {
			l.report("%s has no content", at)
		}
		return
	}
	if status == "204" {
		l.report("%s has content", at)
	}
	if file := r.Content.GetOrZero("*/*"); file != nil && status < "300" {
		if s := file.Schema.Schema(); s.Format != "binary" {
			l.report("%s has a file with the format %q, want binary", at, s.Format)
		}
		return
	}
	content := r.Content.GetOrZero("application/json")
	if content == nil {
		l.report("%s has no JSON content", at)
		return
	}
	l.content(at, content)
	if ref := content.Schema.GetReference(); status >= "400" && ref != "#/components/schemas/Errors" {
		l.report("%s does not use the schema Errors", at)
	}
}

// content checks that there are examples and that they match the schema.
func (l linter) content(at string, content *v3.MediaType) {
	if content.Examples.Len() == 0 {
		l.report("%s has no example", at)
	}
	for name, x := range content.Examples.FromOldest() {
		var value any
		if x.Value == nil || x.Value.Decode(&value) != nil {
			l.report("%s: the example %s has no value", at, name)
			continue
		}
		if ok, errs := l.schema.ValidateSchemaObjectWithVersion(content.Schema.Schema(), value, 3.1); !ok {
			l.report("%s: the example %s: %s", at, name, strings.Join(messages(errs), "; "))
		}
	}
}

// components reports required members without a description, and unused components.
func (l linter) components(text string) {
	for name, proxy := range l.Components.Schemas.FromOldest() {
		s := proxy.Schema()
		for _, member := range s.Required {
			if s.Properties.GetOrZero(member) == nil {
				l.report("%s requires %s and does not describe it", name, member)
			}
		}
		if !strings.Contains(text, "'#/components/schemas/"+name+"'") {
			l.report("the schema %s is not used", name)
		}
		if name == "JWK" && s.Properties.GetOrZero("d") != nil {
			l.report("%s contains the private key", name)
		}
	}
	for name := range l.Components.Headers.FromOldest() {
		if !strings.Contains(text, "'#/components/headers/"+name+"'") {
			l.report("the header %s is not used", name)
		}
	}
}
