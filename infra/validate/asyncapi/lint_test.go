package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	asyncapi "github.com/asyncapi/spec-json-schemas/v6"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// folder holds the generated files.
var folder = filepath.Join("..", "..", "asyncapi")

func committed(t *testing.T) string {
	t.Helper()
	document, err := os.ReadFile(filepath.Join(folder, "asyncapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

// official compiles the schema of AsyncAPI documents.
func official(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := asyncapi.Get("3.0.0")
	if err != nil || text == nil {
		t.Fatalf("got the error %v and %d bytes, want the schema of AsyncAPI 3.0.0", err, len(text))
	}
	s, err := compile("https://www.asyncapi.com/definitions/3.0.0.json", text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func compile(id string, text []byte) (*jsonschema.Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(id, document); err != nil {
		return nil, err
	}
	return c.Compile(id)
}

func TestDocument_Committed(t *testing.T) {
	for _, problem := range lint(official(t), committed(t)) {
		t.Error(problem)
	}
}

// Each case breaks one rule. The lint must report it.
func TestDocument_ReportsProblems(t *testing.T) {
	s := official(t)
	const reply = "      messages:\n        - $ref: '#/channels/signout/messages/com.ticketing.user.signout.done.v1'\n"
	for name, c := range map[string]struct{ old, new, want string }{
		"another version":              {"asyncapi: 3.0.0", "asyncapi: 2.6.0", "'/asyncapi': value must be '3.0.0'"},
		"no title":                     {"  title: Ticketing auth events\n", "", "missing property 'title'"},
		"an unknown member":            {"    action: send\n", "    action: send\n    remark: none\n", "remark"},
		"an unknown action":            {"    action: receive\n", "    action: take\n", "'send', 'receive'"},
		"an operation without channel": {"    channel:\n      $ref: '#/channels/sink'\n", "", "missing property 'channel'"},
		"an unknown JSON type":         {"type: object\n", "type: struct\n", "/type"},
		"a dead reference":             {"'#/components/schemas/UserSignedIn'", "'#/components/schemas/Missing'", "#/components/schemas/Missing does not exist"},
		"a dead reference to a server": {"'#/servers/signup'", "'#/servers/missing'", "#/servers/missing does not exist"},
		"a message of another channel": {"'#/channels/signup/messages/com.ticketing.user.signup.requested.v1'", "'#/channels/signout/messages/com.ticketing.user.signout.requested.v1'", "is not a message of #/channels/signup"},
		"a reply of another channel":   {reply, strings.ReplaceAll(reply, "signout", "signup.accepted"), "does not exist"},
		"an unused schema":             {"  schemas:\n", "  schemas:\n    Unused:\n      type: object\n", "the schema Unused is not used"},
		"an unused message":            {"  messages:\n    com.ticketing.user.signedup.v1:\n", "  messages:\n    unused.v1:\n      name: unused.v1\n    com.ticketing.user.signedup.v1:\n", "the message unused.v1 is not used"},
		"a required unknown member":    {"required: [userId, ended]", "required: [userId, ended, at]", "requires at and does not describe it"},
		"a type that differs":          {"const: com.ticketing.user.signedin.v1", "const: com.ticketing.user.signedup.v1", "com.ticketing.user.signedin.v1 has the type com.ticketing.user.signedup.v1"},
	} {
		t.Run(name, func(t *testing.T) {
			good := committed(t)
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("the document has no %q", c.old)
			}
			if got := strings.Join(lint(s, bad), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want a problem with %q", got, c.want)
			}
		})
	}
}

// A document holds the parts of the reference that the lint reads.
type (
	document struct {
		Operations map[string]operation
		Components struct {
			Messages map[string]message
			Schemas  map[string]schema
		}
	}
	operation struct {
		Channel  ref
		Messages []ref
		Reply    *struct {
			Channel  ref
			Messages []ref
		}
	}
	message struct {
		Headers struct {
			Properties map[string]struct{ Const string }
		}
	}
	schema struct {
		Required   []string
		Properties map[string]any
	}
	ref struct {
		To string `yaml:"$ref"`
	}
)

// lint returns the problems of a document.
func lint(official *jsonschema.Schema, text string) (problems []string) {
	report := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	var tree any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		return []string{err.Error()}
	}
	asJSON, err := json.Marshal(tree)
	if err != nil {
		return []string{err.Error()}
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err == nil {
		err = official.Validate(instance)
	}
	if err != nil {
		report("%v", err)
	}
	for _, to := range references(tree) {
		if !exists(tree, to) {
			report("%s does not exist", to)
		}
	}
	var d document
	if err := yaml.Unmarshal([]byte(text), &d); err != nil {
		return append(problems, err.Error())
	}
	for name, o := range d.Operations {
		check := func(channel ref, messages []ref) {
			if len(messages) == 0 {
				report("the operation %s has no messages", name)
			}
			for _, m := range messages {
				if !strings.HasPrefix(m.To, channel.To+"/messages/") {
					report("%s: %s is not a message of %s", name, m.To, channel.To)
				}
			}
		}
		if check(o.Channel, o.Messages); o.Reply != nil {
			check(o.Reply.Channel, o.Reply.Messages)
		}
	}
	for name, m := range d.Components.Messages {
		if !strings.Contains(text, "'#/components/messages/"+name+"'") {
			report("the message %s is not used", name)
		}
		if kind := m.Headers.Properties["ce-type"].Const; kind != name {
			report("the message %s has the type %s", name, kind)
		}
	}
	for name, s := range d.Components.Schemas {
		if !strings.Contains(text, "'#/components/schemas/"+name+"'") {
			report("the schema %s is not used", name)
		}
		for _, member := range s.Required {
			if s.Properties[member] == nil {
				report("%s requires %s and does not describe it", name, member)
			}
		}
	}
	return problems
}

// references returns the targets of all references in a tree.
func references(tree any) (all []string) {
	switch tree := tree.(type) {
	case map[string]any:
		for name, value := range tree {
			if to, is := value.(string); is && name == "$ref" {
				all = append(all, to)
			}
			all = append(all, references(value)...)
		}
	case []any:
		for _, value := range tree {
			all = append(all, references(value)...)
		}
	}
	return all
}

// exists reports whether a tree has the target of a reference.
func exists(tree any, to string) bool {
	path, local := strings.CutPrefix(to, "#/")
	if !local {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		node, is := tree.(map[string]any)
		if !is || node[name] == nil {
			return false
		}
		tree = node[name]
	}
	return true
}

// Each schema is valid JSON Schema 2020-12, has the id that its events name, and is the schema of
// a message of the document.
func TestSchemas_Committed(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(folder, "schemas", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got the schemas %v and the error %v, want some", files, err)
	}
	var d document
	if err := yaml.Unmarshal([]byte(committed(t)), &d); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		id := "tag:ticketing.com,2026:/schemas/" + name
		if _, err := compile(id, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var head struct {
			Schema string `json:"$schema"`
			ID     string `json:"$id"`
		}
		if err := json.Unmarshal(text, &head); err != nil || head.Schema != "https://json-schema.org/draft/2020-12/schema" || head.ID != id {
			t.Errorf("%s: got %+v and the error %v, want draft 2020-12 and the id %s", name, head, err, id)
		}
		found = append(found, strings.TrimSuffix(name, ".json"))
	}
	for name, m := range d.Components.Messages {
		if of := m.Headers.Properties["ce-dataschema"].Const; of != "" && !slices.Contains(found, name) {
			t.Errorf("%s names the schema %s, which does not exist", name, of)
		}
	}
	for _, name := range found {
		if _, has := d.Components.Messages[name]; !has {
			t.Errorf("schemas/%s.json is the schema of no message: delete it", name)
		}
	}
}

// The compiler must report what is no valid schema.
func TestSchemas_CompilerReportsProblems(t *testing.T) {
	for _, text := range []string{`{"type":"struct"}`, `{"required":"all"}`, `{"minLength":-1}`, `{"$ref":"#/$defs/Missing"}`, `{"properties":[]}`, `7`} {
		if _, err := compile("tag:test,2026:x", []byte(text)); err == nil {
			t.Errorf("%s: got no error, want one", text)
		}
	}
}
