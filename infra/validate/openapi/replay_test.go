package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"go.yaml.in/yaml/v3"
)

// elsewhere are the statuses that nobody can ask for with one request, and the tests
// that force them.
var elsewhere = map[string]struct{ file, test string }{
	"429": {"infra/validate/openapi/replay_test.go", "TestWhoGoesOnIsRefusedAsDocumented"},
	"500": {"shared/endpoint/endpoint_test.go", "TestInvokeNeverFails"},
	"503": {"infra/test/e2e/functions_test.go", "TestADatabaseThatIsAwayGives503UntilItIsBack"},
}

func TestEveryExampleIsWhatTheSystemAnswers(t *testing.T) {
	url := start(t, "RATE_LIMIT=off")
	served := get(t, url+"/openapi.yaml")
	if served != committed(t) {
		t.Fatal("the local runner serves another document than the committed one")
	}
	for _, difference := range replay(t, url, served) {
		t.Error(difference)
	}
}

func TestWhatIsForcedElsewhereIs(t *testing.T) {
	for status, by := range elsewhere {
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(by.file)))
		if err != nil || !strings.Contains(string(source), "\nfunc "+by.test+"(") {
			t.Errorf("%s has no %s, which is to force %s: %v", by.file, by.test, status, err)
		}
	}
}

// What a replay lets pass is known by what it notices.
func TestAReplayNotices(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"another message":                      {"message: Signed out.", "message: Good-bye.", "Good-bye."},
		"another member":                       {"currentUser: null", "currentUser: null\n                    since: 1", "since"},
		"a member too many":                    {"                    expiresIn: 900\n", "", "expiresIn"},
		"another number":                       {"expiresIn: 900", "expiresIn: 901", "901"},
		"another challenge":                    {"WWW-Authenticate: Bearer\n", "WWW-Authenticate: Bearer error=\"invalid_token\"\n", "WWW-Authenticate"},
		"a header that is not described":       {"            WWW-Authenticate:\n              $ref: '#/components/headers/Challenge'\n", "", "Www-Authenticate"},
		"a header that is described only":      {"            X-Content-Type-Options:\n", "            X-Powered-By:\n              $ref: '#/components/headers/NoSniff'\n            X-Content-Type-Options:\n", "X-Powered-By"},
		"a status that never comes":            {`        "422":`, `        "409":`, "422"},
		"a status that is never asked for":     {`        "422":`, "        \"403\":\n          description: Never.\n        \"422\":", "403"},
		"a value that should be another":       {"refresh-token-2", "refresh-token-1", "refresh-token-1"},
		"a value that should be the same":      {"id: 7d5c0a2c49f14f0b8b5f3f6d0c9be6a1", "id: 0", "id"},
		"a member of another type":             {"expiresIn:\n          type: integer", "expiresIn:\n          type: string", "got number, want string"},
		"a document that lets a cache keep it": {"const: no-store", "const: no-cache", "no-cache"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := committed(t)
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("the document has no %q", c.old)
			}
			if said := strings.Join(replay(t, start(t, "RATE_LIMIT=off"), bad), "\n"); !strings.Contains(said, c.want) {
				t.Errorf("it says %q", said)
			}
		})
	}
}

// Whoever goes on signing up, or in, is refused in the end; then with the answer, the
// policy and the times that are documented. A refresh is documented by the same lines, and
// is not among them: its 20 a second are more than a slow machine can ask for.
func TestWhoGoesOnIsRefusedAsDocumented(t *testing.T) {
	good := committed(t)
	p := newPlayer(t, start(t, "RATE_LIMIT=on"), good)
	p.play()
	answers := map[string]answer{}
	p.limited(func(at, method, path string, o operation, _ response) { answers[at] = p.goOn(at, method, path, o) })
	if len(answers) != 2 {
		t.Errorf("sign-ups and sign-ins have limits, and %d are documented", len(answers))
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"nothing is wrong":                {"", "", ""},
		"another message":                 {"message: Too many requests.", "message: Too many tries.", "Too many tries."},
		"another quota":                   {`"signin";q=1000`, `"signin";q=99`, "q=99"},
		"another window":                  {`"signup";q=60;w=600`, `"signup";q=60;w=60`, "w=60"},
		"a header that is not described":  {"            RateLimit:\n              $ref: '#/components/headers/RateLimit'\n", "", "has Ratelimit, which is not documented"},
		"two times that are not the same": {`"signup";r=0;t=300`, `"signup";r=0;t=299`, "t=299"},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good && c.want != "" {
			t.Fatalf("the document has no %q", c.old)
		}
		q := newPlayer(t, p.url, bad)
		q.limited(func(at, _, _ string, _ operation, r response) { q.refused(at, r, answers[at]) })
		if said := strings.Join(q.found, "\n"); !strings.Contains(said, c.want) || c.want == "" && said != "" {
			t.Errorf("%s: it says %q", name, said)
		}
	}
}

