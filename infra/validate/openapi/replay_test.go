package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"go.yaml.in/yaml/v3"
)

// elsewhere holds the statuses that no single request can cause, with the tests that cause
// them.
var elsewhere = map[string]struct{ file, test string }{
	"403": {"infra/test/life/life_test.go", "TestAccount_DeletedAndRestored"}, // another order of the functions
	"404": {"functions/jwks/jwks_test.go", "TestDiscovery"},                   // another setting
	"409": {"functions/email/email_test.go", "TestEmail_OfAnotherAccount"},
	"429": {"infra/validate/openapi/replay_test.go", "TestReplay_RateLimits"},
	"500": {"shared/endpoint/endpoint_test.go", "TestInvoke_Failure"},
	"503": {"infra/test/e2e/functions_test.go", "TestDatabase_UnavailableAndBack"},
}

// withoutJSON holds the operations and statuses whose responses are no JSON, with their tests. A replay
// compares JSON.
var withoutJSON = map[string]struct{ file, test string }{
	"DELETE /api/users/sessions/{id} 204": {"functions/sessions/sessions_test.go", "TestSessions"},
	"GET /api/users/export 200":           {"functions/export/export_test.go", "TestExport"},
	"HEAD /api/users/export 200":          {"functions/export/export_test.go", "TestExport"},
}

// mailed lists the tokens of the examples that users receive by mail, with the recipient and the purpose
// of each mail.
var mailed = map[string]struct{ to, purpose string }{
	"N2Q1YzBhMmM0OWYxNGYwYi52ZXJpZmljYXRpb24": {"ann@example.com", "verification"},
	"YzE5NGU3ZDA1ZjMzNGI2Yi5yZWNvdmVyeQ":      {"carol@example.com", "recovery"},
	"ZDA3ZDk4NmE1YzFlNGQwOC5lbWFpbA":          {"dave@tickets.example", "email"},
	"ZDA3ZDk4NmE1YzFlNGQwOC51bmRv":            {"dave@example.com", "undo"},
}

func TestReplay_AllExamples(t *testing.T) {
	url := start(t, "RATE_LIMIT=off")
	served := get(t, url+"/openapi.yaml")
	if served != committed(t) {
		t.Fatal("the local runner serves a document that differs from the committed one")
	}
	for _, difference := range replay(t, url, served) {
		t.Error(difference)
	}
}

func TestReplay_OtherStatusesHaveTests(t *testing.T) {
	all := maps.Clone(elsewhere)
	maps.Copy(all, withoutJSON)
	for status, by := range all {
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(by.file)))
		if err != nil || !strings.Contains(string(source), "\nfunc "+by.test+"(") {
			t.Errorf("%s does not contain %s, the test of the status %s: %v", by.file, by.test, status, err)
		}
	}
}

// Each case changes the document. The replay must report a difference.
func TestReplay_ReportsDifferences(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"another message":                  {"message: Signed out.", "message: Done.", "Done."},
		"another member":                   {"currentUser: null", "currentUser: null\n                    since: 1", "since"},
		"a missing member":                 {"                    expiresIn: 900\n", "", "expiresIn"},
		"another number":                   {"expiresIn: 900", "expiresIn: 901", "901"},
		"another challenge":                {"WWW-Authenticate: Bearer\n", "WWW-Authenticate: Bearer error=\"invalid_token\"\n", "WWW-Authenticate"},
		"an undocumented header":           {"            WWW-Authenticate:\n              $ref: '#/components/headers/Challenge'\n", "", "Www-Authenticate"},
		"a header that the response lacks": {"            X-Content-Type-Options:\n", "            X-Powered-By:\n              $ref: '#/components/headers/NoSniff'\n            X-Content-Type-Options:\n", "X-Powered-By"},
		"a status that does not occur":     {`        "422":`, `        "402":`, "422"},
		"a status without an example":      {`        "422":`, "        \"410\":\n          description: Never.\n        \"422\":", "410"},
		"two values that differ":           {"refresh-token-2", "refresh-token-1", "refresh-token-1"},
		"two values that are equal":        {"id: 7d5c0a2c49f14f0b8b5f3f6d0c9be6a1", "id: 0", "id"},
		"a member of another type":         {"expiresIn:\n          type: integer", "expiresIn:\n          type: string", "got number, want string"},
		"another Cache-Control":            {"const: no-store", "const: no-cache", "no-cache"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := committed(t)
			bad := strings.ReplaceAll(good, c.old, c.new)
			if bad == good {
				t.Fatalf("the document has no %q", c.old)
			}
			if got := strings.Join(replay(t, start(t, "RATE_LIMIT=off"), bad), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want a difference with %q", got, c.want)
			}
		})
	}
}

