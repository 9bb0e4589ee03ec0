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
	// MaxBody is the maximum length of a body, in bytes. Decoding stops there.
	MaxBody = 16 << 10
	// MaxToken is the maximum length of a bearer token, in bytes.
	MaxToken = 8 << 10
)

// A Request is a request as a transport passes it to an endpoint.
type Request struct {
	Method          string
	ContentType     []string // the Content-Type headers; more than one is rejected
	ContentEncoding []string // the Content-Encoding headers
	Length          int64    // of the body, in bytes; negative if unknown
	Body            io.Reader
	Authorization   []string // the Authorization headers; more than one is rejected
	IdempotencyKey  []string // the Idempotency-Key headers
	Key             string   // equal for a request and its retries; empty if the transport has none
	Client          Client   // zero for an event

	invalid bool // the input was rejected before the call of the handler
}

// A Client describes the client of a request, for rate limits. Embed it in an input that
// needs it. It does not authenticate the client.
type Client struct {
	Peer      string   `json:"-"` // the address of the connection's peer, with or without a port
	Forwarded []string `json:"-"` // the X-Forwarded-For headers; a client can forge them
	Device    string   `json:"-"` // the device token that the client sent, valid or not
}

func (c *Client) setClient(client Client) { *c = client }

// Keyed holds the key of a request. Embed it in an input that must recognize retries.
type Keyed struct {
	Key string `json:"-"` // as in Request
}

func (k *Keyed) setKey(key string) { k.Key = key }

// None is an empty input.
type None struct{}

// Bearer is the input of a function that takes only a bearer token. The token must be in
// the Authorization header (RFC 6750 §2.1). A query would expose it in logs. A browser
// would send a cookie with cross-site requests.
type Bearer struct{ Token string }

// read completes a blank input from a request.
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
				if key, err = requestKey(r.IdempotencyKey); err != nil {
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

// bearer returns the token in the Authorization header. It returns "" if there is no header
// or the scheme is not Bearer. A gateway may join two headers with a comma. bearer rejects a
// second bearer token in that form as well.
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

// requestKey returns the key of a request with an Idempotency-Key header
// (draft-ietf-httpapi-idempotency-key-header-07 §2.1: one Structured Field string). The
// client may omit the quotes. The key is a digest, because the client can send personal
// data as the header value.
func requestKey(headers []string) (string, error) {
	if len(headers) == 0 {
		return "", nil
	}
	value := strings.TrimSpace(headers[0])
	invalid := func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }
	if unquoted, ok := strings.CutPrefix(value, `"`); ok {
		value, ok = strings.CutSuffix(unquoted, `"`)
		if !ok {
			value = ""
		}
	} else if strings.Contains(value, ",") { // two headers that a gateway has joined
		value = ""
	}
	if len(headers) > 1 || value == "" || len(value) > MaxIdempotencyKey || strings.ContainsFunc(value, invalid) {
		return "", apierror.New(apierror.Invalid, "Idempotency-Key must be one string of 1 to 255 printable ASCII characters.")
	}
	sum := sha256.Sum256([]byte("http\x00" + value))
	return hex.EncodeToString(sum[:16]), nil
}

// MaxIdempotencyKey is the maximum length of an Idempotency-Key, in characters.
const MaxIdempotencyKey = 255

// decode decodes the body into the struct that in points to, and validates it.
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

// CheckEncoding returns an API error if the Content-Encoding headers of a request name a
// coding other than identity. It ignores empty headers and empty list elements.
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

// Decode decodes one JSON object into the struct that in points to, and validates it.
//
// A member of the struct is required unless it is a pointer. Names are case-sensitive.
// Decode ignores unknown members. The document must be valid UTF-8 without NUL, without
// duplicate names and without data after it (RFC 7493, I-JSON).
//
// An error is Invalid and lists all invalid members. It has no cause, because the error
// text of a parser can contain a part of a password.
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

// WellFormed returns an Invalid error unless body is one JSON object in I-JSON (RFC 7493).
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

// isUTF8 reports whether a valid Content-Type has the charset UTF-8 or none. RFC 8259
// section 11 defines no charset parameter for JSON, but clients send it.
func isUTF8(contentType string) bool {
	_, parameters, _ := mime.ParseMediaType(contentType)
	charset, named := parameters["charset"]
	return !named || strings.EqualFold(charset, "utf-8")
}

// A field is a member of an input struct.
type field struct {
	name  string
	index int
	kind  string // the type, in words for the client

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

// kindOf returns the name of a type, in words for the client.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	}
	panic("endpoint: unsupported type of an input member: " + t.String()) // a programming error
}
