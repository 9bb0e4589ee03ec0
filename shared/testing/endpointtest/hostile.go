package endpointtest

import (
	"net/http"
	"strings"
)

// Errors is the JSON of an error with one message.
func Errors(message string) string { return `{"errors":[{"message":"` + message + `"}]}` }

// FieldError is the JSON of an error about one field.
func FieldError(field, message string) string {
	return `{"errors":[{"message":"` + message + `","field":"` + field + `"}]}`
}

// InvalidToken is the answer to a token that does not count.
func InvalidToken(c Case) Case {
	c.Status, c.JSON = http.StatusUnauthorized, Errors("The token is not valid.")
	c.Want = http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}
	return c
}

// HostileBodies are requests that every function which reads a body must refuse,
// whatever its fields. Good is a body it would take.
func HostileBodies(good string) []Case {
	const notAnObject = "The body must be one JSON object."
	invalid := func(name, body, message string) Case {
		return Case{Name: name, Call: Call{Body: body}, Status: http.StatusBadRequest, JSON: Errors(message)}
	}
	cases := []Case{
		invalid("an array is refused", `[`+good+`]`, notAnObject),
		invalid("a string is refused", `"`+strings.Repeat("a", 100)+`"`, notAnObject),
		invalid("null is refused", `null`, notAnObject),
		invalid("white space alone is refused", "  \n", notAnObject),
		invalid("half an object is refused", good[:len(good)-1], notAnObject),
		invalid("an object followed by another is refused", good+good, notAnObject),
		invalid("an object followed by a letter is refused", good+"x", notAnObject),
		invalid("a byte order mark is refused", "\ufeff"+good, notAnObject),
		invalid("UTF-16 is refused", "\xff\xfe{\x00}\x00", notAnObject),
		invalid("invalid UTF-8 is refused", `{"x":"`+"\xff"+`",`+good[1:], notAnObject),
		invalid("an overlong encoding is refused", `{"x":"`+"\xc0\xaf"+`",`+good[1:], notAnObject),
		invalid("a lone surrogate is refused", `{"x":"\ud800",`+good[1:], notAnObject),
		invalid("a raw NUL is refused", `{"x":"`+"\x00"+`",`+good[1:], notAnObject),
		invalid("an escaped NUL is refused", `{"x":"a\u0000b",`+good[1:], "The body has a NUL character."),
		invalid("an escaped NUL in a name is refused", `{"a\u0000b":1,`+good[1:], "The body has a NUL character."),
		invalid("a name twice is refused", `{"x":1,"x":1,`+good[1:], "The body has a member twice."),
		invalid("a name twice deep inside is refused", `{"x":[{"y":1,"\u0079":2}],`+good[1:], "The body has a member twice."),
		invalid("a comment is refused", `{/**/`+good[1:], notAnObject),
		invalid("single quotes are refused", strings.ReplaceAll(good, `"`, `'`), notAnObject),
		invalid("NaN is refused", `{"x":NaN,`+good[1:], notAnObject),
		invalid("a trailing comma is refused", good[:len(good)-1]+",}", notAnObject),
		invalid("nesting that never ends is refused", `{"x":`+strings.Repeat("[", 15000), notAnObject),
	}
	for name, contentType := range map[string]string{
		"a form is refused":                      "application/x-www-form-urlencoded",
		"a multipart form is refused":            "multipart/form-data; boundary=x",
		"plain text is refused":                  "text/plain",
		"another JSON type is refused":           "application/problem+json",
		"a longer type of that name is refused":  "application/jsonp",
		"a malformed content type is refused":    "application/json; charset",
		"two types in one header are refused":    "application/json, text/plain",
		"an event in structured mode is refused": "application/cloudevents+json",
		"UTF-16 is refused":                      "application/json; charset=utf-16",
		"UTF-16 in quotes is refused":            `application/json; CHARSET="UTF-16LE"`,
		"Latin-1 in the long form is refused":    "application/json; charset*=us-ascii''iso-8859-1",
		"an empty charset is refused":            `application/json; charset=""`,
	} {
		message := "The body must be application/json."
		if strings.HasPrefix(contentType, "application/json; ") && strings.Contains(contentType, "=") {
			message = "The body must be in UTF-8."
		}
		if strings.Contains(contentType, "cloudevents") {
			message = "This address takes no events."
		}
		cases = append(cases, Case{Name: name, Call: Call{Body: good, Header: http.Header{"Content-Type": {contentType}}},
			Status: http.StatusUnsupportedMediaType, JSON: Errors(message)})
	}
	return append(cases,
		Case{Name: "no body is no JSON", Status: http.StatusUnsupportedMediaType, JSON: Errors("The body must be application/json.")},
		Case{Name: "an event in binary mode is refused", Call: Call{Body: good, Header: http.Header{"Ce-Specversion": {"1.0"}}},
			Status: http.StatusUnsupportedMediaType, JSON: Errors("This address takes no events.")},
		Case{Name: "an encoded body is refused", Call: Call{Body: good, Header: http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}},
			Status: http.StatusUnsupportedMediaType, JSON: Errors("The body must have no Content-Encoding."), Want: http.Header{"Accept-Encoding": {"identity"}}},
		Case{Name: "two content types are refused", Call: Call{Body: good, Header: http.Header{"Content-Type": {"application/json", "application/json"}}},
			Status: http.StatusUnsupportedMediaType, JSON: Errors("The body must be application/json.")},
		Case{Name: "a body of 16 KiB and a byte is refused", Call: Call{Body: good + strings.Repeat(" ", 16<<10+1-len(good))},
			Status: http.StatusRequestEntityTooLarge, JSON: Errors("The body is larger than 16 KiB.")},
		Case{Name: "a body of 10 MB is refused", Call: Call{Body: good + strings.Repeat(" ", 10<<20)},
			Status: http.StatusRequestEntityTooLarge, JSON: Errors("The body is larger than 16 KiB.")},
	)
}

