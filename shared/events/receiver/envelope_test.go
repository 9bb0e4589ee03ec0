package receiver_test

import (
	"bytes"
	"context"
	"encoding/base64"
	stdjson "encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	sdk "github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/httpserver"
)

// A sample is an event that the tests encode in both modes.
type sample struct {
	attributes map[string]string
	data       string
}

func sampleWith(data string, pairs ...string) sample {
	s := sample{map[string]string{"specversion": "1.0", "id": "1", "source": "/s", "type": "hello.v1", "datacontenttype": "application/json"}, data}
	for i := 0; i < len(pairs); i += 2 {
		s.attributes[pairs[i]] = pairs[i+1]
		if pairs[i+1] == absent {
			delete(s.attributes, pairs[i])
		}
	}
	return s
}

const absent = "\x00absent"

// encoded returns the header value of an attribute (HTTP Protocol Binding §3.1.3.2).
func encoded(value string) string {
	var out strings.Builder
	for _, b := range []byte(value) {
		if b <= ' ' || b == '"' || b == '%' || b > '~' {
			fmt.Fprintf(&out, "%%%02x", b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// quoted returns the encoded value as a quoted string with every character escaped.
func quoted(value string) string {
	var out strings.Builder
	for _, b := range []byte(encoded(value)) {
		out.WriteByte('\\')
		out.WriteByte(b)
	}
	return `"` + out.String() + `"`
}

func (s sample) binary(encode func(string) string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(s.data))
	for name, value := range s.attributes {
		if name == "datacontenttype" {
			r.Header.Set("Content-Type", value)
		} else {
			r.Header.Set("Ce-"+name, encode(value))
		}
	}
	return r
}

// structured returns the event in the JSON format. Data that is not one JSON value is in
// base64.
func (s sample) structured(t testing.TB, contentType string) *http.Request {
	t.Helper()
	members := map[string]any{}
	for name, value := range s.attributes {
		members[name] = value
	}
	data := ""
	if s.data != "" {
		d := jsontext.NewDecoder(strings.NewReader(s.data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		value, err := d.ReadValue()
		data = `,"data":` + string(value)
		if _, end := d.ReadToken(); err != nil || end != io.EOF {
			data = `,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(s.data)) + `"`
		}
	}
	envelope, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.TrimSuffix(string(envelope), "}")+data+"}"))
	r.Header.Set("Content-Type", contentType)
	return r
}

// A result is a response without its time and trace.
type result struct {
	status         int
	kind, id, body string
}

func send(handler http.Handler, r *http.Request) result {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return result{w.Code, w.Header().Get("Ce-Type"), w.Header().Get("Ce-Id"), w.Body.String()}
}

// sendInBothModes returns the result of an event. It fails the test if the result depends on
// the encoding of the event. Equal reply IDs show that the keys are equal.
func sendInBothModes(t testing.TB, handler http.Handler, s sample) result {
	t.Helper()
	want := send(handler, s.binary(encoded))
	for name, r := range map[string]*http.Request{
		"binary mode with quoted strings": s.binary(quoted),
		"structured mode":                 s.structured(t, "application/cloudevents+json"),
		"structured mode with a charset":  s.structured(t, "Application/CloudEvents+JSON; charset=UTF-8"),
	} {
		if got := send(handler, r); got != want {
			t.Errorf("%q in %s: got %+v\nwant, as in binary mode: %+v", s, name, got, want)
		}
	}
	return want
}

const ann = `{"name":"ann"}`

func TestEvent_SameResultInBothModes(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	greeted := func(pairs ...string) sample { return sampleWith(ann, pairs...) }
	type c struct {
		name string
		sample
	}
	for wanted, cases := range map[string][]c{
		"200 greeted.v1": {
			{"the required attributes alone", greeted("datacontenttype", absent)},
			{"every attribute", greeted("subject", "s", "time", "2026-11-23T17:03:24Z", "dataschema", "https://a.example/s", "myext1", "v")},
			{"a time in lower case", greeted("time", "2026-11-23t17:03:24z")},
			{"a time of mixed case", greeted("time", "2026-11-23t17:03:24Z")},
			{"a time with a fraction", greeted("time", "1985-04-12T23:20:50.52Z")},
			{"a time with twelve digits of a fraction", greeted("time", "1985-04-12T23:20:50.123456789012Z")},
			{"a time with an offset", greeted("time", "1996-12-19T16:39:57-08:00")},
			{"a time with an offset of minutes", greeted("time", "1937-01-01T12:00:27.87+00:20")},
			{"a time with an unknown offset", greeted("time", "2026-11-23T17:03:24-00:00")},
			{"a leap second in UTC", greeted("time", "1990-12-31T23:59:60Z")},
			{"a leap second elsewhere", greeted("time", "1990-12-31T15:59:60-08:00")},
			{"a leap second with a fraction", greeted("time", "2016-12-31T23:59:60.999z")},
			{"a leap second in June", greeted("time", "2012-07-01T01:59:60+02:00")},
			{"a leap second of a leap year", greeted("time", "2028-02-29T23:59:60Z")},
			{"a type of JSON", greeted("datacontenttype", "application/vnd.ticketing+json")},
			{"a type of JSON in capitals", greeted("datacontenttype", "Application/VND.Ticketing+JSON")},
			{"text/json", greeted("datacontenttype", "text/json")},
			{"a media type with a charset", greeted("datacontenttype", "application/json; charset=utf-8")},
			{"a media type with a quoted charset in capitals", greeted("datacontenttype", `APPLICATION/JSON;Charset="UTF-8"`)},
			{"a media type with another parameter", greeted("datacontenttype", "application/json; profile=x")},
			{"a subject with a percent sign", greeted("subject", "100%")},
			{"a subject that looks encoded", greeted("subject", "%41%zz%")},
			{"a subject that looks quoted", greeted("subject", `"a\"b"`)},
			{"a subject of spaces", greeted("subject", "  ")},
			{"an id in other scripts", greeted("id", "Euro € 😀 é")},
			{"an id with a backslash", greeted("id", `a\b`)},
			{"a private-use character", greeted("id", "\ue000")},
			{"a replacement character", greeted("id", "\ufffd")},
			{"an empty extension", greeted("myext", "")},
			{"a name of digits", greeted("42", "v")},
			{"a name of more than twenty characters", greeted("averyveryverylongextensionname", "v")},
			{"an absolute source", greeted("source", "https://user@[::1]:8080/a%20b?c=d#e")},
			{"a source from the specification", greeted("source", "1-555-123-4567")},
			{"a source that is a URN", greeted("source", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66")},
			{"a source that is a path", greeted("source", "/cloudevents/spec/pull/123")},
			{"a source that is a relative path", greeted("source", "sensors/tn-1234567/alerts")},
			{"a source with a colon after its first segment", greeted("source", "a/b:c")},
			{"a source with an empty segment", greeted("source", "/a//b/")},
			{"a source without a scheme", greeted("source", "//a.example:8080/b")},
			{"a source of a query", greeted("source", "?a=/b?c")},
			{"a source of a fragment", greeted("source", "#a")},
			{"a source with each kind of character", greeted("source", "/-._~!$&'()*+,;=:@%C3%A9")},
			{"a source with an IPvFuture address", greeted("source", "x://[v1.a:b]/")},
			{"a schema that is a URN", greeted("dataschema", "urn:schema:1")},
			{"a schema of this system", greeted("dataschema", "tag:ticketing.com,2026:/schemas/hello.v1.json")},
			{"a schema with a fragment", greeted("dataschema", "https://a.example/s#/definitions/user")},
			{"a source that is a mail address", greeted("source", "mailto:cncf-wg-serverless@lists.cncf.io")},
		},
		"400 ": {
			{"no id", greeted("id", absent)},
			{"no source", greeted("source", absent)},
			{"no type", greeted("type", absent)},
			{"no version", greeted("specversion", absent)},
			{"an empty id", greeted("id", "")},
			{"an empty source", greeted("source", "")},
			{"an empty type", greeted("type", "")},
			{"an empty version", greeted("specversion", "")},
			{"an empty subject", greeted("subject", "")},
			{"an empty time", greeted("time", "")},
			{"an empty schema", greeted("dataschema", "")},
			{"an empty media type", greeted("datacontenttype", "")},
			{"version 1.0.1", greeted("specversion", "1.0.1")},
			{"version 1", greeted("specversion", "1")},
			{"version 0.3", greeted("specversion", "0.3")},
			{"a version with a space", greeted("specversion", " 1.0")},
			{"another type", greeted("type", "bye.v1")},
			{"a type in capitals", greeted("type", "Hello.v1")},
			{"a source with a broken escape", greeted("source", "/%zz")},
			{"a source with a space", greeted("source", "/a b")},
			{"a source of a space", greeted("source", " ")},
			{"a source with a space at the end", greeted("source", "/a ")},
			{"a source outside of ASCII", greeted("source", "/é")},
			{"a source in another script", greeted("source", "https://例え.example/")},
			{"a source with half an escape", greeted("source", "/100%")},
			{"a source with a quote", greeted("source", `/"a"`)},
			{"a source with a backslash", greeted("source", `\\a\b`)},
			{"a source in angle brackets", greeted("source", "<https://a.example>")},
			{"a source with braces", greeted("source", "/{a}")},
			{"a source with a bar", greeted("source", "/a|b")},
			{"a source with a caret", greeted("source", "/a^b`c")},
			{"a source with brackets in its path", greeted("source", "/a[1]")},
			{"a source with two fragments", greeted("source", "/a#b#c")},
			{"a source with letters for a port", greeted("source", "https://a.example:b/")},
			{"a schema with a space", greeted("dataschema", "https://a.example/a b")},
			{"a schema outside of ASCII", greeted("dataschema", "https://a.example/é")},
			{"a schema without a scheme", greeted("dataschema", "//a.example/s")},
			{"a schema of a fragment", greeted("dataschema", "#s")},
			{"a source with half an address", greeted("source", "http://[::1")},
			{"a source without a scheme before its colon", greeted("source", "::")},
			{"a schema that is no absolute URI", greeted("dataschema", "/schema")},
			{"a schema that is no URI", greeted("dataschema", "http://a b/")},
			{"a media type without a subtype", greeted("datacontenttype", "json")},
			{"a media type with half a parameter", greeted("datacontenttype", "application/json; charset")},
			{"two media types", greeted("datacontenttype", "application/json, text/plain")},
			{"two charsets", greeted("datacontenttype", "application/json; charset=utf-8; charset=utf-16")},
			{"a time without an offset", greeted("time", "2026-11-23T17:03:24")},
			{"a time without seconds", greeted("time", "2026-11-23T17:03Z")},
			{"a date", greeted("time", "2026-11-23")},
			{"a time with a space", greeted("time", "2026-11-23 17:03:24Z")},
			{"a time with a comma", greeted("time", "2026-11-23T17:03:24,5Z")},
			{"a time with an empty fraction", greeted("time", "2026-11-23T17:03:24.Z")},
			{"a time of one digit", greeted("time", "2026-11-23T7:03:24Z")},
			{"hour 24", greeted("time", "2026-11-23T24:00:00Z")},
			{"minute 60", greeted("time", "2026-11-23T17:60:00Z")},
			{"second 61", greeted("time", "1990-12-31T23:59:61Z")},
			{"an offset of 24 hours", greeted("time", "2026-11-23T17:03:24+24:00")},
			{"an offset of 60 minutes", greeted("time", "2026-11-23T17:03:24+01:60")},
			{"an offset without a colon", greeted("time", "2026-11-23T17:03:24+0100")},
			{"the 31st of November", greeted("time", "2026-11-31T17:03:24Z")},
			{"the 29th of February", greeted("time", "2026-02-29T17:03:24Z")},
			{"a leap second within a month", greeted("time", "1990-12-30T23:59:60Z")},
			{"a leap second within a day", greeted("time", "2026-11-23T17:03:60Z")},
			{"a leap second of another zone's midnight", greeted("time", "1990-12-31T23:59:60-08:00")},
			{"a year of five digits", greeted("time", "12026-11-23T17:03:24Z")},
			{"a name with an underscore", greeted("my_ext", "v")},
			{"a name with a hyphen", greeted("my-ext", "v")},
			{"an empty name", greeted("", "v")},
		},
		"415 ": {
			{"another media type", greeted("datacontenttype", "text/xml")},
			{"octets", greeted("datacontenttype", "application/octet-stream")},
			{"a type that only begins like JSON", greeted("datacontenttype", "application/jsonp")},
			{"a type that only ends like JSON", greeted("datacontenttype", "application/xjson")},
			{"UTF-16", greeted("datacontenttype", "application/json; charset=utf-16")},
			{"UTF-16 in quotes and capitals", greeted("datacontenttype", `application/json; CHARSET="UTF-16LE"`)},
			{"UTF-16 in the long form of a parameter", greeted("datacontenttype", "application/json; charset*=us-ascii''utf-16")},
			{"Latin-1 of a +json type", greeted("datacontenttype", "application/vnd.ticketing+json; charset=iso-8859-1")},
		},
		"200 refused.v1": {
			{"no data", sampleWith("")},
			{"null", sampleWith("null")},
			{"a string", sampleWith(`"{\"name\":\"ann\"}"`)},
			{"an array", sampleWith("[" + ann + "]")},
			{"a number", sampleWith("1")},
			{"half an object", sampleWith(`{"name":"ann"`)},
			{"two objects", sampleWith(ann + ann)},
			{"a name twice", sampleWith(`{"name":"ann","name":"bob"}`)},
			{"a name twice deep inside", sampleWith(`{"name":"ann","x":[{"y":1,"y":2}]}`)},
			{"a lone surrogate", sampleWith(`{"name":"\ud800"}`)},
			{"an escaped NUL", sampleWith(`{"name":"\u0000"}`)},
			{"invalid UTF-8", sampleWith("{\"name\":\"\xff\"}")},
			{"UTF-16", sampleWith("{\x00}\x00")},
			{"a byte order mark", sampleWith("\ufeff" + ann)},
			{"a name that the function rejects", sampleWith(`{"name":"x"}`)},
		},
	} {
		t.Run(wanted, func(t *testing.T) {
			for _, c := range cases {
				got := sendInBothModes(t, handler, c.sample)
				if is := fmt.Sprintf("%d %s", got.status, got.kind); is != wanted {
					t.Errorf("%s: got %s %s, want %s", c.name, is, got.body, wanted)
				}
			}
		})
	}
	// no attribute may contain these characters (type String)
	for _, r := range []rune{0, '\t', '\n', '\r', 0x1f, 0x7f, 0x80, 0x85, 0x9f, 0xfdd0, 0xfdef, 0xfffe, 0xffff, 0x1fffe, 0x10ffff} {
		for _, name := range []string{"id", "source", "type", "subject", "time", "dataschema", "datacontenttype", "myext", "specversion"} {
			value := sampleWith(ann, "subject", "s", "time", "2026-11-23T17:03:24Z", "dataschema", "https://a.example/s", "myext", "v").attributes[name]
			if got := sendInBothModes(t, handler, greeted(name, value+string(r))); got.status != http.StatusBadRequest {
				t.Errorf("%s with %U: got %+v, want 400", name, r, got)
			}
		}
	}
}

// The source and the ID identify an event, independent of their encoding.
func TestEvent_SameKeyInEveryEncoding(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	key := func(header, body string) string {
		t.Helper()
		status, h, answer := deliver(t, handler, header, body)
		if status != http.StatusOK || h.Get("Ce-Id") == "" {
			t.Errorf("%q: got %d %s, want 200 and a reply", header, status, answer)
		}
		return h.Get("Ce-Id")
	}
	withID := func(id string) string {
		return key(strings.Replace(binary, "ce-id: 1", "ce-id: "+id, 1), ann)
	}
	inJSON := func(id string) string {
		return key(structured, strings.Replace(envelope(`,"data":`+ann), `"id":"1"`, `"id":"`+id+`"`, 1))
	}
	for id, encodings := range map[string][]string{
		inJSON(`order 7`):     {withID(`order%207`), withID(`"order 7"`), withID(`"order\ 7"`), withID(`"order%207"`), withID(`order 7`), withID(`%6fr%64er%207`), inJSON(`\u006frder 7`)},
		inJSON(`a\"b\\c`):     {withID(`"a\"b\\c"`), withID(`a%22b\c`), withID(`a"b\c`), withID(`"a\"b%5Cc"`)},
		inJSON(`100%`):        {withID(`100%`), withID(`100%25`), withID(`"100%"`), withID(`"100%25"`)},
		inJSON(`%`):           {withID(`%`), withID(`%25`)},
		inJSON(`%4`):          {withID(`%4`), withID(`%254`)},
		inJSON(`%zz%4g%`):     {withID(`%zz%4g%`), withID(`%25zz%254g%25`)},
		inJSON(`%41`):         {withID(`%2541`), withID(`%25%34%31`)},
		inJSON(`\"open`):      {withID(`"open`), withID(`%22open`)},
		inJSON(`\"a\" \"b\"`): {withID(`"a" "b"`)},
		inJSON(`€😀`):          {withID(`%E2%82%AC%F0%9F%98%80`), withID(`%e2%82%ac%f0%9f%98%80`), withID(`€😀`), inJSON(`\u20ac\ud83d\ude00`)},
	} {
		for i, got := range encodings {
			if got != id {
				t.Errorf("encoding %d: got the reply ID %s, want %s", i, got, id)
			}
		}
	}
	if withID("1") == withID("2") || withID("1") == key(strings.Replace(binary, "/s", "/t", 1), ann) {
		t.Error("two different events have the same key")
	}
}

func TestEvent_HeadersOfBinaryMode(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	for header, want := range map[string]int{
		strings.ToUpper(binary[:strings.Index(binary, "\n")]) + binary[strings.Index(binary, "\n"):]: 200,
		strings.Replace(binary, "ce-type: hello.v1", `ce-type: "hello.v1"`, 1):                       200,
		strings.Replace(binary, "ce-type: hello.v1", `ce-type: hello%2Ev1`, 1):                       200,
		strings.Replace(binary, "ce-specversion: 1.0", `ce-specversion: "1.0"`, 1):                   200,
		binary + "\nce-subject: %C3":              400, // half a character
		binary + "\nce-subject: %C0%A0":           400, // a space, in an overlong encoding
		binary + "\nce-subject: %ED%A0%80":        400, // a surrogate
		binary + "\nce-subject: \xe9":             400, // Latin-1
		binary + "\nce-subject: a\tb":             400,
		binary + "\nce-subject: %00":              400,
		binary + "\nce-subject: %C2%85":           400,
		binary + "\nce-subject: %EF%BF%BF":        400,
		binary + "\nce-subject: \"\"":             400, // empty
		binary + "\nce-subject: ":                 400,
		binary + "\nce-subject: a\nce-subject: a": 400,
		binary + "\nce-data: x":                   400,
		binary + "\nce-data_base64: eA==":         400,
		binary + "\nce-datacontenttype: text/xml": 400,
		binary + "\ncontent-type: text/xml":       400,
		binary + "\ncontent-encoding: gzip":       415,
		binary + "\ncontent-encoding: identity":   200,
	} {
		if status, _, body := deliver(t, handler, header, ann); status != want {
			t.Errorf("%q: got %d %s, want %d", header, status, body, want)
		}
	}
}

func TestEvent_MembersOfTheJSONFormat(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	base64Data := `"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(ann)) + `"`
	data := `"data":` + ann
	replaced := func(old, new string) string { return strings.Replace(envelope(","+data), old, new, 1) }
	for body, want := range map[string]string{
		envelope("," + base64Data): "200 greeted.v1",
		envelope(`,"subject":null,"time":null,"dataschema":null,"datacontenttype":null,"myext":null,"data_base64":null,` + data): "200 greeted.v1",
		envelope(`,"myint":42,"myneg":-2147483648,"mybool":true,"mynot":false,` + data):                                          "200 greeted.v1",
		envelope(`,"data":null`):                             "200 refused.v1",
		envelope(`,"data_base64":""`):                        "200 refused.v1",
		envelope(`,"data_base64":null`):                      "200 refused.v1",
		envelope("," + data + "," + base64Data):              "400 ",
		envelope("," + base64Data + "," + data):              "400 ",
		envelope(`,"data":null,` + base64Data):               "400 ", // null is data
		envelope("," + data + "," + data):                    "400 ",
		envelope("," + base64Data + "," + base64Data):        "400 ",
		envelope(`,"data_base64":"eyJuYW1lIjoiYW5uIn0"`):     "400 ", // no padding
		envelope(`,"data_base64":"eyJuYW1lIjo\niYW5uIn0="`):  "400 ",
		envelope(`,"data_base64":"-_8="`):                    "400 ",
		envelope(`,"data_base64":"e31="`):                    "400 ", // unused bits that are not zero
		envelope(`,"data_base64":1`):                         "400 ",
		envelope(`,"data_base64":{}`):                        "400 ",
		envelope(`,"myint":2147483648,` + data):              "400 ",
		envelope(`,"myint":1.0,` + data):                     "400 ",
		envelope(`,"myint":1e3,` + data):                     "400 ",
		envelope(`,"myext":{},` + data):                      "400 ",
		envelope(`,"myext":["v"],` + data):                   "400 ",
		envelope(`,"myExt":"v",` + data):                     "400 ",
		envelope(`,"my_ext":null,"my_ext":null,` + data):     "400 ",
		envelope(`,"time":1764000000,` + data):               "400 ",
		envelope(`,"subject":true,` + data):                  "400 ",
		envelope(`,"myext":"\ud800",` + data):                "400 ",
		envelope(`,"myext":"\ud83d\ude00",` + data):          "200 greeted.v1",
		envelope(",\"myext\":\"\xff\"," + data):              "400 ",
		envelope(",\"my\xff\":\"v\"," + data):                "400 ",
		envelope(`,"ID":"2",` + data):                        "400 ",
		replaced(`"id":"1"`, `"id":1`):                       "400 ",
		replaced(`"id":"1"`, `"id":null`):                    "400 ",
		replaced(`"id":"1"`, `"id":"1","id":"1"`):            "400 ",
		replaced(`"id":"1"`, `"id":null,"id":"1"`):           "400 ",
		replaced(`"id":"1"`, `"id":"1","\u0069d":"2"`):       "400 ",
		replaced(`"specversion":"1.0"`, `"specversion":1.0`): "400 ",
		envelope(","+data) + " \n":                           "200 greeted.v1",
		envelope(","+data) + "x":                             "400 ",
		envelope(","+data) + envelope(","+data):              "400 ",
		"\ufeff" + envelope(","+data):                        "400 ",
		"[" + envelope(","+data) + "]":                       "400 ",
		envelope("," + data + ","):                           "400 ",
		``:                                                   "400 ",
		`null`:                                               "400 ",
	} {
		status, h, answer := deliver(t, handler, structured, body)
		if got := fmt.Sprintf("%d %s", status, h.Get("Ce-Type")); got != want {
			t.Errorf("%s: got %s %s, want %s", body, got, answer, want)
		}
	}
	for header, want := range map[string]int{
		"content-type: Application/CloudEvents+JSON":                        200,
		structured + ` ; charset="utf-8"`:                                   200,
		structured + "; charset=utf-16":                                     415,
		structured + "; charset":                                            400,
		structured + "\n" + structured:                                      400,
		structured + "\ncontent-encoding: gzip":                             415,
		"content-type: application/cloudevents":                             415,
		"content-type: application/cloudevents+xml":                         415,
		"content-type: application/cloudevents-batch+json; charset=x":       415,
		structured + "\nce-id: 1\nce-specversion: \"1.0\"\nce-source: %2Fs": 200, // equal to the envelope
		structured + "\nce-id: 2":                                           400, // different from the envelope
		structured + "\nce-type: bye.v1":                                    400,
		structured + "\nce-myext: v":                                        400, // not in the envelope
		structured + "\nce-: v":                                             400,
	} {
		if status, _, body := deliver(t, handler, header, envelope(","+data)); status != want {
			t.Errorf("%q: got %d %s, want %d", header, status, body, want)
		}
	}
}

// The sender of the SDK encodes nothing in binary mode.
func TestEvent_FromSDK(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	for _, text := range []string{"100%", "%", "5% of 10%", `say "hi"`, `5" pipe`, `C:\temp`, "é", "a b"} {
		e := event.New()
		e.SetID(text)
		e.SetSource("/s")
		e.SetType("hello.v1")
		e.SetSubject(text)
		e.SetExtension("myint", 42)
		e.SetExtension("mybool", true)
		e.SetTime(time.Unix(1764000000, 5))
		if err := e.SetData("application/json", stdjson.RawMessage(ann)); err != nil {
			t.Fatal(err)
		}
		var got []result
		for _, ctx := range []context.Context{t.Context(), sdk.WithForceStructured(t.Context())} {
			r, err := cehttp.NewHTTPRequestFromEvent(ctx, "http://a.example/", e)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, send(handler, r.WithContext(t.Context()))) // a structured context would change the reply
		}
		if got[0] != got[1] || got[0].kind != "greeted.v1" {
			t.Errorf("%q: got %+v in binary mode and %+v in structured mode, want equal replies", text, got[0], got[1])
		}
	}
}

func TestReply_ID(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	const trace = "\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ids := map[string]string{}
	for name, c := range map[string]struct{ header, body string }{
		"a refusal":       {binary, `{"name":"x"}`},
		"another refusal": {binary, `{}`},
		"an acceptance":   {binary, ann},
		"other data":      {binary, `{"name":"bob"}`},
		"a reply to 2":    {strings.Replace(binary, "ce-id: 1", "ce-id: 2", 1), ann},
		"another source":  {strings.Replace(binary, "/s", "/t", 1), ann},
		"a refusal of 2":  {strings.Replace(binary, "ce-id: 1", "ce-id: 2", 1), `{"name":"x"}`},
	} {
		status, first, _ := deliver(t, handler, c.header, c.body)
		_, again, _ := deliver(t, handler, c.header+trace+"\nce-time: 2026-11-23T17:03:24Z", c.body)
		id := first.Get("Ce-Id")
		if status != http.StatusOK || id == "" || again.Get("Ce-Id") != id || again.Get("Ce-Time") == first.Get("Ce-Time") {
			t.Errorf("%s: got %d %v, then %v; want 200 and the same ID", name, status, first, again)
		}
		if other := ids[id]; other != "" {
			t.Errorf("%s and %s have the same ID", name, other)
		}
		ids[id] = name
	}
}

func FuzzModes(f *testing.F) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	f.Add("1", "/s", "s", "2026-11-23t17:03:24z", "https://a.example/s", "application/vnd.a+json; charset=utf-8", "myext", "100%", []byte(ann))
	f.Add("a \"b\"", "urn:x", "\\", "1990-12-31T15:59:60-08:00", "/s", "text/json", "x", "", []byte(`{"name":"\ud800","name":1}`))
	f.Add("\u0085", "::", "\ufffe", "", "", "application/json; charset=utf-16", "A_b", "%C3", []byte("{\xff"))
	f.Fuzz(func(t *testing.T, id, source, subject, time, schema, contentType, name, value string, data []byte) {
		s := sampleWith(string(data), "id", id, "source", source, "subject", subject, "time", time, "dataschema", schema, "datacontenttype", contentType)
		if _, is := s.attributes[name]; is || name == "data" || name == "data_base64" || name == "type" {
			name = "myext"
		}
		s.attributes[name] = value
		// omit empty optional attributes, because they would make nearly all events invalid
		maps.DeleteFunc(s.attributes, func(name, value string) bool {
			return value == "" && name != "id" && name != "source"
		})
		for name, value := range s.attributes {
			if !utf8.ValidString(name+value) || strings.ToLower(name) != name {
				t.Skip("the JSON format or a header cannot represent it")
			}
		}
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), "application/cloudevents") {
			t.Skip("in binary mode, this media type selects another mode")
		}
		if bytes.Count(data, []byte("[")) > 1000 {
			t.Skip("the JSON decoder limits the nesting")
		}
		sendInBothModes(t, handler, s)
	})
}
