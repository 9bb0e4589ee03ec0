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
	document, err := os.ReadFile(filepath.Join("..", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

func TestTheReferencePassesItsLint(t *testing.T) {
	for _, fault := range lint(committed(t)) {
		t.Error(fault)
	}
}

// What a lint lets pass is known by what it refuses.
func TestTheLintRefuses(t *testing.T) {
	const (
		operation = "      operationId: signin\n"
		user      = "    User:\n      type: object\n"
		found     = "message: Email or password is wrong."
	)
	for name, c := range map[string]struct{ old, new, want string }{
		"another version":                              {"openapi: 3.1.0", "openapi: 4.0.0", "it is OpenAPI 4.0.0"},
		"no title":                                     {"  title: Ticketing auth\n", "", "missing property 'title'"},
		"a member that OpenAPI does not know":          {operation, operation + "      remark: none\n", "false schema"},
		"a reference to nothing":                       {"'#/components/schemas/SigninInput'", "'#/components/schemas/Nobody'", "Nobody` does not exist"},
		"a type that JSON does not have":               {user, strings.Replace(user, "object", "struct", 1), "not valid against metaschema"},
		"a status that is none":                        {`"422":`, `"four":`, "false schema"},
		"a path without its slash":                     {"  /api/users/signout:", "  api/users/signout:", "does not begin with a slash"},
		"two operations of one name":                   {operation, "      operationId: signup\n", "its name \"signup\""},
		"an operation without a name":                  {operation, "", "its name \"\""},
		"an operation without a summary":               {"      summary: Start a session with an email and a password.\n", "", "signin has no summary"},
		"a tag that is not explained":                  {"      tags: [auth]\n", "      tags: [other]\n", "the tag other is not explained"},
		"a security scheme that is not there":          {"[{bearer: []}]", "[{cookie: []}]", "no security scheme cookie"},
		"a parameter that is nowhere":                  {"          in: header\n", "          in: body\n", "'query', 'header', 'path', 'cookie'"},
		"a response without a description":             {"          description: It is made.\n", "", "201 has no description"},
		"a request that its schema refuses":            {"password: wrong horse", "password: 7", "got number, want string"},
		"an answer that its schema refuses":            {found, strings.Replace(found, "message", "text", 1), "missing property 'message'"},
		"an answer that has no example":                {"                nobody:\n                  summary: No token was sent.\n                  value:\n                    currentUser: null\n", "                nobody:\n                  summary: No token was sent.\n", "has no value"},
		"a required member that is not described":      {"required: [id, email]", "required: [id, email, name]", "requires name and does not describe it"},
		"a schema that nobody uses":                    {user, "    Nobody:\n      type: object\n" + user, "nobody uses the schema Nobody"},
		"a header that nobody uses":                    {"    NoSniff:\n", "    Nobody:\n      schema: {type: string}\n    NoSniff:\n", "nobody uses the header Nobody"},
		"an error in a form of its own":                {"              schema:\n                $ref: '#/components/schemas/Errors'", "              schema:\n                type: object", "400 has a form of its own"},
		"an answer that may be taken for another type": {"            X-Content-Type-Options:\n              $ref: '#/components/headers/NoSniff'\n", "", "201 has no X-Content-Type-Options"},
		"a private key":                                {"        kid:\n", "        d:\n          type: string\n        kid:\n", "JWK has the private key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := committed(t)
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("the document has no %q", c.old)
			}
			if said := strings.Join(lint(bad), "\n"); !strings.Contains(said, c.want) {
				t.Errorf("it says %q", said)
			}
		})
	}
}

// lint returns what is wrong with a document.
func lint(text string) (faults []string) {
	document, err := libopenapi.NewDocument([]byte(text))
	if err != nil {
		return []string{err.Error()}
	}
	if version := document.GetVersion(); !strings.HasPrefix(version, "3.1.") {
		return []string{"it is OpenAPI " + version}
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
		faults = append(faults, told(errs)...)
	}
	l := linter{&model.Model, map[string]bool{}, schema_validation.NewSchemaValidator(config.WithFormatAssertions()), &faults}
	l.operations()
	l.components(text)
	return faults
}

