package endpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"reflect"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/apierror"
)

const (
	// MaxBody is the most a body may have, in bytes. Beyond it nothing is read.
	MaxBody = 16 << 10
	// MaxToken is the longest bearer token that is looked at, in bytes.
	MaxToken = 8 << 10
)

// A Request is what a door makes of its wire: everything an endpoint may see.
type Request struct {
	Method          string
	ContentType     []string // the Content-Type headers; more than one is refused
	ContentEncoding []string // the Content-Encoding headers
	Length          int64    // of the body, in bytes; negative where unknown
	Body            io.Reader
	Authorization   []string // the Authorization headers; more than one is refused
	IdempotencyKey  []string // the Idempotency-Key headers
	Key             string   // what a retry of the same request has in common with it, where the door knows
	Client          Client   // nobody, of an event

	invalid bool // the input was rejected before the handle was called
}

// A Client is where a request came from, as far as its wire tells. An input embeds it
// that wants to know. It is no identity: it tells one crowd from another.
type Client struct {
	Peer      string   `json:"-"` // address, perhaps with a port, of whoever holds the other end of the wire
	Forwarded []string `json:"-"` // the X-Forwarded-For headers, which anybody may have written
	Device    string   `json:"-"` // the device token that the client presents, perhaps of no device
}

func (c *Client) setClient(client Client) { *c = client }

// Keyed is embedded by an input that wants to know a retry from a new request.
type Keyed struct {
	Key string `json:"-"` // as in Request
}

func (k *Keyed) setKey(key string) { k.Key = key }

// None is the input of a function that takes nothing.
type None struct{}

// Bearer is the input of a function that takes a bearer token and nothing else.
// The token counts only in the Authorization header (RFC 6750 §2.1): in a query
// it would end up in logs, in a cookie it would travel unasked.
type Bearer struct{ Token string }

// read returns the input of a handle: a blank one, completed from a request.
func read[In any](spec Spec, r *Request, out In) (_ In, err error) {
	switch in := any(&out).(type) {
	case *None:
	case *Bearer:
		in.Token, err = bearer(r.Authorization)
		if err == nil && in.Token == "" && !spec.Anonymous {
			err = apierror.NoToken()
		}
	default:
		if k, ok := in.(interface{ setKey(string) }); ok {
			key := r.Key
			if key == "" {
				if key, err = retryKey(r.IdempotencyKey); err != nil {
					return out, err
				}
			}
			k.setKey(key)
		}
		if c, ok := in.(interface{ setClient(Client) }); ok {
			c.setClient(r.Client)
		}
		err = decode(r, in)
	}
	return out, err
}

// bearer returns the token of the one Authorization header, or "" where there is none or it
// has another scheme. A gateway may join two headers with a comma; a second header that
// carries a bearer token is refused in that form as well.
func bearer(headers []string) (string, error) {
	switch len(headers) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", apierror.InvalidToken(errors.New("two Authorization headers"))
	}
	value := strings.Trim(headers[0], " \t")
	scheme, token := value, ""
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		scheme, token = value[:i], value[i:]
	}
	if !strings.EqualFold(scheme, "Bearer") {
		for _, part := range strings.Split(headers[0], ",")[1:] {
			if scheme, _, _ := strings.Cut(strings.TrimLeft(part, " \t"), " "); strings.EqualFold(scheme, "Bearer") {
				return "", apierror.InvalidToken(errors.New("two Authorization headers"))
			}
		}
		return "", nil
	}
	token = strings.Trim(token, " \t")
	switch {
	case token == "":
		return "", apierror.InvalidToken(errors.New("an empty token"))
	case len(token) > MaxToken:
		return "", apierror.InvalidToken(errors.New("a token over the limit"))
	}
	return token, nil
}

// retryKey makes the key of a request of its Idempotency-Key header
// (draft-ietf-httpapi-idempotency-key-header-07 §2.1: one Structured Field string;
// the quotes may be left out). It is a digest: what a caller sends as a key goes
// nowhere else.
func retryKey(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", nil
	}
	value := strings.TrimSpace(headers[0])
	odd := func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }
	if unquoted, ok := strings.CutPrefix(value, `"`); ok {
		value, ok = strings.CutSuffix(unquoted, `"`)
		if !ok {
			value = ""
		}
	} else if strings.Contains(value, ",") { // two headers that a gateway has joined
		value = ""
	}
	if len(headers) > 1 || value == "" || len(value) > MaxIdempotencyKey || strings.ContainsFunc(value, odd) {
		return "", apierror.New(apierror.Invalid, "Idempotency-Key must be one string of 1 to 255 printable ASCII characters.")
	}
	sum := sha256.Sum256([]byte("http\x00" + value))
	return hex.EncodeToString(sum[:16]), nil
}