// Repeated sign-ups and sign-ins exceed their rate limits. The test compares the response, the
// policy and the times with the document. The same code documents the limit of refresh. It is
// not tested, because a slow machine cannot send more than 20 requests per second.
func TestReplay_RateLimits(t *testing.T) {
	good := committed(t)
	p := newPlayer(t, start(t, "RATE_LIMIT=on"), good)
	p.play("/api/users/signup", "/api/users/signin") // further examples change the passwords
	results := map[string]result{}
	p.limited(func(at, method, path string, o operation, _ response) {
		results[at] = p.untilLimited(at, method, path, o)
	})
	if len(results) != 2 {
		t.Errorf("got %d documented limits, want those of sign-up and sign-in", len(results))
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"no change":              {"", "", ""},
		"another message":        {"message: Too many requests.", "message: Too many tries.", "Too many tries."},
		"another quota":          {`"signin";q=1000`, `"signin";q=99`, "q=99"},
		"another window":         {`"signup";q=60;w=600`, `"signup";q=60;w=60`, "w=60"},
		"an undocumented header": {"            RateLimit:\n              $ref: '#/components/headers/RateLimit'\n", "", "has the undocumented header Ratelimit"},
		"two different times":    {`"signup";r=0;t=300`, `"signup";r=0;t=299`, "t=299"},
	} {
		bad := strings.ReplaceAll(good, c.old, c.new)
		if bad == good && c.want != "" {
			t.Fatalf("the document has no %q", c.old)
		}
		q := newPlayer(t, p.url, bad)
		q.limited(func(at, _, _ string, _ operation, r response) { q.compareLimited(at, r, results[at]) })
		if got := strings.Join(q.found, "\n"); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: got the differences %q, want %q", name, got, c.want)
		}
	}
}

// limited calls f with sign-up and sign-in and their documented response 429, if they have
// one.
func (p *player) limited(f func(at, method, path string, o operation, r response)) {
	pairs(p.T, p.paths, func(path string, item yaml.Node) {
		pairs(p.T, item, func(method string, o operation) {
			pairs(p.T, o.Responses, func(status string, r response) {
				if status == "429" && strings.HasPrefix(path, "/api/users/sign") {
					f(strings.ToUpper(method)+" "+path+" "+status, strings.ToUpper(method), path, o, r)
				}
			})
		})
	})
}

// untilLimited sends the requests of an operation in turn until a response is 429. Not all
// requests count toward the limit.
func (p *player) untilLimited(at, method, path string, o operation) result {
	var limited *result
	for range 1000 { // far above the limits, even if a window ends in between
		pairs(p.T, o.RequestBody.Content["application/json"].Examples, func(name string, _ example) {
			if limited != nil {
				return
			}
			request, body, _ := p.request(method, path, name, o, example{})
			if got := p.send(request, body); got.StatusCode == http.StatusTooManyRequests {
				limited = &got
			}
		})
		if limited != nil {
			return *limited
		}
	}
	p.Fatalf("%s: got no 429 in 1000 rounds", at)
	return result{}
}

// compareLimited compares a response 429 of an address limit with its example, except for the
// time to wait. The tests of the functions compare that of the account limit.
func (p *player) compareLimited(at string, r response, got result) {
	pairs(p.T, r.Content["application/json"].Examples, func(name string, x example) {
		if name != "address-limit" {
			return
		}
		documented, wait := x.Headers["Retry-After"], got.Header.Get("Retry-After")
		x.Headers["Retry-After"] = wait
		x.Headers["RateLimit"] = strings.Replace(x.Headers["RateLimit"], "t="+documented, "t="+wait, 1)
		got.Body = io.NopCloser(strings.NewReader(got.body)) // the body may have been read
		p.compare(at+" "+name, "429", r, r.Content["application/json"].Schema, x, got, false)
	})
}

// A document holds the parts of the reference that a replay reads.
type (
	document struct {
		Paths      yaml.Node // in order
		Components struct{ Schemas map[string]*schema }
	}
	operation struct {
		RequestBody *struct{ Content map[string]mediaType } `yaml:"requestBody"`
		Responses   yaml.Node
	}
	response struct {
		Headers map[string]any
		Content map[string]mediaType
	}
	mediaType struct {
		Schema   *schema
		Examples yaml.Node
	}
	example struct {
		Request struct {
			Method  string
			Headers map[string]string
			Body    string
			Length  int
		} `yaml:"x-request"`
		Headers map[string]string `yaml:"x-headers"`
		Value   any
	}
	schema struct {
		Ref        string `yaml:"$ref"`
		Items      *schema
		Properties map[string]*schema
		AnyOf      []*schema `yaml:"anyOf"`
		Opaque     bool      `yaml:"x-opaque"`
		Format     string
	}
)

