package endpoint

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
)

// A Part is embedded in an input and reads something other than the fields of the input
// from a request. The pointer to the embedded struct implements it.
type Part interface {
	ReadPart(context.Context, *Request) error
}

// A configured part needs settings. Bind calls ConfigurePart once, on a blank input.
type configured interface{ ConfigurePart(*config.Config) }

// An identifier is a part that verifies the identity of the client, as package identity
// provides.
type identifier interface {
	Part
	Access() Access
}

// A plan is how an input type is read from a request.
type plan struct {
	parts   []int // the indexes of the embedded parts
	access  Access
	keyed   bool
	headers bool // reads headers that an event does not have

	param string // the name of the path segment, or ""
	path  *field
	query []*field
	form  []*field

	hasBody bool  // the input has JSON members
	body    *node // nil if it has none
}

// A field is a member of a JSON object, of a query or of a form, or a path segment.
type field struct {
	name     string
	index    int
	optional bool // the Go type is a pointer
	*node
}

// newPlan compiles the plan of an input type.
func newPlan(t reflect.Type) (*plan, error) {
	p := &plan{access: Public}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("the input %s must be a struct", t)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if err := p.addPart(f, i); err != nil {
				return nil, err
			}
			continue
		}
		if !f.IsExported() && !isTagged(f) {
			continue
		}
		if err := p.addField(f, i); err != nil {
			return nil, fmt.Errorf("the field %s of %s: %w", f.Name, t, err)
		}
	}
	if p.hasBody {
		var err error
		if p.body, err = nodeOf(t, nil); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *plan) addPart(f reflect.StructField, i int) error {
	part, ok := reflect.New(f.Type).Interface().(Part)
	if !ok || !f.IsExported() || f.Type.Kind() != reflect.Struct {
		return fmt.Errorf("it embeds %s, which is no exported endpoint.Part: it would stay empty", f.Type)
	}
	for inner := range f.Type.Fields() {
		if inner.Anonymous || isTagged(inner) {
			return fmt.Errorf("it embeds %s, whose field %s would stay empty: a Part has no fields of the input", f.Type, inner.Name)
		}
	}
	p.parts = append(p.parts, i)
	switch part := part.(type) {
	case identifier:
		if p.access != Public {
			return errors.New("it embeds two identities")
		}
		p.access = part.Access()
	case *Keyed:
		p.keyed = true
	case *Agent, *Language:
		p.headers = true
	}
	return nil
}

func (p *plan) addField(f reflect.StructField, i int) error {
	name, from := "", ""
	for _, tag := range memberTags {
		if value, has := f.Tag.Lookup(tag); has {
			if from != "" {
				return fmt.Errorf("it has the tags %s and %s", from, tag)
			}
			from = tag
			name, _, _ = strings.Cut(value, ",")
		}
	}
	switch {
	case !f.IsExported():
		return errors.New("it is not exported: it would stay empty")
	case from == "":
		return errors.New("it has no tag json, path, query or form: it would stay empty")
	case name == "":
		return errors.New("its tag has no name")
	case name == "-":
		return nil
	case from == "json":
		p.hasBody = true // newPlan compiles the members
		return nil
	}
	member, err := fieldOf(name, f, i, nil)
	if err != nil {
		return err
	}
	if !member.isScalar() {
		return fmt.Errorf("a %s cannot be %s", from, f.Type)
	}
	if from == "query" || from == "form" {
		members := &p.query
		if from == "form" {
			members = &p.form
		}
		if slices.ContainsFunc(*members, func(f *field) bool { return f.name == name }) {
			return fmt.Errorf("another field has the %s member %s", from, name)
		}
		*members = append(*members, member)
		return nil
	}
	if p.path != nil || member.kind != kindString || member.optional {
		return errors.New("a path has one parameter, a string that is no pointer")
	}
	p.param, p.path = name, member
	return nil
}

