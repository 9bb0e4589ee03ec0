package receiver

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
)

// An envelope is an event before validation: its attributes in their canonical string
// form, and its data. Both modes result in an envelope, and check validates it. So both
// modes have the same rules.
//
// The package does not decode events with the SDK, because sdk-go v2.16.2
//   - leaves the quotes and the percent-encoding in header values;
//   - rejects times with a lower-case t or z, and leap seconds;
//   - rejects data of a +json type in structured mode, unless it is a string;
//   - accepts data together with data_base64, and the result depends on their order;
//   - accepts control characters, noncharacters, fractional numbers and attributes
//     that are empty or occur twice;
//   - panics on a header named "Ce-".
type envelope struct {
	attributes map[string]string // by name
	data       []byte
}

// binary reads an event in binary mode (HTTP Protocol Binding §3.1).
func binary(h http.Header, body []byte) (envelope, error) {
	attributes, err := headerAttributes(h)
	if err != nil {
		return envelope{}, err
	}
	if contentType := h.Values("Content-Type"); len(contentType) > 0 {
		attributes["datacontenttype"] = contentType[0]
	}
	return envelope{attributes, body}, nil
}

// headerAttributes returns the attributes in the ce- headers. It rejects an attribute
// that occurs twice, ce-datacontenttype (§3.1.1: the media type is in Content-Type) and
// ce-data (CloudEvents 1.0 §"Naming Conventions": the name is reserved).
func headerAttributes(h http.Header) (map[string]string, error) {
	attributes := map[string]string{}
	for header, values := range h {
		name, is := strings.CutPrefix(strings.ToLower(header), "ce-")
		if !is {
			continue
		}
		if _, twice := attributes[name]; twice || len(values) != 1 || name == "datacontenttype" || name == "data" {
			return nil, malformed()
		}
		attributes[name] = decoded(values[0])
	}
	return attributes, nil
}

var (
	quotedString = regexp.MustCompile(`^"(?:[^"\\]|\\.)*"$`)
	quotedPair   = regexp.MustCompile(`\\(.)`)
	percentPair  = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
)

// decoded returns the attribute value in a header (§3.1.3.2). It removes the quotes and
// backslashes of a quoted string (RFC 7230 §3.2.6). Then it decodes percent-encoding once.
//
// It does not change a quote or percent sign outside of these sequences, because common
// SDKs encode nothing. Invalid UTF-8 remains, and check rejects it.
func decoded(header string) string {
	if quotedString.MatchString(header) {
		header = quotedPair.ReplaceAllString(header[1:len(header)-1], "$1")
	}
	return percentPair.ReplaceAllStringFunc(header, func(pair string) string {
		b, _ := hex.DecodeString(pair[1:]) // the expression matches only hexadecimal digits
		return string(b)
	})
}

// structured reads an event in the JSON format (JSON Event Format 1.0 §2 and §3).
//
// It copies the data unchanged, including duplicate names and invalid UTF-8. The endpoint
// rejects these as it does in binary mode.
func structured(h http.Header, body []byte) (envelope, error) {
	e := envelope{attributes: map[string]string{}}
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if start, err := d.ReadToken(); err != nil || start.Kind() != '{' {
		return e, malformed()
	}
	seen := map[string]bool{}
	for d.PeekKind() != '}' {
		name, err := readString(d)
		if err != nil || seen[name] {
			return e, malformed()
		}
		seen[name] = true
		value, err := d.ReadValue()
		if err != nil || !e.set(name, value) {
			return e, malformed()
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return e, malformed()
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return e, malformed()
	}
	// the headers of binary mode are allowed (HTTP Protocol Binding §3.2.3); they must equal
	// the envelope, because a proxy may have routed the event by them
	headers, err := headerAttributes(h)
	for name, value := range headers {
		if inside, is := e.attributes[name]; !is || inside != value {
			return e, malformed()
		}
	}
	return e, err
}

func readString(d *jsontext.Decoder) (string, error) {
	raw, err := d.ReadValue()
	if err != nil {
		return "", err
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	return string(text), err
}

// set adds a member of the JSON format. It reports whether the member is valid.
func (e *envelope) set(name string, value jsontext.Value) bool {
	kind := value.Kind()
	if name == "data" {
		// null is a value (§3.1.1)
		both := e.data != nil
		e.data = bytes.Clone(value)
		return !both
	}
	if kind == 'n' {
		return true // not set (§2.2)
	}
	text := string(value)
	if kind == '"' {
		unquoted, err := jsontext.AppendUnquote(nil, value)
		if err != nil {
			return false
		}
		text = string(unquoted)
	}
	_, isCore := core[name]
	switch {
	case name == "data_base64":
		both := e.data != nil
		var err error
		e.data, err = base64.StdEncoding.Strict().DecodeString(text)
		return kind == '"' && !both && err == nil && !strings.ContainsAny(text, "\r\n") // package base64 skips line breaks
	case kind == '"':
	case isCore: // every core attribute is a string in JSON
		return false
	case kind == '0':
		if _, err := strconv.ParseInt(text, 10, 32); err != nil { // the type Integer: no fraction, no exponent
			return false
		}
	case kind != 't' && kind != 'f':
		return false
	}
	e.attributes[name] = text
	return true
}

// core are the attributes that the specification defines, and their constraints.
var core = map[string]struct {
	required bool
	valid    func(string) bool
}{
	"specversion":     {true, func(s string) bool { return s == event.CloudEventsVersionV1 }},
	"id":              {true, isNotEmpty},
	"source":          {true, isURIReference},
	"type":            {true, isNotEmpty},
	"subject":         {false, isNotEmpty},
	"time":            {false, isTimestamp},
	"dataschema":      {false, isURI},
	"datacontenttype": {false, isMediaType},
}

var attributeName = regexp.MustCompile(`^[a-z0-9]+$`)

// check returns nil for a valid CloudEvents 1.0 event. JSON data must be in UTF-8.
func (e envelope) check() error {
	for name, value := range e.attributes {
		if !attributeName.MatchString(name) || !isString(value) {
			return malformed()
		}
	}
	for name, rule := range core {
		value, is := e.attributes[name]
		if is && !rule.valid(value) || !is && rule.required {
			return malformed()
		}
	}
	if mediaType, charset := e.dataType(); mediaType == event.ApplicationJSON && !isUTF8(charset) {
		return apierror.New(apierror.UnsupportedMedia, "The data must be in UTF-8.")
	}
	return nil
}

// dataType returns the media type of the data and its charset. For every JSON type, and for
// an absent one, it returns application/json (JSON Event Format §3.1.1).
func (e envelope) dataType() (mediaType, charset string) {
	value, is := e.attributes["datacontenttype"]
	if !is {
		return event.ApplicationJSON, ""
	}
	mediaType, parameters, _ := mime.ParseMediaType(value) // check rejects an invalid one
	if strings.HasSuffix(mediaType, "/json") || strings.HasSuffix(mediaType, "+json") {
		mediaType = event.ApplicationJSON
	}
	return mediaType, parameters["charset"]
}

// isUTF8 reports whether text in a charset is UTF-8. JSON without a charset is UTF-8.
func isUTF8(charset string) bool {
	switch strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii":
		return true
	}
	return false
}

// isString reports whether a value has the type String: no control character, no
// noncharacter, no surrogate and no invalid UTF-8.
func isString(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Noncharacter_Code_Point, r)
	})
}

