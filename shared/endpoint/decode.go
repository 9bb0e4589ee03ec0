package endpoint

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/apierror"
)

// decode decodes one JSON object in one pass, and adds the invalid members to bad. It returns
// an error if the body is not one JSON object.
//
// A member is required unless it is a pointer or a Patch. Names are case-sensitive. decode
// ignores unknown members. The document must be valid UTF-8 without NUL, without duplicate
// names and without data after it (RFC 7493, I-JSON).
//
// Errors name a member by its path, such as seats[2].row. They have no cause, because the
// error text of a parser can contain a part of a password.
func decode(body []byte, n *node, v reflect.Value, bad *apierror.Fields) error {
	d := decoder{jsontext.NewDecoder(bytes.NewReader(body)), bad}
	if d.PeekKind() != '{' {
		return notAnObject()
	}
	if err := d.object("", n, v); err != nil {
		return err
	}
	if _, err := d.Decoder.ReadToken(); err != io.EOF {
		return notAnObject()
	}
	return nil
}

// A decoder decodes into Go values. Its methods return an error only for a malformed
// document. They add other errors to bad.
type decoder struct {
	*jsontext.Decoder
	bad *apierror.Fields
}

// ReadToken returns the next token. It rejects a NUL character in a string.
func (d decoder) ReadToken() (jsontext.Token, error) {
	t, err := d.Decoder.ReadToken()
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return t, apierror.New(apierror.Invalid, "The body has a member twice.")
	case err != nil:
		return t, notAnObject()
	case t.Kind() == '"' && strings.ContainsRune(t.String(), 0):
		return t, apierror.New(apierror.Invalid, "The body has a NUL character.")
	}
	return t, nil
}

// skip reads a value of any kind.
func (d decoder) skip() error {
	for depth := d.StackDepth(); ; {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		if d.StackDepth() == depth {
			return nil
		}
	}
}

// object reads an object into a struct. prefix precedes the names of its members in errors.
func (d decoder) object(prefix string, n *node, v reflect.Value) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	problems, given := make([]apierror.Fields, len(n.fields)), make([]bool, len(n.fields))
	for d.PeekKind() != '}' {
		t, err := d.ReadToken()
		if err != nil {
			return err
		}
		i := n.index(t.String())
		if i < 0 {
			if err := d.skip(); err != nil {
				return err
			}
			continue
		}
		given[i] = true
		f := n.fields[i]
		target := v.Field(f.index)
		if target.Kind() == reflect.Pointer {
			target.Set(reflect.New(f.goType))
			target = target.Elem()
		}
		// in the order of the struct, so that the client gets the same errors for any order
		member := decoder{d.Decoder, &problems[i]}
		if err := member.value(prefix+f.name, f.node, target); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for i, f := range n.fields {
		if !given[i] && !f.optional {
			d.bad.Add(prefix+f.name, fmt.Sprintf("%s is missing.", prefix+f.name))
		}
		d.bad.Append(problems[i])
	}
	return nil
}

func (n *node) index(name string) int {
	for i := range n.fields {
		if n.fields[i].name == name {
			return i
		}
	}
	return -1
}

// value reads a value. A value of another type than that of the node is an error of the
// member. That includes null, which would pass as the zero value.
func (d decoder) value(name string, n *node, v reflect.Value) error {
	kind := d.PeekKind()
	switch {
	case n.kind == kindPatch:
		return d.patch(name, n, v)
	case n.kind == kindObject && kind == '{':
		return d.object(name+".", n, v)
	case n.kind == kindArray && kind == '[':
		return d.array(name, n, v)
	case n.kind >= kindObject || kind == '{' || kind == '[':
		d.bad.Add(name, fmt.Sprintf("%s must be %s.", name, n.words()))
		return d.skip()
	}
	t, err := d.ReadToken()
	if err != nil {
		return err
	}
	isText := n.kind == kindString || n.kind == kindTime || n.kind == kindText
	right := isText && kind == '"' || n.kind == kindBoolean && (kind == 't' || kind == 'f') ||
		(n.kind == kindInteger || n.kind == kindNumber) && kind == '0'
	if !right {
		d.bad.Add(name, fmt.Sprintf("%s must be %s.", name, n.words()))
		return nil
	}
	n.set(name, t.String(), v, d.bad)
	return nil
}

// patch reads a value or null.
func (d decoder) patch(name string, n *node, v reflect.Value) error {
	v.Field(0).SetBool(true)
	if d.PeekKind() == 'n' {
		_, err := d.ReadToken()
		return err
	}
	before := d.bad.Len()
	target := reflect.New(n.elem.goType)
	if err := d.value(name, n.elem, target.Elem()); err != nil {
		return err
	}
	if d.bad.Len() == before {
		v.Field(1).Set(target)
	}
	return nil
}