// memberTags are the tags with the name of a member. form is a member of a body of the type
// application/x-www-form-urlencoded, for an endpoint whose standard requires that.
var memberTags = []string{"json", "path", "query", "form"}

// isTagged reports whether a field has a tag with the name of a member.
func isTagged(f reflect.StructField) bool {
	for _, tag := range memberTags {
		if value := f.Tag.Get(tag); value != "" && value != "-" {
			return true
		}
	}
	return false
}

// pathParams returns the names of the parameters of a path, in which each parameter is a whole segment.
func pathParams(path string) (names []string, valid bool) {
	segments, absolute := strings.CutPrefix(path, "/")
	if !absolute {
		return nil, false
	}
	for segment := range strings.SplitSeq(segments, "/") {
		name, opened := strings.CutPrefix(segment, "{")
		name, closed := strings.CutSuffix(name, "}")
		if name == "" || opened != closed || strings.ContainsAny(name, "{}") || opened && strings.ContainsFunc(name, notAlphanumeric) {
			return nil, false
		}
		if opened {
			names = append(names, name)
		}
	}
	return names, true
}

func notAlphanumeric(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
}

// check reports a spec that does not fit the input and the output.
func (s Spec) check(p *plan, out reflect.Type) error {
	params, valid := pathParams(s.Path)
	redirect, none := out == reflect.TypeFor[Redirect](), out == reflect.TypeFor[None]()
	switch {
	case s.Method == "" || !valid:
		return errors.New("it needs a Method and a Path such as /api/things/{id}")
	case s.MaxAge > 0 && (s.Access != Public || s.Method != http.MethodGet):
		return errors.New("only a Public GET endpoint has a MaxAge: a shared cache would give the answer to other clients")
	case s.Access == undefined:
		return errors.New("its Spec must set Access to Public, Optional, Required or Service")
	case s.Access != p.access:
		return fmt.Errorf("its Spec and the identity that the input embeds differ: %s and %s", s.Access, p.access)
	case len(params) > 1, len(params) == 1 && params[0] != p.param, len(params) == 0 && p.param != "":
		return errors.New("the {name} in the path and the field with a path tag must have the same name")
	case p.body != nil && p.form != nil:
		return errors.New("a body is JSON or a form: it has fields with both tags")
	case s.Method == http.MethodGet && (p.body != nil || p.form != nil):
		return errors.New("a GET request has no body: use the tag query")
	case s.Method != http.MethodGet && len(p.query) > 0:
		return errors.New("only a GET endpoint has query members")
	case !slices.Contains([]int{200, 201, 202, 204, 303}, s.Success):
		return fmt.Errorf("the Success %d must be 200, 201, 202, 204 or 303", s.Success)
	case (s.Success == http.StatusNoContent) != none:
		return errors.New("the output None and the Success 204 belong together")
	case (s.Success == http.StatusSeeOther) != redirect:
		return errors.New("the output Redirect and the Success 303 belong together")
	}
	return nil
}

// A Param is a member of the path or of the query, for the API reference.
type Param struct {
	Name     string
	Type     reflect.Type
	Optional bool
	Min, Max *float64 // of the value of a number, and of the length of a string in characters
}

// PathParam returns the {name} segment of the path, or nil.
func (e Endpoint) PathParam() *Param {
	if e.plan.path == nil {
		return nil
	}
	return &Param{Name: e.plan.param, Type: e.plan.path.goType}
}

// Query returns the members of the query.
func (e Endpoint) Query() (all []Param) { return params(e.plan.query) }

func params(fields []*field) (all []Param) {
	for _, f := range fields {
		all = append(all, Param{f.name, f.goType, f.optional, f.min, f.max})
	}
	return all
}

// HasBody reports whether a request has a body: JSON, or a form if Form has members.
func (e Endpoint) HasBody() bool { return e.plan.body != nil || e.plan.form != nil }

