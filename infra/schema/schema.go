// Package schema generates JSON schemas from Go types. The API reference, the event reference
// and the published schemas of the events use it.
package schema

import (
	"cmp"
	"encoding"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/reference"
)

// A Schema is a JSON schema with the keywords that the generated schemas use. They have the same
// meaning in JSON Schema 2020-12, in OpenAPI 3.1 and in AsyncAPI 3. The order of the fields is
// the order in the file.
type Schema struct {
	Comment     string        `yaml:"$comment,omitempty" json:"$comment,omitzero"`
	Dialect     string        `yaml:"$schema,omitempty" json:"$schema,omitzero"`
	ID          string        `yaml:"$id,omitempty" json:"$id,omitzero"`
	Ref         string        `yaml:"$ref,omitempty" json:"$ref,omitzero"`
	Title       string        `yaml:"title,omitempty" json:"title,omitzero"`
	Type        string        `yaml:"type,omitempty" json:"type,omitzero"`
	Description string        `yaml:"description,omitempty" json:"description,omitzero"`
	Format      string        `yaml:"format,omitempty" json:"format,omitzero"`
	Const       string        `yaml:"const,omitempty" json:"const,omitzero"`
	Enum        []string      `yaml:"enum,omitempty,flow" json:"enum,omitzero"`
	Pattern     string        `yaml:"pattern,omitempty" json:"pattern,omitzero"`
	MinLength   int           `yaml:"minLength,omitempty" json:"minLength,omitzero"`
	MaxLength   int           `yaml:"maxLength,omitempty" json:"maxLength,omitzero"`
	Minimum     *float64      `yaml:"minimum,omitempty" json:"minimum,omitzero"`
	Maximum     *float64      `yaml:"maximum,omitempty" json:"maximum,omitzero"`
	MinItems    int           `yaml:"minItems,omitempty" json:"minItems,omitzero"`
	MaxItems    int           `yaml:"maxItems,omitempty" json:"maxItems,omitzero"`
	Items       *Schema       `yaml:"items,omitempty" json:"items,omitzero"`
	Required    []string      `yaml:"required,omitempty,flow" json:"required,omitzero"`
	Properties  List[*Schema] `yaml:"properties,omitempty" json:"properties,omitzero"`
	AnyOf       []*Schema     `yaml:"anyOf,omitempty" json:"anyOf,omitzero"`
	Opaque      bool          `yaml:"x-opaque,omitempty" json:"-"`
	Defs        List[*Schema] `yaml:"$defs,omitempty" json:"$defs,omitempty"`
}

// A Set holds the named schemas of a document, in the order of their first use.
type Set struct {
	All   List[*Schema]
	path  string                  // of the named schemas in the document
	types map[string]reflect.Type // by the name
	uses  map[string]Use          // by the name; the first use
}

// NewSet returns a set of schemas that a document has at a path, such as #/components/schemas/.
func NewSet(path string) *Set {
	return &Set{path: path, types: map[string]reflect.Type{}, uses: map[string]Use{}}
}

// A Use is what a type describes. It decides whether a member with a pointer type is optional.
type Use uint8

// The uses.
const (
	Output  Use = iota // a response: such a member is null or has a value
	Input              // a request: such a member may be absent, and is not null
	Payload            // an event, which one program writes and others read: as Input
)

// Of returns the schema of a type. For a struct it returns a reference to a named schema.
func (s *Set) Of(t reflect.Type, use Use) (*Schema, error) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return &Schema{Type: "string", Format: "date-time"}, nil
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return &Schema{Type: "string"}, nil
	case isPatch(t):
		to, err := s.Of(t.Field(1).Type.Elem(), use)
		return &Schema{AnyOf: []*Schema{to, {Type: "null"}}}, err
	}
	switch t.Kind() {
	case reflect.String:
		return &Schema{Type: "string"}, nil
	case reflect.Bool:
		return &Schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int32, reflect.Int64:
		return &Schema{Type: "integer"}, nil
	case reflect.Float64:
		return &Schema{Type: "number"}, nil
	case reflect.Slice:
		items, err := s.Of(t.Elem(), use)
		return &Schema{Type: "array", Items: items}, err
	case reflect.Pointer:
		to, err := s.Of(t.Elem(), use)
		if use != Output {
			return to, err
		}
		return &Schema{AnyOf: []*Schema{to, {Type: "null"}}}, err
	case reflect.Struct:
		return s.named(t, use)
	}
	return nil, fmt.Errorf("a member of type %s has no schema: add the type to infra/schema/schema.go", t)
}

