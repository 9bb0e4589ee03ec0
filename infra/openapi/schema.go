package openapi

import (
	"cmp"
	"encoding"
	"fmt"
	"path"
	"reflect"
	"strconv"
	"strings"
	"time"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/reference"
)

// schemas holds the named schemas of a document, in the order of their first use.
type schemas struct {
	all   list[*schema]
	types map[string]reflect.Type // by the name
}

// of returns the schema of a type. For a struct it returns a reference to a named schema.
// In an input, a pointer is an optional member. In an output, it is a nullable member.
func (s *schemas) of(t reflect.Type, input bool) (*schema, error) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return &schema{Type: "string", Format: "date-time"}, nil
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return &schema{Type: "string"}, nil
	case isPatch(t):
		to, err := s.of(t.Field(1).Type.Elem(), input)
		return &schema{AnyOf: []*schema{to, {Type: "null"}}}, err
	}
	switch t.Kind() {
	case reflect.String:
		return &schema{Type: "string"}, nil
	case reflect.Bool:
		return &schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int32, reflect.Int64:
		return &schema{Type: "integer"}, nil
	case reflect.Float64:
		return &schema{Type: "number"}, nil
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
	return nil, fmt.Errorf("a member of type %s has no schema: add the type to infra/openapi/schema.go", t)
}

// named returns a reference to the schema of a struct and adds the schema if it is new.
func (s *schemas) named(t reflect.Type, input bool) (*schema, error) {
	name := nameOf(t)
	ref := &schema{Ref: "#/components/schemas/" + name}
	if known, met := s.types[name]; met {
		if known != t {
			return nil, fmt.Errorf("%s and %s have the same name in the reference: %s", known, t, name)
		}
		return ref, nil
	}
	s.types[name] = t
	index := len(s.all)
	s.all = append(s.all, entry[*schema]{name, nil}) // before the schemas of its members
	described, err := s.object(t, input)
	s.all[index].value = described
	return ref, err
}

// nameOf returns the name of a schema. A type of a function gets the function's name as a
// prefix, because every function has a type Input.
func nameOf(t reflect.Type) string {
	if dir, name := path.Split(t.PkgPath()); strings.HasSuffix(dir, "/functions/") {
		return strings.ToUpper(name[:1]) + name[1:] + t.Name()
	}
	return t.Name()
}

func (s *schemas) object(t reflect.Type, input bool) (*schema, error) {
	o := &schema{Type: "object"}
	described := membersOf(t)
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.IsExported() && !input { // an input ignores fields without a name
			return nil, fmt.Errorf("%s has no JSON name for its field %s", t, f.Name)
		}
		m := described[name]
		delete(described, name)
		if name == "" || name == "-" || m.Secret {
			continue
		}
		of, err := s.of(f.Type, input)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", name, t, err)
		}
		of = of.with(m)
		of.bound(tagged(f, "min"), tagged(f, "max"))
		o.Properties = append(o.Properties, entry[*schema]{name, of})
		if optional := strings.Contains(options, "omit") || input && (f.Type.Kind() == reflect.Pointer || isPatch(f.Type)); !optional {
			o.Required = append(o.Required, name)
		}
	}
	for name := range described {
		return nil, fmt.Errorf("%s describes the member %s, but has no such member", t, name)
	}
	return o, nil
}

// membersOf returns the descriptions that a type has of its members, by name.
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
	s.Description, s.Format, s.Opaque = m.About, cmp.Or(m.Format, s.Format), m.Opaque
	s.MinLength, s.MaxLength = m.MinLength, m.MaxLength
	if m.Minimum != 0 {
		s.Minimum = new(float64(m.Minimum))
	}
	return s
}

// isPatch reports whether a type is an endpoint.Patch.
func isPatch(t reflect.Type) bool {
	return t.PkgPath() == reflect.TypeFor[endpoint.None]().PkgPath() && strings.HasPrefix(t.Name(), "Patch[")
}

// tagged returns the number in a tag of a field, or nil.
func tagged(f reflect.StructField, tag string) *float64 {
	value, err := strconv.ParseFloat(f.Tag.Get(tag), 64)
	if err != nil {
		return nil
	}
	return &value
}

// bound adds the bounds of a number, of the length of a string, or of the items of an array.
func (s *schema) bound(least, most *float64) {
	if s.AnyOf != nil {
		s = s.AnyOf[0]
	}
	set := func(to *int, from *float64) {
		if from != nil {
			*to = int(*from)
		}
	}
	switch s.Type {
	case "string":
		set(&s.MinLength, least)
		set(&s.MaxLength, most)
	case "array":
		set(&s.MinItems, least)
		set(&s.MaxItems, most)
	case "integer", "number":
		if least != nil {
			s.Minimum = least
		}
		s.Maximum = most
	}
}