// Form returns the members of a body that is a form.
func (e Endpoint) Form() (all []Param) { return params(e.plan.form) }

// IsKeyed reports whether the endpoint reads the Idempotency-Key header.
func (e Endpoint) IsKeyed() bool { return e.plan.keyed }

// String returns the name of the constant.
func (a Access) String() string {
	return [...]string{undefined: "undefined", Public: "Public", Optional: "Optional", Required: "Required", Service: "Service"}[a]
}

// configureParts configures the parts of a blank input, given a pointer to it.
func (p *plan) configureParts(cfg *config.Config, in any) {
	v := reflect.ValueOf(in).Elem()
	for _, i := range p.parts {
		if part, ok := v.Field(i).Addr().Interface().(configured); ok {
			part.ConfigurePart(cfg)
		}
	}
}

// read completes a blank input, given a pointer to it. It reads the parts first, so that a
// client without an identity learns nothing about the validity of its input.
func (p *plan) read(ctx context.Context, r *Request, in any) error {
	v := reflect.ValueOf(in).Elem()
	for _, i := range p.parts {
		if err := v.Field(i).Addr().Interface().(Part).ReadPart(ctx, r); err != nil {
			return err
		}
	}
	if p.path != nil {
		v.Field(p.path.index).SetString(r.Param)
	}
	var bad apierror.Fields
	if len(p.query) > 0 {
		if err := readMembers("query", r.Query, p.query, v, &bad); err != nil {
			return err
		}
	}
	if len(p.form) > 0 {
		body, err := readBody(r, "application/x-www-form-urlencoded")
		if err != nil {
			return err
		}
		if err := readMembers("form", string(body), p.form, v, &bad); err != nil {
			return err
		}
	}
	if p.body != nil {
		body, err := readBody(r, "application/json")
		if err != nil {
			return err
		}
		if err := decode(body, p.body, v, &bad); err != nil {
			return err
		}
	}
	if in, ok := in.(interface{ Validate(*apierror.Fields) }); ok {
		in.Validate(&bad)
	}
	return bad.Err()
}

// Kinds of values.
type kind uint8

const (
	kindString kind = iota
	kindInteger
	kindNumber
	kindBoolean
	kindTime
	kindText // a string that the type parses itself (encoding.TextUnmarshaler)
	kindObject
	kindArray
	kindPatch
)

// A node is a JSON value that an input contains.
type node struct {
	kind
	goType   reflect.Type
	min, max *float64 // of a number; of the length of a string, in characters; of the items of an array
	fields   []field  // of an object
	elem     *node    // of an array and a patch
}

func (n *node) isScalar() bool { return n.kind < kindObject }

