package endpointtest

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"ticketing.com/auth/shared/endpoint"
)

// Errors returns the JSON of an error with one message.
func Errors(message string) string { return `{"errors":[{"message":"` + message + `"}]}` }

// FieldError returns the JSON of an error about one field.
func FieldError(field, message string) string {
	return `{"errors":[{"message":"` + message + `","field":"` + field + `"}]}`
}

// InvalidToken returns a case with the response to an invalid token.
func InvalidToken(c Case) Case {
	c.Status, c.JSON = http.StatusUnauthorized, Errors("The token is not valid.")
	c.Want = http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}
	return c
}

// HostileBodies returns requests that every function with a request body must reject,
// independent of its fields. Good is a valid body.
func HostileBodies(good string) []Case {
	const notAnObject = "The body must be one JSON object."
	invalid := func(name, body, message string) Case {
		return Case{Name: name, Call: Call{Body: body}, Status: http.StatusBadRequest, JSON: Errors(message)}
	}
	cases := []Case{
		invalid("an array is rejected", `[`+good+`]`, notAnObject),
		invalid("a string is rejected", `"`+strings.Repeat("a", 100)+`"`, notAnObject),
		invalid("null is rejected", `null`, notAnObject),
		invalid("white space alone is rejected", "  \n", notAnObject),
		invalid("a truncated object is rejected", good[:len(good)-1], notAnObject),
		invalid("an object followed by another is rejected", good+good, notAnObject),
		invalid("an object followed by a letter is rejected", good+"x", notAnObject),
		invalid("a byte order mark is rejected", "\ufeff"+good, notAnObject),
		invalid("UTF-16 is rejected", "\xff\xfe{\x00}\x00", notAnObject),
		invalid("invalid UTF-8 is rejected", `{"x":"`+"\xff"+`",`+good[1:], notAnObject),
		invalid("an overlong encoding is rejected", `{"x":"`+"\xc0\xaf"+`",`+good[1:], notAnObject),
		invalid("a lone surrogate is rejected", `{"x":"\ud800",`+good[1:], notAnObject),
		invalid("a raw NUL is rejected", `{"x":"`+"\x00"+`",`+good[1:], notAnObject),
		invalid("an escaped NUL is rejected", `{"x":"a\u0000b",`+good[1:], "The body has a NUL character."),
		invalid("an escaped NUL in a name is rejected", `{"a\u0000b":1,`+good[1:], "The body has a NUL character."),
		invalid("a repeated name is rejected", `{"x":1,"x":1,`+good[1:], "The body has a member twice."),
		invalid("a repeated name in a nested object is rejected", `{"x":[{"y":1,"\u0079":2}],`+good[1:], "The body has a member twice."),
		invalid("a comment is rejected", `{/**/`+good[1:], notAnObject),
		invalid("single quotes are rejected", strings.ReplaceAll(good, `"`, `'`), notAnObject),
		invalid("NaN is rejected", `{"x":NaN,`+good[1:], notAnObject),
		invalid("a trailing comma is rejected", good[:len(good)-1]+",}", notAnObject),
		invalid("deep nesting is rejected", `{"x":`+strings.Repeat("[", 15000), notAnObject),
	}
	for name, contentType := range map[string]string{
		"a form is rejected":                      "application/x-www-form-urlencoded",
		"a multipart form is rejected":            "multipart/form-data; boundary=x",
		"plain text is rejected":                  "text/plain",
		"another JSON type is rejected":           "application/problem+json",
		"a longer type of that name is rejected":  "application/jsonp",
		"a malformed content type is rejected":    "application/json; charset",
		"two types in one header are rejected":    "application/json, text/plain",
		"an event in structured mode is rejected": "application/cloudevents+json",
		"UTF-16 is rejected":                      "application/json; charset=utf-16",
		"UTF-16 in quotes is rejected":            `application/json; CHARSET="UTF-16LE"`,
		"Latin-1 in the long form is rejected":    "application/json; charset*=us-ascii''iso-8859-1",
		"an empty charset is rejected":            `application/json; charset=""`,
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
		Case{Name: "an empty body is rejected", Status: http.StatusUnsupportedMediaType, JSON: Errors("The body must be application/json.")},
		Case{Name: "an event in binary mode is rejected", Call: Call{Body: good, Header: http.Header{"Ce-Specversion": {"1.0"}}},
			Status: http.StatusUnsupportedMediaType, JSON: Errors("This address takes no events.")},
		Case{Name: "an encoded body is rejected", Call: Call{Body: good, Header: http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}},
			Status: http.StatusUnsupportedMediaType, JSON: Errors("The body must have no Content-Encoding."), Want: http.Header{"Accept-Encoding": {"identity"}}},
		Case{Name: "two content types are rejected", Call: Call{Body: good, Header: http.Header{"Content-Type": {"application/json", "application/json"}}},
			Status: http.StatusUnsupportedMediaType, JSON: Errors("The body must be application/json.")},
		Case{Name: "a body of 16 KiB and a byte is rejected", Call: Call{Body: good + strings.Repeat(" ", 16<<10+1-len(good))},
			Status: http.StatusRequestEntityTooLarge, JSON: Errors("The body is larger than 16 KiB.")},
		Case{Name: "a body of 10 MB is rejected", Call: Call{Body: good + strings.Repeat(" ", 10<<20)},
			Status: http.StatusRequestEntityTooLarge, JSON: Errors("The body is larger than 16 KiB.")},
	)
}