// limited calls f with sign-up and sign-in, if they have a limit, and what is answered
// then.
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

// goOn sends the requests of an operation in turn, since not all of them count, until one
// is refused.
func (p *player) goOn(at, method, path string, o operation) answer {
	var refused *answer
	for range 1000 { // far more than the limits let pass, also where a window ends in between
		pairs(p.T, o.RequestBody.Content["application/json"].Examples, func(name string, _ example) {
			if refused != nil {
				return
			}
			request, body, _ := p.request(method, path, name, o, example{})
			if got := p.send(request, body); got.StatusCode == http.StatusTooManyRequests {
				refused = &got
			}
		})
		if refused != nil {
			return *refused
		}
	}
	p.Fatalf("%s never comes", at)
	return answer{}
}

// refused compares what came at its own time with an example at another.
func (p *player) refused(at string, r response, got answer) {
	pairs(p.T, r.Content["application/json"].Examples, func(name string, x example) {
		documented, wait := x.Headers["Retry-After"], got.Header.Get("Retry-After")
		x.Headers["Retry-After"] = wait
		x.Headers["RateLimit"] = strings.Replace(x.Headers["RateLimit"], "t="+documented, "t="+wait, 1)
		got.Body = io.NopCloser(strings.NewReader(got.body)) // which may have been read
		p.compare(at+" "+name, "429", r, r.Content["application/json"].Schema, x, got, false)
	})
}

// A document is the part of the reference that a replay reads.
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
	}
)

// pairs calls f with each key of a mapping and its value, in their order.
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

// A player replays a document on a system.
type player struct {
	*testing.T
	url       string
	paths     yaml.Node
	schemas   map[string]*schema
	judge     validator.Validator
	stands    map[string]string // the documented opaque values, for what the system made
	made      map[string]string // the reverse
	exercised map[string]bool
	found     []string
}

// replay sends every example of a document, in its order, and returns what differs.
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
	p := &player{T: t, url: url, paths: d.Paths, schemas: d.Components.Schemas, stands: map[string]string{}, made: map[string]string{}, exercised: map[string]bool{}}
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

func (p *player) play() {
	pairs(p.T, p.paths, func(path string, item yaml.Node) {
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
				if !p.exercised[at] && !forced(status) {
					p.differs("%s is documented, and no example has it", at)
				}
			})
		})
	})
}

// forced tells whether a status is left to others.
func forced(status string) bool { return elsewhere[status].test != "" }

func (p *player) differs(format string, args ...any) {
	p.found = append(p.found, fmt.Sprintf(format, args...))
}