var (
	timeType = reflect.TypeFor[time.Time]()
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// kindOf returns the kind of the values of a type, and reports whether an input may have them.
func kindOf(t reflect.Type) (k kind, ok bool) {
	switch {
	case t == timeType:
		return kindTime, true
	case reflect.PointerTo(t).Implements(textType):
		return kindText, true
	case reflect.PointerTo(t).Implements(reflect.TypeFor[patched]()):
		return kindPatch, true
	}
	switch t.Kind() {
	case reflect.String:
		return kindString, true
	case reflect.Bool:
		return kindBoolean, true
	case reflect.Int, reflect.Int32, reflect.Int64:
		return kindInteger, true
	case reflect.Float64:
		return kindNumber, true
	case reflect.Slice:
		return kindArray, true
	case reflect.Struct:
		return kindObject, true
	}
	return 0, false
}

// nodeOf compiles a type. outer are the types that contain it.
func nodeOf(t reflect.Type, outer []reflect.Type) (*node, error) {
	k, ok := kindOf(t)
	if !ok {
		return nil, fmt.Errorf("the type %s is not supported in an input", t)
	}
	n := &node{kind: k, goType: t}
	var err error
	switch k {
	case kindPatch:
		n.elem, err = nodeOf(t.Field(1).Type.Elem(), append(outer, t))
	case kindArray:
		n.elem, err = nodeOf(t.Elem(), append(outer, t))
	case kindObject:
		err = n.addMembers(t, outer)
	}
	return n, err
}

func (n *node) addMembers(t reflect.Type, outer []reflect.Type) error {
	if slices.Contains(outer, t) {
		return fmt.Errorf("the type %s contains itself, so its depth has no bound", t)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if len(outer) > 0 && (f.Anonymous || name == "" && f.IsExported()) {
			return fmt.Errorf("the field %s of %s has no tag json: it would stay empty", f.Name, t)
		}
		if !f.IsExported() && name != "" && name != "-" {
			return fmt.Errorf("the field %s of %s is not exported: it would stay empty", f.Name, t)
		}
		if f.Anonymous || !f.IsExported() || name == "" || name == "-" {
			continue
		}
		member, err := fieldOf(name, f, i, append(outer, t))
		if err != nil {
			return fmt.Errorf("the field %s of %s: %w", f.Name, t, err)
		}
		if n.index(name) >= 0 {
			return fmt.Errorf("%s has two members %s", t, name)
		}
		n.fields = append(n.fields, *member)
	}
	return nil
}

// fieldOf compiles a struct field and its tags min and max.
func fieldOf(name string, f reflect.StructField, index int, outer []reflect.Type) (*field, error) {
	t := f.Type
	optional := t.Kind() == reflect.Pointer
	if optional {
		t = t.Elem()
	}
	n, err := nodeOf(t, outer)
	if err != nil {
		return nil, err
	}
	bounded := n
	if n.kind == kindPatch {
		optional, bounded = true, n.elem
	}
	for tag, bound := range map[string]**float64{"min": &bounded.min, "max": &bounded.max} {
		text, has := f.Tag.Lookup(tag)
		if !has {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || !slices.Contains([]kind{kindString, kindInteger, kindNumber, kindArray}, bounded.kind) {
			return nil, fmt.Errorf("the tag %s:%q is not a bound of %s", tag, text, f.Type)
		}
		*bound = &value
	}
	if bounded.kind == kindArray && bounded.max == nil {
		return nil, errors.New("an array needs the tag max, the number of items")
	}
	if bounded.kind == kindArray && bounded.elem.kind == kindArray {
		return nil, errors.New("an array of arrays has no bound: use an array of objects")
	}
	return &field{name: name, index: index, optional: optional, node: n}, nil
}

// words returns the type of a value, for the client.
func (n *node) words() string {
	switch n.kind {
	case kindInteger:
		return "a whole number"
	case kindNumber:
		return "a number"
	case kindBoolean:
		return "true or false"
	case kindTime:
		return "a time such as 2006-01-02T15:04:05Z"
	case kindObject:
		return "an object"
	case kindArray:
		return "an array"
	case kindPatch:
		return n.elem.words() + " or null"
	}
	return "a string"
}

// outside returns the message for a quantity that is not within the bounds, or "".
func (n *node) outside(name string, quantity float64) string {
	if (n.min == nil || quantity >= *n.min) && (n.max == nil || quantity <= *n.max) {
		return ""
	}
	unit := map[kind]string{kindString: " characters", kindArray: " items"}[n.kind]
	verb := "must have"
	if unit == "" {
		verb = "must be"
	}
	number := func(f *float64) string { return strconv.FormatFloat(*f, 'f', -1, 64) }
	switch {
	case n.max == nil:
		return fmt.Sprintf("%s %s at least %s%s.", name, verb, number(n.min), unit)
	case n.min == nil:
		return fmt.Sprintf("%s %s at most %s%s.", name, verb, number(n.max), unit)
	}
	if unit == "" {
		verb += " from"
	}
	return fmt.Sprintf("%s %s %s to %s%s.", name, verb, number(n.min), number(n.max), unit)
}