// array reads an array. It decodes the allowed number of items, and only counts the others.
func (d decoder) array(name string, n *node, v reflect.Value) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	items, count := reflect.MakeSlice(v.Type(), 0, 0), 0
	for ; d.PeekKind() != ']'; count++ {
		if float64(count) >= *n.max {
			if err := d.skip(); err != nil {
				return err
			}
			continue
		}
		item := reflect.New(n.elem.goType).Elem()
		if err := d.value(fmt.Sprintf("%s[%d]", name, count), n.elem, item); err != nil {
			return err
		}
		items = reflect.Append(items, item)
	}
	if message := n.outside(name, float64(count)); message != "" {
		d.bad.Add(name, message)
	}
	v.Set(items)
	_, err := d.ReadToken()
	return err
}

// set stores a scalar, given its text. It adds an error if the text is not valid.
func (n *node) set(name, text string, v reflect.Value, bad *apierror.Fields) {
	wrong := func() { bad.Add(name, fmt.Sprintf("%s must be %s.", name, n.words())) }
	quantity := 0.0
	switch n.kind {
	case kindString:
		v.SetString(text)
		quantity = float64(utf8.RuneCountInString(text))
	case kindText:
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			message := name + " is not valid."
			if public, ok := errors.AsType[*apierror.Error](err); ok { // other errors can quote the input
				message = public.Items()[0].Message
			}
			bad.Add(name, message)
		}
		return
	case kindBoolean:
		if text != "true" && text != "false" {
			wrong()
		}
		v.SetBool(text == "true")
		return
	case kindTime:
		at, err := time.Parse(time.RFC3339, strings.ToUpper(text))
		if err != nil || !timestamp().MatchString(text) {
			wrong()
			return
		}
		v.Set(reflect.ValueOf(at))
		return
	case kindInteger:
		number, ok := whole(text)
		if !ok || v.OverflowInt(number) {
			wrong()
			return
		}
		v.SetInt(number)
		quantity = float64(number)
	case kindNumber:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil { // out of range
			wrong()
			return
		}
		v.SetFloat(f)
		quantity = f
	}
	if message := n.outside(name, quantity); message != "" {
		bad.Add(name, message)
	}
}

// lazyPattern returns a function that compiles a pattern at its first call: most cold starts need none.
func lazyPattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// short matches a number that cannot have many digits when it is written without an exponent.
var short = lazyPattern(`^[-0-9.]{1,40}([eE][+-]?[0-9]{1,2})?$`)

// whole returns a whole number. JSON has one type of number, so 3.0 is the whole number 3.
func whole(text string) (int64, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, true
	}
	if !short().MatchString(text) {
		return 0, false
	}
	exact, ok := new(big.Rat).SetString(text)
	if !ok || !exact.IsInt() || !exact.Num().IsInt64() {
		return 0, false
	}
	return exact.Num().Int64(), true
}

func notAnObject() error {
	return apierror.New(apierror.Invalid, "The body must be one JSON object.")
}

const (
	maxQuery      = 2 << 10 // bytes of a query that an endpoint reads
	maxQueryValue = 256     // bytes of one value
	maxFormValue  = 8 << 10 // bytes of one value
)

// timestamp matches a date-time (RFC 3339 §5.6). Package time accepts more, such as hours of
// one digit.
var timestamp = lazyPattern(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// number matches a number of JSON (RFC 8259 §6). Package strconv accepts more.
var number = lazyPattern(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// readMembers reads the members of a query or a form. It ignores unknown ones. It returns an
// error if the text as a whole is not valid.
func readMembers(from, text string, fields []*field, v reflect.Value, bad *apierror.Fields) error {
	maxValue := maxFormValue
	if from == "query" {
		maxValue = maxQueryValue
		if len(text) > maxQuery {
			return apierror.New(apierror.Invalid, "The query is longer than 2 KiB.")
		}
	}
	values, err := url.ParseQuery(text)
	if err != nil {
		return apierror.New(apierror.Invalid, "The "+from+" is malformed.")
	}
	for _, f := range fields {
		given := values[f.name]
		if len(given) == 0 {
			if !f.optional {
				bad.Add(f.name, fmt.Sprintf("%s is missing.", f.name))
			}
			continue
		}
		if len(given) > 1 {
			bad.Add(f.name, fmt.Sprintf("%s must occur once.", f.name))
			continue
		}
		text := given[0]
		if len(text) > maxValue || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			bad.Add(f.name, fmt.Sprintf("%s must be at most %d bytes of UTF-8 without NUL.", f.name, maxValue))
			continue
		}
		if (f.kind == kindInteger || f.kind == kindNumber) && !number().MatchString(text) {
			bad.Add(f.name, fmt.Sprintf("%s must be %s.", f.name, f.words()))
			continue
		}
		target := v.Field(f.index)
		if f.optional {
			target.Set(reflect.New(f.goType))
			target = target.Elem()
		}
		f.set(f.name, text, target, bad)
	}
	return nil
}