// mediaType returns the media type of a request body.
func (o operation) mediaType() string {
	if o.RequestBody != nil {
		for mediaType := range o.RequestBody.Content {
			return mediaType
		}
	}
	return "application/json"
}

// pairs calls f with each key and value of a mapping, in order.
func pairs[T any](t *testing.T, mapping yaml.Node, f func(string, T)) {
	t.Helper()
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		var value T
		if err := mapping.Content[i+1].Decode(&value); err != nil {
			t.Fatalf("%s: %v", mapping.Content[i].Value, err)
		}
		f(mapping.Content[i].Value, value)
	}
}

// A player replays a document against a running system.
type player struct {
	*testing.T
	url       string
	paths     yaml.Node
	schemas   map[string]*schema
	judge     validator.Validator
	actual    map[string]string // the generated values, by documented opaque value
	document  map[string]string // the reverse
	exercised map[string]bool
	found     []string
}

// replay sends every example of a document, in order, and returns the differences.
func replay(t *testing.T, url, text string) []string {
	t.Helper()
	p := newPlayer(t, url, text)
	p.play()
	return p.found
}

func newPlayer(t *testing.T, url, text string) *player {
	t.Helper()
	var d document
	if err := yaml.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	p := &player{T: t, url: url, paths: d.Paths, schemas: d.Components.Schemas, actual: map[string]string{}, document: map[string]string{}, exercised: map[string]bool{}}
	parsed, err := libopenapi.NewDocument([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	if p.judge, errs = validator.NewValidator(parsed); len(errs) > 0 {
		t.Fatal(errs)
	}
	return p
}

// play sends the examples of some paths, or of all.
func (p *player) play(only ...string) {
	pairs(p.T, p.paths, func(path string, item yaml.Node) {
		if len(only) > 0 && !slices.Contains(only, path) {
			return
		}
		operations := map[string]operation{}
		pairs(p.T, item, func(method string, o operation) {
			operations[method] = o
			if method == "head" {
				p.heads(path, operations["get"], o)
			} else {
				p.operation(strings.ToUpper(method), path, o)
			}
		})
	})
	pairs(p.T, p.paths, func(path string, item yaml.Node) {
		pairs(p.T, item, func(method string, o operation) {
			pairs(p.T, o.Responses, func(status string, _ response) {
				at := strings.ToUpper(method) + " " + path + " " + status
				if !p.exercised[at] && !testedElsewhere(status) && withoutJSON[at].test == "" {
					p.differs("%s is documented, but no example has it", at)
				}
			})
		})
	})
}

// testedElsewhere reports whether another test causes the status.
func testedElsewhere(status string) bool { return elsewhere[status].test != "" }

func (p *player) differs(format string, args ...any) {
	p.found = append(p.found, fmt.Sprintf(format, args...))
}

func (p *player) operation(method, path string, o operation) {
	pairs(p.T, o.Responses, func(status string, r response) {
		content := r.Content["application/json"]
		if testedElsewhere(status) {
			return
		}
		pairs(p.T, content.Examples, func(name string, x example) {
			at := method + " " + path + " " + status
			p.exercised[at] = true
			request, body, described := p.request(method, path, name, o, x)
			p.compare(at+" "+name, status, r, content.Schema, x, p.send(request, body), described)
		})
	})
}

// heads sends the examples of GET with HEAD. The responses must be equal except for the body.
func (p *player) heads(path string, o, head operation) {
	responses := map[string]response{}
	pairs(p.T, head.Responses, func(status string, r response) { responses[status] = r })
	pairs(p.T, o.Responses, func(status string, r response) {
		if testedElsewhere(status) {
			return
		}
		pairs(p.T, r.Content["application/json"].Examples, func(name string, x example) {
			at := "HEAD " + path + " " + status
			request, body, _ := p.request(http.MethodHead, path, name, o, x)
			got := p.send(request, body)
			p.exercised[at] = true
			p.headers(at+" "+name, status, responses[status], x, got)
			if request.Method == http.MethodHead && got.body != "" {
				p.differs("%s %s has a body: %s", at, name, got.body)
			}
		})
	})
}

// request returns the request of an example. described reports whether the request is valid by
// the document.
func (p *player) request(method, path, name string, o operation, x example) (r *http.Request, body string, described bool) {
	body, described = x.Request.Body, x.Request.Body == "" && x.Request.Method == ""
	if o.RequestBody != nil && body == "" {
		pairs(p.T, o.RequestBody.Content[o.mediaType()].Examples, func(other string, sent example) {
			if other != name {
				return
			}
			body = p.json(sent.Value)
			if o.mediaType() == "application/x-www-form-urlencoded" {
				form := url.Values{}
				for member, value := range sent.Value.(map[string]any) {
					form.Set(member, value.(string))
				}
				body = form.Encode()
			}
		})
	}
	p.readMails(body)
	replacer := strings.NewReplacer(p.replacements()...)
	body = replacer.Replace(body)
	body += strings.Repeat(" ", max(0, x.Request.Length-len(body)))
	if x.Request.Method != "" {
		method = x.Request.Method
	}
	path = strings.ReplaceAll(path, "{id}", "unknown")
	r, err := http.NewRequestWithContext(p.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	r.Header.Set("User-Agent", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36")
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	if body != "" {
		r.Header.Set("Content-Type", o.mediaType())
	}
	for header, value := range x.Request.Headers {
		r.Header.Set(header, replacer.Replace(value))
	}
	return r, body, described
}

// link matches the link of a mail.
var link = regexp.MustCompile(`/confirm/([a-z]+)#(\S+)`)

// readMails reads the tokens of a documented body in the mails of the system, and waits for the mails.
func (p *player) readMails(body string) {
	for documented, mail := range mailed {
		if !strings.Contains(body, documented) {
			continue
		}
		for p.actual[documented] == "" && p.Context().Err() == nil {
			var box struct{ Mails []struct{ To, Text string } }
			if err := json.Unmarshal([]byte(get(p.T, p.url+"/mail?format=json")), &box); err != nil {
				p.Fatal(err)
			}
			for _, m := range box.Mails {
				if found := link.FindStringSubmatch(m.Text); m.To == mail.to && found != nil && found[1] == mail.purpose {
					p.actual[documented] = found[2]
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (p *player) replacements() (pairs []string) {
	for _, documented := range slices.Backward(slices.Sorted(maps.Keys(p.actual))) { // a longer value before its own prefix
		pairs = append(pairs, documented, p.actual[documented])
	}
	return pairs
}

func (p *player) json(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		p.Fatal(err)
	}
	return string(b)
}

// A result is a response with its request.
type result struct {
	*http.Response
	body string
	to   *http.Request // with a readable body
}

func (p *player) send(r *http.Request, body string) result {
	client := &http.Client{Timeout: 10 * time.Second}
	got, err := client.Do(r)
	if err != nil {
		p.Fatal(err)
	}
	defer got.Body.Close()
	read, err := io.ReadAll(got.Body)
	if err != nil {
		p.Fatal(err)
	}
	r.Body = io.NopCloser(strings.NewReader(body))
	got.Body = io.NopCloser(bytes.NewReader(read))
	return result{got, string(read), r}
}

func (p *player) compare(at, status string, r response, s *schema, x example, got result, described bool) {
	p.headers(at, status, r, x, got)
	var have any
	if err := json.Unmarshal([]byte(got.body), &have); err != nil {
		p.differs("%s: %s: %v", at, got.body, err)
		return
	}
	p.value(at+" body", s, x.Value, have)
	if got.StatusCode < 300 && described {
		if ok, errs := p.judge.ValidateHttpRequest(got.to); !ok {
			p.differs("%s: the request does not match the document: %s", at, strings.Join(messages(errs), "; "))
		}
	}
	if x.Request.Method == "" {
		if ok, errs := p.judge.ValidateHttpResponse(got.to, got.Response); !ok {
			p.differs("%s: the response does not match the document: %s", at, strings.Join(messages(errs), "; "))
		}
	}
}

// headers compares the status and all headers. An undocumented header is a difference.
func (p *player) headers(at, status string, r response, x example, got result) {
	if strconv.Itoa(got.StatusCode) != status {
		p.differs("%s: got %d %s", at, got.StatusCode, got.body)
	}
	have := got.Header.Clone()
	if media := have.Get("Content-Type"); media != "application/json" {
		p.differs("%s: got the media type %s, want application/json", at, media)
	}
	for _, transport := range []string{"Content-Type", "Content-Length", "Date", "Connection"} {
		have.Del(transport)
	}
	for name := range r.Headers {
		if have.Get(name) == "" {
			p.differs("%s has no %s", at, name)
		}
		if want, documented := x.Headers[name]; documented && have.Get(name) != want {
			p.differs("%s: got the header %s %q, want %q", at, name, have.Get(name), want)
		}
		have.Del(name)
	}
	for name := range have {
		p.differs("%s has the undocumented header %s", at, name)
	}
}

// value compares a value with an example. Opaque values must be equal exactly if the documented
// values are equal.
func (p *player) value(at string, s *schema, want, have any) {
	switch s = p.resolve(s, want); want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		if !ok {
			p.differs("%s: got %v, want an object", at, have)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if _, found := have[name]; !found {
				p.differs("%s has no %s", at, name)
				continue
			}
			p.value(at+"."+name, s.Properties[name], want[name], have[name])
		}
		for name := range have {
			if _, documented := want[name]; !documented {
				p.differs("%s has the undocumented member %s", at, name)
			}
		}
	case []any:
		have, ok := have.([]any)
		if !ok || len(have) != len(want) {
			p.differs("%s: got %v, want %v", at, have, want)
			return
		}
		p.arrange(want, have)
		for i := range want {
			p.value(fmt.Sprintf("%s[%d]", at, i), s.Items, want[i], have[i])
		}
	default:
		if s.Format == "unix-time" {
			if seconds, is := have.(float64); !is || math.Abs(time.Since(time.Unix(int64(seconds), 0)).Hours()) > 1 {
				p.differs("%s: got %v, want a time within the last hour", at, have)
			}
		} else if s.Format == "date-time" {
			if when, err := time.Parse(time.RFC3339, fmt.Sprint(have)); err != nil || math.Abs((time.Since(when)-now.Sub(parsed(want))).Hours()) > 1 {
				p.differs("%s: got %v, want the time of the example, %v after the present", at, have, parsed(want).Sub(now))
			}
		} else if s.Opaque {
			p.opaque(at, want, have)
		} else if p.json(want) != p.json(have) {
			p.differs("%s: got %v, want %v", at, have, want)
		}
	}
}

// now is the present in the examples.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func parsed(v any) time.Time {
	at, _ := time.Parse(time.RFC3339, fmt.Sprint(v))
	return at
}

// arrange moves the strings that the replay knows to the places of their documented values. An array of
// opaque values has no order.
func (p *player) arrange(want, have []any) {
	for i, documented := range want {
		text, _ := documented.(string)
		if actual, known := p.actual[text]; known {
			if k := slices.IndexFunc(have, func(v any) bool { return v == any(actual) }); k >= 0 {
				have[i], have[k] = have[k], have[i]
			}
		}
	}
}

func (p *player) opaque(at string, want, have any) {
	documented, ok := want.(string)
	actual, is := have.(string)
	if !ok || !is || actual == "" {
		p.differs("%s: got %v, want %v", at, have, want)
		return
	}
	earlier, known := p.actual[documented]
	earlierDocumented, seen := p.document[actual]
	if known && earlier != actual || seen && earlierDocumented != documented {
		p.differs("%s: got %q for %q; earlier, the response had %q for it, and the document %q", at, actual, documented, earlier, earlierDocumented)
		return
	}
	p.actual[documented], p.document[actual] = actual, documented
}

// resolve follows references. Of two alternatives, it returns the one that is not null.
func (p *player) resolve(s *schema, value any) *schema {
	switch {
	case s == nil:
		return &schema{}
	case s.Ref != "":
		return p.resolve(p.schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")], value)
	case len(s.AnyOf) > 0 && value != nil:
		return p.resolve(s.AnyOf[0], value)
	}
	return s
}

// Every example has a value for each of its headers, so that the replay compares all of them.
func TestExamples_HaveAllHeaders(t *testing.T) {
	var d document
	if err := yaml.Unmarshal([]byte(committed(t)), &d); err != nil {
		t.Fatal(err)
	}
	pairs(t, d.Paths, func(path string, item yaml.Node) {
		pairs(t, item, func(method string, o operation) {
			pairs(t, o.Responses, func(status string, r response) {
				pairs(t, r.Content["application/json"].Examples, func(name string, x example) {
					for _, header := range []string{"WWW-Authenticate", "Retry-After", "RateLimit", "RateLimit-Policy", "Allow"} {
						if _, has := r.Headers[header]; has != (x.Headers[header] != "") {
							t.Errorf("%s %s %s %s: the example has the value %[6]q of %[5]s, want a value if and only if the response has the header", method, path, status, name, header, x.Headers[header])
						}
					}
				})
			})
		})
	})
}
