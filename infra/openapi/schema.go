package openapi

import (
	"fmt"
	"path"
	"reflect"
	"strings"

	"ticketing.com/auth/shared/reference"
)

// schemas are the named ones of a document, in the order in which they are met.
type schemas struct {
	all   list[*schema]
	types map[string]reflect.Type // by the name
}

// of returns the schema of a type. A struct gets a name and is referred to. input says
// that a pointer is a member that may be left out; in an answer it may be null.
func (s *schemas) of(t reflect.Type, input bool) (*schema, error) {
	switch t.Kind() {
	case reflect.String:
		return &schema{Type: "string"}, nil
	case reflect.Bool:
		return &schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int64:
		return &schema{Type: "integer"}, nil
	case reflect.Slice:
		items, err := s.of(t.Elem(), input)
		return &schema{Type: "array", Items: items}, err
	case reflect.Pointer:
		to, err := s.of(t.Elem(), input)
		if input {
			return to, err
		}
		return &schema{AnyOf: []*schema{to, {Type: "null"}}}, err
	case reflect.Struct:
		return s.named(t, input)
	}
	return nil, fmt.Errorf("a member of type %s: say in infra/openapi what it is in JSON", t)
}

// named returns a reference to a struct, and describes it where it is new.
func (s *schemas) named(t reflect.Type, input bool) (*schema, error) {
	name := nameOf(t)
	ref := &schema{Ref: "#/components/schemas/" + name}
	if known, met := s.types[name]; met {
		if known != t {
			return nil, fmt.Errorf("%s and %s would have one name in the reference: %s", known, t, name)
		}
		return ref, nil
	}
	s.types[name] = t
	place := len(s.all)
	s.all = append(s.all, entry[*schema]{name, nil}) // before those it is made of
	described, err := s.object(t, input)
	s.all[place].value = described
	return ref, err
}

// nameOf is the type's own name, with that of the function before it where it belongs
// to one: every function has an Input.
func nameOf(t reflect.Type) string {
	if dir, name := path.Split(t.PkgPath()); strings.HasSuffix(dir, "/functions/") {
		return strings.ToUpper(name[:1]) + name[1:] + t.Name()
	}
	return t.Name()
}

func (s *schemas) object(t reflect.Type, input bool) (*schema, error) {
	o := &schema{Type: "object"}
	more := membersOf(t)
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.IsExported() && !input { // an input without a name is not read
			return nil, fmt.Errorf("%s has no name in JSON for its %s", t, f.Name)
		}
		m := more[name]
		delete(more, name)
		if name == "" || name == "-" || m.Secret {
			continue
		}
		of, err := s.of(f.Type, input)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", name, t, err)
		}
		o.Properties = append(o.Properties, entry[*schema]{name, of.with(m)})
		if may := strings.Contains(options, "omit") || input && f.Type.Kind() == reflect.Pointer; !may {
			o.Required = append(o.Required, name)
		}
	}
	for name := range more {
		return nil, fmt.Errorf("%s describes its member %s, and has none", t, name)
	}
	return o, nil
}

// membersOf returns what a type says of its members, by their names.
func membersOf(t reflect.Type) map[string]reference.Member {
	all := map[string]reference.Member{}
	if d, ok := reflect.New(t).Interface().(reference.Described); ok {
		for _, m := range d.Members() {
			all[m.Name] = m
		}
	}
	return all
}

func (s *schema) with(m reference.Member) *schema {
	s.Description, s.Format, s.Opaque = m.About, m.Format, m.Opaque
	s.MinLength, s.MaxLength, s.Minimum = m.MinLength, m.MaxLength, m.Minimum
	return s
}