// HostileRoutes returns requests with other paths and methods than those of a function with one
// endpoint.
func HostileRoutes(function endpoint.Function) []Case {
	method, path := function.Endpoints[0].Method, function.Endpoints[0].Path
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

// At returns the cases with a path, and with headers in addition to their own.
func At(path string, header http.Header, cases []Case) []Case {
	cases = slices.Clone(cases)
	for i := range cases {
		cases[i].Path, cases[i].Header = path, cases[i].Header.Clone()
		if cases[i].Header == nil {
			cases[i].Header = http.Header{}
		}
		maps.Copy(cases[i].Header, header)
	}
	return cases
}

// OtherMethods returns requests with methods that a path does not allow. Allow is the header of the
// responses.
func OtherMethods(path, allow string) (cases []Case) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
		if !slices.Contains(strings.Split(allow, ", "), method) {
			cases = append(cases, Case{Name: method + " is another method", Call: Call{Method: method, Path: path},
				Status: http.StatusMethodNotAllowed, JSON: Errors("This method is not allowed here."), Want: http.Header{"Allow": {allow}}})
		}
	}
	return cases
}

func hex(c byte) string {
	const digits = "0123456789abcdef"
	return string(digits[c>>4]) + string(digits[c&15])
}

// HostileTokens returns Authorization headers that every function with bearer tokens must
// reject. Good is a valid header. The cases test that the function parses the header correctly
// and calls the verifier. The verifier has its own tests.
func HostileTokens(good http.Header) []Case {
	value := good.Get("Authorization")
	access := strings.TrimPrefix(value, "Bearer ")
	segments := strings.Split(access, ".")
	var cases []Case
	for name, values := range map[string][]string{
		"two Authorization headers are rejected":    {value, value},
		"a second, empty Authorization is rejected": {value, ""},
		"a scheme without a token is rejected":      {"Bearer"},
		"a scheme with only a space is rejected":    {"Bearer "},
		"two tokens in one header are rejected":     {value + ", " + value},
		"a token after another scheme is rejected":  {"Basic " + access + ", " + value},
		"a token after another scheme and a tab":    {"Basic x,bearer\t" + access},
		"a token followed by more is rejected":      {value + " x"},
		"a tab in place of the space is rejected":   {"Bearer\tx"},
		"a token over 8 KiB is rejected":            {"Bearer " + strings.Repeat("a", 8<<10+1)},
		"a token of many dots is rejected":          {"Bearer " + strings.Repeat(".", 8<<10)},
		"an unsigned token is rejected":             {"Bearer " + segments[0] + "." + segments[1] + "."},
		"a token with a changed claim is rejected":  {"Bearer " + segments[0] + "." + segments[1] + "A." + segments[2]},
		"words are rejected":                        {"Bearer of good news"},
	} {
		cases = append(cases, InvalidToken(Case{Name: name, Call: Call{Header: http.Header{"Authorization": values}}}))
	}
	return cases
}

// OtherSchemes returns Authorization headers without a bearer token, by a description of each.
// Good has a valid bearer token.
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