// MaxIdempotencyKey is the longest Idempotency-Key, in characters.
const MaxIdempotencyKey = 255

// decode reads the body into the struct that in points to, and validates it.
func decode(r *Request, in any) error {
	if !isJSON(r.ContentType) {
		return apierror.New(apierror.UnsupportedMedia, "The body must be application/json.")
	}
	if !isUTF8(r.ContentType[0]) {
		return apierror.New(apierror.UnsupportedMedia, "The body must be in UTF-8.")
	}
	if err := CheckEncoding(r.ContentEncoding); err != nil {
		return err
	}
	tooLarge := apierror.New(apierror.TooLarge, "The body is larger than 16 KiB.")
	if r.Length > MaxBody {
		return tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return apierror.New(apierror.Invalid, "The body could not be read whole.")
	}
	if len(body) > MaxBody {
		return tooLarge
	}
	return Decode(body, in)
}

// CheckEncoding returns a fault unless the Content-Encoding headers of a request name no
// coding but identity. An empty header or list element names none.
func CheckEncoding(headers []string) error {
	for _, header := range headers {
		for coding := range strings.SplitSeq(header, ",") {
			if coding = strings.Trim(coding, " \t"); coding != "" && !strings.EqualFold(coding, "identity") {
				return apierror.Encoded()
			}
		}
	}
	return nil
}

// Decode reads one JSON object into the struct that in points to and validates
// it. Every member of the struct is required unless it is a pointer, names are
// case-sensitive, unknown members are ignored. The document must be valid UTF-8 without NUL, with no
// name twice and nothing after it (RFC 7493, I-JSON).
//
// The faults are Invalid and list every faulty member at once. They carry no
// cause: what a parser says of its input may hold a part of a password.
func Decode(body []byte, in any) error {
	if err := WellFormed(body); err != nil {
		return err
	}
	members := map[string]jsontext.Value{}
	if err := json.Unmarshal(body, &members); err != nil {
		return notAnObject()
	}
	var bad apierror.Fields
	v := reflect.ValueOf(in).Elem()
	for _, f := range fieldsOf(v.Type()) {
		member, given := members[f.name]
		if !given {
			if !f.optional {
				bad.Add(f.name, fmt.Sprintf("%s is missing.", f.name))
			}
			continue
		}
		// null would pass as the zero value
		if member.Kind() == 'n' || json.Unmarshal(member, v.Field(f.index).Addr().Interface()) != nil {
			bad.Add(f.name, fmt.Sprintf("%s must be %s.", f.name, f.kind))
		}
	}
	if v, ok := in.(interface{ Validate(*apierror.Fields) }); ok {
		v.Validate(&bad)
	}
	return bad.Err()
}

// WellFormed checks the syntax of one JSON object token by token, so that what
// follows meets only I-JSON. Its faults are Invalid.
func WellFormed(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	if d.PeekKind() != '{' {
		return notAnObject()
	}
	for {
		t, err := d.ReadToken()
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			return apierror.New(apierror.Invalid, "The body has a member twice.")
		case err != nil:
			return notAnObject()
		case t.Kind() == '"' && strings.ContainsRune(t.String(), 0):
			return apierror.New(apierror.Invalid, "The body has a NUL character.")
		}
		if d.StackDepth() == 0 {
			break
		}
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return notAnObject()
	}
	return nil
}

func notAnObject() error {
	return apierror.New(apierror.Invalid, "The body must be one JSON object.")
}

func isJSON(contentTypes []string) bool {
	if len(contentTypes) != 1 {
		return false
	}
	mediaType, _, err := mime.ParseMediaType(contentTypes[0])
	return err == nil && mediaType == "application/json"
}

// isUTF8 reports whether a valid Content-Type names no charset but UTF-8. RFC 8259 section
// 11 defines no such parameter for JSON, but clients send it.
func isUTF8(contentType string) bool {
	_, parameters, _ := mime.ParseMediaType(contentType)
	charset, named := parameters["charset"]
	return !named || strings.EqualFold(charset, "utf-8")
}

// A field is a member of an input struct.
type field struct {
	name  string
	index int
	kind  string // the word a caller knows its type by

	optional bool
}

var fields sync.Map // reflect.Type → []field

func fieldsOf(t reflect.Type) []field {
	if f, ok := fields.Load(t); ok {
		return f.([]field)
	}
	var all []field
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "-" {
			continue
		}
		member := field{name: name, index: f.Index[0], optional: f.Type.Kind() == reflect.Pointer}
		if t := f.Type; member.optional {
			member.kind = kindOf(t.Elem())
		} else {
			member.kind = kindOf(t)
		}
		all = append(all, member)
	}
	fields.Store(t, all)
	return all
}

// kindOf names a type as a caller knows it.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	}
	panic("endpoint: an input member of type " + t.String()) // its author sees it in the first test
}