func told(errs []*liberrors.ValidationError) (faults []string) {
	for _, e := range errs {
		fault := fmt.Sprintf("line %d: %s: %s", e.SpecLine, e.Message, e.Reason)
		for _, s := range e.SchemaValidationErrors {
			fault += "; " + s.Reason
		}
		faults = append(faults, fault)
	}
	return faults
}

// A linter knows the rules of the house.
type linter struct {
	*v3.Document
	names  map[string]bool // of operations
	schema schema_validation.SchemaValidator
	faults *[]string
}

func (l linter) fault(format string, args ...any) {
	*l.faults = append(*l.faults, fmt.Sprintf(format, args...))
}

func (l linter) operations() {
	for path, item := range l.Paths.PathItems.FromOldest() {
		if !strings.HasPrefix(path, "/") {
			l.fault("%s does not begin with a slash", path)
		}
		for method, o := range item.GetOperations().FromOldest() {
			l.operation(strings.ToUpper(method)+" "+path, o, method == "head")
		}
	}
}

func (l linter) operation(at string, o *v3.Operation, bodiless bool) {
	if o.OperationId == "" || l.names[o.OperationId] {
		l.fault("%s: its name %q is empty or that of another operation", at, o.OperationId)
	}
	l.names[o.OperationId] = true
	if o.Summary == "" {
		l.fault("%s has no summary", at)
	}
	for _, name := range o.Tags {
		if !slices.ContainsFunc(l.Tags, func(t *base.Tag) bool { return t.Name == name }) {
			l.fault("%s: the tag %s is not explained", at, name)
		}
	}
	for _, requirement := range o.Security {
		for name := range requirement.Requirements.FromOldest() {
			if _, there := l.Components.SecuritySchemes.Get(name); !there {
				l.fault("%s: there is no security scheme %s", at, name)
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
		l.fault("%s has no description", at)
	}
	for _, name := range []string{"Cache-Control", "X-Content-Type-Options"} {
		if r.Headers == nil || r.Headers.GetOrZero(name) == nil {
			l.fault("%s has no %s", at, name)
		}
	}
	if bodiless {
		return
	}
	content := r.Content.GetOrZero("application/json")
	if content == nil {
		l.fault("%s is no JSON", at)
		return
	}
	l.content(at, content)
	if ref := content.Schema.GetReference(); status >= "400" && ref != "#/components/schemas/Errors" {
		l.fault("%s has a form of its own", at)
	}
}

// content looks whether there are examples, and whether the schema takes them.
func (l linter) content(at string, content *v3.MediaType) {
	if content.Examples.Len() == 0 {
		l.fault("%s has no example", at)
	}
	for name, x := range content.Examples.FromOldest() {
		var value any
		if x.Value == nil || x.Value.Decode(&value) != nil {
			l.fault("%s: the example %s has no value", at, name)
			continue
		}
		if ok, errs := l.schema.ValidateSchemaObjectWithVersion(content.Schema.Schema(), value, 3.1); !ok {
			l.fault("%s: the example %s: %s", at, name, strings.Join(told(errs), "; "))
		}
	}
}

// components looks for what is required and not described, or described and not used.
func (l linter) components(text string) {
	for name, proxy := range l.Components.Schemas.FromOldest() {
		s := proxy.Schema()
		for _, member := range s.Required {
			if s.Properties.GetOrZero(member) == nil {
				l.fault("%s requires %s and does not describe it", name, member)
			}
		}
		if !strings.Contains(text, "'#/components/schemas/"+name+"'") {
			l.fault("nobody uses the schema %s", name)
		}
		if name == "JWK" && s.Properties.GetOrZero("d") != nil {
			l.fault("%s has the private key", name)
		}
	}
	for name := range l.Components.Headers.FromOldest() {
		if !strings.Contains(text, "'#/components/headers/"+name+"'") {
			l.fault("nobody uses the header %s", name)
		}
	}
}