func isNotEmpty(s string) bool { return s != "" }

// The grammar of RFC 3986 appendix A, except for the digits of an IP address. Package url
// accepts more, such as spaces and characters outside of ASCII.
var (
	uriReference = regexp.MustCompile(`^(?:` + uriScheme + `(?:` + uriAuthority + `|` + uriPath + `)|` +
		uriAuthority + `|/(?:` + uriChar + `+(?:/` + uriChar + `*)*)?|(?:` + uriPlain + `|@)+(?:/` + uriChar + `*)*)?` + uriTail + `$`)
	uri = regexp.MustCompile(`^` + uriScheme + `(?:` + uriAuthority + `|` + uriPath + `)` + uriTail + `$`)
)

const (
	uriScheme    = `[A-Za-z][A-Za-z0-9+.-]*:`
	uriPlain     = `(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})`
	uriChar      = `(?:` + uriPlain + `|[:@])`
	uriAuthority = `//(?:(?:` + uriPlain + `|:)*@)?(?:` + uriPlain + `*|\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\])(?::[0-9]*)?(?:/` + uriChar + `*)*`
	uriPath      = `/?(?:` + uriChar + `+(?:/` + uriChar + `*)*)?`
	uriTail      = `(?:\?(?:` + uriChar + `|[/?])*)?(?:#(?:` + uriChar + `|[/?])*)?`
)

func isURIReference(s string) bool { return s != "" && uriReference.MatchString(s) }

func isURI(s string) bool { return uri.MatchString(s) }

func isMediaType(s string) bool {
	mediaType, _, err := mime.ParseMediaType(s)
	return err == nil && strings.Contains(mediaType, "/")
}

var timestamp = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)[Tt]((?:[01]\d|2[0-3]):[0-5]\d):([0-5]\d|60)(?:\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)$`)

// isTimestamp reports whether a value is a date-time of RFC 3339 §5.6. A leap second is
// the last second of a month in UTC (§5.7).
//
// Package time rejects lower-case letters and leap seconds. It accepts hours of one
// digit, commas and offsets of 24 hours, which RFC 3339 does not allow.
func isTimestamp(s string) bool {
	m := timestamp.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	date, minute, second, zone := m[1], m[2], m[3], strings.ToUpper(m[4])
	leap := second == "60"
	if leap {
		second = "59"
	}
	t, err := time.Parse(time.RFC3339, date+"T"+minute+":"+second+zone)
	if err != nil || !leap {
		return err == nil
	}
	t = t.UTC()
	return t.Hour() == 23 && t.Minute() == 59 && t.AddDate(0, 0, 1).Day() == 1
}

// key returns the key of the event.
func (e envelope) key() string {
	return endpoint.EventKey(e.attributes["source"], e.attributes["id"])
}

// request returns a request with the data as its body.
func (e envelope) request(method string) *endpoint.Request {
	mediaType, _ := e.dataType()
	return &endpoint.Request{
		Method:      method,
		ContentType: []string{mediaType},
		Length:      int64(len(e.data)),
		Body:        bytes.NewReader(e.data),
		Key:         e.key(),
	}
}