// HostileRoutes are requests beside the one route of a function.
func HostileRoutes(method, path string) []Case {
	var cases []Case
	for _, wrong := range []string{path + "/", "/" + path, path + "/x", path + "x", "/x/.." + path, strings.ToUpper(path), "/", "/api/users", path[:len(path)-1] + "%" + hex(path[len(path)-1])} {
		cases = append(cases, Case{Name: wrong + " is another path", Call: Call{Method: method, Path: wrong},
			Status: http.StatusNotFound, JSON: Errors("There is nothing here.")})
	}
	allow := method
	if method == http.MethodGet {
		allow = "GET, HEAD"
	}
	for _, wrong := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
		if wrong == method || method == http.MethodGet && wrong == http.MethodHead {
			continue
		}
		cases = append(cases, Case{Name: wrong + " is another method", Call: Call{Method: wrong},
			Status: http.StatusMethodNotAllowed, JSON: Errors("This method is not allowed here."), Want: http.Header{"Allow": {allow}}})
	}
	return cases
}

func hex(c byte) string {
	const digits = "0123456789abcdef"
	return string(digits[c>>4]) + string(digits[c&15])
}

// HostileTokens are bearer headers that every function which takes a token must
// refuse. Good is one it would take. What the verifier refuses is tested with
// the verifier; here it is only made sure that it is asked, and how the header
// is read.
func HostileTokens(good http.Header) []Case {
	value := good.Get("Authorization")
	access := strings.TrimPrefix(value, "Bearer ")
	segments := strings.Split(access, ".")
	var cases []Case
	for name, values := range map[string][]string{
		"two Authorization headers are refused":        {value, value},
		"a second, empty Authorization is refused":     {value, ""},
		"a scheme without a token is refused":          {"Bearer"},
		"a scheme with a space and nothing is refused": {"Bearer "},
		"two tokens in one header are refused":         {value + ", " + value},
		"a token behind another scheme is refused":     {"Basic " + access + ", " + value},
		"a token followed by more is refused":          {value + " x"},
		"no token behind a tab is refused":             {"Bearer\tx"},
		"a token over 8 KiB is refused":                {"Bearer " + strings.Repeat("a", 8<<10+1)},
		"a token of many dots is refused":              {"Bearer " + strings.Repeat(".", 8<<10)},
		"an unsigned token is refused":                 {"Bearer " + segments[0] + "." + segments[1] + "."},
		"a token with a changed claim is refused":      {"Bearer " + segments[0] + "." + segments[1] + "A." + segments[2]},
		"words are refused":                            {"Bearer of good news"},
	} {
		cases = append(cases, InvalidToken(Case{Name: name, Call: Call{Header: http.Header{"Authorization": values}}}))
	}
	return cases
}

// OtherSchemes returns Authorization headers without a bearer token, by what they are. Good
// carries a bearer token that is valid.
func OtherSchemes(good http.Header) map[string]http.Header {
	access := strings.TrimPrefix(good.Get("Authorization"), "Bearer ")
	headers := map[string]http.Header{}
	for name, value := range map[string]string{
		"an empty header":        "",
		"white space":            "  ",
		"another scheme":         "Basic " + access,
		"a scheme with commas":   `Digest username="ann", realm="bearer x"`,
		"a token without scheme": access,
		"a longer scheme name":   "Bearers " + access,
	} {
		headers[name] = http.Header{"Authorization": {value}}
	}
	return headers
}