func (p *player) operation(method, path string, o operation) {
	pairs(p.T, o.Responses, func(status string, r response) {
		content := r.Content["application/json"]
		if forced(status) {
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

// heads sends the examples of GET with HEAD: all must be the same but the body.
func (p *player) heads(path string, o, head operation) {
	answers := map[string]response{}
	pairs(p.T, head.Responses, func(status string, r response) { answers[status] = r })
	pairs(p.T, o.Responses, func(status string, r response) {
		if forced(status) {
			return
		}
		pairs(p.T, r.Content["application/json"].Examples, func(name string, x example) {
			at := "HEAD " + path + " " + status
			request, body, _ := p.request(http.MethodHead, path, name, o, x)
			got := p.send(request, body)
			p.exercised[at] = true
			p.headers(at+" "+name, status, answers[status], x, got)
			if request.Method == http.MethodHead && got.body != "" {
				p.differs("%s %s has a body: %s", at, name, got.body)
			}
		})
	})
}

// request makes the request of an example. described tells whether the document itself
// says that one may send it.
func (p *player) request(method, path, name string, o operation, x example) (r *http.Request, body string, described bool) {
	body, described = x.Request.Body, x.Request.Body == "" && x.Request.Method == ""
	if o.RequestBody != nil && body == "" {
		pairs(p.T, o.RequestBody.Content["application/json"].Examples, func(other string, sent example) {
			if other == name {
				body = p.json(sent.Value)
			}
		})
	}
	standing := strings.NewReplacer(p.replacements()...)
	body = standing.Replace(body)
	body += strings.Repeat(" ", max(0, x.Request.Length-len(body)))
	if x.Request.Method != "" {
		method = x.Request.Method
	}
	r, err := http.NewRequestWithContext(p.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for header, value := range x.Request.Headers {
		r.Header.Set(header, standing.Replace(value))
	}
	return r, body, described
}

func (p *player) replacements() (pairs []string) {
	for _, documented := range slices.Backward(slices.Sorted(maps.Keys(p.stands))) { // a longer one before its beginning
		pairs = append(pairs, documented, p.stands[documented])
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

// An answer is what came back, and to what.
type answer struct {
	*http.Response
	body string
	to   *http.Request // to be read again
}

func (p *player) send(r *http.Request, body string) answer {
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
	return answer{got, string(read), r}
}

func (p *player) compare(at, status string, r response, s *schema, x example, got answer, described bool) {
	p.headers(at, status, r, x, got)
	var have any
	if err := json.Unmarshal([]byte(got.body), &have); err != nil {
		p.differs("%s: %s: %v", at, got.body, err)
		return
	}
	p.value(at+" body", s, x.Value, have)
	if got.StatusCode < 300 && described {
		if ok, errs := p.judge.ValidateHttpRequest(got.to); !ok {
			p.differs("%s: the document refuses the request: %s", at, strings.Join(told(errs), "; "))
		}
	}
	if x.Request.Method == "" {
		if ok, errs := p.judge.ValidateHttpResponse(got.to, got.Response); !ok {
			p.differs("%s: the document refuses the answer: %s", at, strings.Join(told(errs), "; "))
		}
	}
}

// headers compares the status, and all headers: one too many is a difference, too.
func (p *player) headers(at, status string, r response, x example, got answer) {
	if strconv.Itoa(got.StatusCode) != status {
		p.differs("%s is answered by %d %s", at, got.StatusCode, got.body)
	}
	have := got.Header.Clone()
	if media := have.Get("Content-Type"); media != "application/json" {
		p.differs("%s is %s", at, media)
	}
	for _, ofTheWire := range []string{"Content-Type", "Content-Length", "Date", "Connection"} {
		have.Del(ofTheWire)
	}
	for name := range r.Headers {
		if have.Get(name) == "" {
			p.differs("%s has no %s", at, name)
		}
		if want, said := x.Headers[name]; said && have.Get(name) != want {
			p.differs("%s: %s is %q, and documented is %q", at, name, have.Get(name), want)
		}
		have.Del(name)
	}
	for name := range have {
		p.differs("%s has %s, which is not documented", at, name)
	}
}

// value compares what came with an example. What the schema calls opaque must be new
// where the example has something new, and the same where it has the same.
func (p *player) value(at string, s *schema, want, have any) {
	switch s = p.resolve(s, want); want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		if !ok {
			p.differs("%s is no object: %v", at, have)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if _, there := have[name]; !there {
				p.differs("%s has no %s", at, name)
				continue
			}
			p.value(at+"."+name, s.Properties[name], want[name], have[name])
		}
		for name := range have {
			if _, documented := want[name]; !documented {
				p.differs("%s has %s, which is not documented", at, name)
			}
		}
	case []any:
		have, ok := have.([]any)
		if !ok || len(have) != len(want) {
			p.differs("%s is %v, and documented is %v", at, have, want)
			return
		}
		for i := range want {
			p.value(fmt.Sprintf("%s[%d]", at, i), s.Items, want[i], have[i])
		}
	default:
		if s.Opaque {
			p.opaque(at, want, have)
		} else if p.json(want) != p.json(have) {
			p.differs("%s is %v, and documented is %v", at, have, want)
		}
	}
}

func (p *player) opaque(at string, want, have any) {
	documented, ok := want.(string)
	made, is := have.(string)
	if !ok || !is || made == "" {
		p.differs("%s is %v, and documented is %v", at, have, want)
		return
	}
	stands, known := p.stands[documented]
	before, came := p.made[made]
	if known && stands != made || came && before != documented {
		p.differs("%s is %q, and %q stood for %q before", at, made, documented, stands)
		return
	}
	p.stands[documented], p.made[made] = made, documented
}

// resolve follows references, and of alternatives takes the one that can be meant.
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

// An example says what each of its headers is, so that none is compared loosely.
func TestAnExampleSaysWhatItsHeadersAre(t *testing.T) {
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
							t.Errorf("%s %s %s %s: %s is %q", method, path, status, name, header, x.Headers[header])
						}
					}
				})
			})
		})
	})
}