// named returns a reference to the schema of a struct and adds the schema if it is new.
func (s *Set) named(t reflect.Type, use Use) (*Schema, error) {
	name := nameOf(t)
	ref := &Schema{Ref: s.path + name}
	if known, met := s.types[name]; met {
		if known != t {
			return nil, fmt.Errorf("%s and %s have the same name in the reference: %s", known, t, name)
		}
		if (s.uses[name] == Output) != (use == Output) && hasOptional(t) {
			return nil, fmt.Errorf("%s has optional members, and is used in a request and in a response: use two types", t)
		}
		return ref, nil
	}
	s.types[name], s.uses[name] = t, use
	index := len(s.All)
	s.All = append(s.All, Entry[*Schema]{name, nil}) // before the schemas of its members
	described, err := s.object(t, use)
	s.All[index].Value = described
	return ref, err
}

// hasOptional reports whether the schema of a type depends on its use. outer are the types that
// contain it.
func hasOptional(t reflect.Type, outer ...reflect.Type) bool {
	switch {
	case t.Kind() == reflect.Pointer || isPatch(t):
		return true
	case t.Kind() == reflect.Slice:
		return hasOptional(t.Elem(), outer...)
	case t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() || slices.Contains(outer, t):
		return false
	}
	for f := range t.Fields() {
		if name := f.Tag.Get("json"); name != "" && name != "-" && hasOptional(f.Type, append(outer, t)...) {
			return true
		}
	}
	return false
}

// nameOf returns the name of a schema. A type of a function gets the function's name as a
// prefix, because every function has a type Input.
func nameOf(t reflect.Type) string {
	if dir, name := path.Split(t.PkgPath()); strings.HasSuffix(dir, "/functions/") {
		return strings.ToUpper(name[:1]) + name[1:] + t.Name()
	}
	return t.Name()
}

func (s *Set) object(t reflect.Type, use Use) (*Schema, error) {
	o := &Schema{Type: "object"}
	described := Members(t)
	for f := range t.Fields() {
		name, options, _ := strings.Cut(cmp.Or(f.Tag.Get("json"), f.Tag.Get("form")), ",")
		if name == "" && f.IsExported() && (use == Output || use == Payload && !f.Anonymous) { // an input ignores fields without a name
			return nil, fmt.Errorf("%s has no JSON name for its field %s", t, f.Name)
		}
		m := described[name]
		delete(described, name)
		if name == "" || name == "-" || m.Secret {
			continue
		}
		optional := strings.Contains(options, "omit")
		if use == Payload && f.Type.Kind() == reflect.Pointer && !optional {
			return nil, fmt.Errorf("%s writes null for its field %s: add omitzero to its tag", t, f.Name)
		}
		of, err := s.Of(f.Type, use)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", name, t, err)
		}
		of = of.with(m)
		of.Bound(tagged(f, "min"), tagged(f, "max"))
		o.Properties = append(o.Properties, Entry[*Schema]{name, of})
		if !optional && (use == Output || f.Type.Kind() != reflect.Pointer && !isPatch(f.Type)) {
			o.Required = append(o.Required, name)
		}
	}
	for name := range described {
		return nil, fmt.Errorf("%s describes the member %s, but has no such member", t, name)
	}
	return o, nil
}

// Members returns the descriptions that a type has of its members, by name.
func Members(t reflect.Type) map[string]reference.Member {
	all := map[string]reference.Member{}
	if d, ok := reflect.New(t).Interface().(reference.Described); ok {
		for _, m := range d.Members() {
			all[m.Name] = m
		}
	}
	return all
}

func (s *Schema) with(m reference.Member) *Schema {
	s.Description, s.Format, s.Opaque = m.About, cmp.Or(m.Format, s.Format), m.Opaque
	if m.Opaque && s.Items != nil {
		s.Opaque, s.Items.Opaque = false, true
	}
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

// Bound adds the bounds of a number, of the length of a string, or of the items of an array.
func (s *Schema) Bound(least, most *float64) {
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

// Standalone returns the schema of a type as one document, with the schemas that it refers to.
func Standalone(t reflect.Type, use Use) (*Schema, error) {
	s := NewSet("#/$defs/")
	ref, err := s.Of(t, use)
	if err != nil {
		return nil, err
	}
	if ref.Ref == "" {
		return ref, nil
	}
	top := *s.All[0].Value // the first is t itself
	top.Dialect = "https://json-schema.org/draft/2020-12/schema"
	top.Defs = slices.Clone(s.All[1:])
	return &top, nil
}
