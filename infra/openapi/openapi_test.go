package openapi

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"testing"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/identity"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/reference"
)

func TestExamples_BelongToOperations(t *testing.T) {
	operations := map[string]bool{}
	for _, f := range catalog.Functions() {
		for _, e := range f.Endpoints {
			operations[cmp.Or(e.ID, f.Name)] = true
		}
	}
	for id := range examples() {
		if !operations[id] {
			t.Errorf("examples.go has examples of %s, but no operation has this id", id)
		}
	}
}

type question struct {
	Text string `json:"text"`
	Page *int   `json:"page"`
}

func (question) Members() []reference.Member {
	return []reference.Member{{Name: "text", MaxLength: 7, About: "The text of the question."}}
}

type reply struct {
	Texts []string `json:"texts"`
	Next  *hint    `json:"next"`
	Note  string   `json:"note,omitzero"`
	Done  bool     `json:"done"`
}

type hint struct {
	Page int `json:"page"`
}

func define[In, Out any](spec endpoint.Spec, needs ...endpoint.Need) endpoint.Function {
	return endpoint.Function{Name: "search", Needs: needs, Endpoints: []endpoint.Endpoint{endpoint.Define(spec,
		func(*config.Config) struct{} { return struct{}{} },
		func(struct{}, context.Context, In) (out Out, err error) { return out, nil })}}
}

func spec(method, path string, access endpoint.Access) endpoint.Spec {
	return endpoint.Spec{Method: method, Path: path, Access: access, Success: http.StatusOK, Summary: "Search."}
}

func TestDocument_FunctionWithoutExamples(t *testing.T) {
	s := spec("POST", "/search", endpoint.Public)
	s.Refuses = []apierror.Kind{apierror.Forbidden}
	got, err := Document([]endpoint.Function{define[question, reply](s)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  /search:\n    post:\n      operationId: search\n      tags: [auth]\n      summary: Search.\n      security: []\n      requestBody:\n",
		"    question:\n      type: object\n      required: [text]\n      properties:\n" +
			"        text:\n          type: string\n          description: The text of the question.\n          maxLength: 7\n        page:\n          type: integer\n",
		"    reply:\n      type: object\n      required: [texts, next, done]\n      properties:\n" +
			"        texts:\n          type: array\n          items:\n            type: string\n" +
			"        next:\n          anyOf:\n            - $ref: '#/components/schemas/hint'\n            - type: \"null\"\n" +
			"        note:\n          type: string\n        done:\n          type: boolean\n",
		"                      - message: text is missing.\n                        field: text\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the document does not contain\n%s", want)
		}
	}
	if have := statuses(string(got)); have != "200 400 403 405 413 415 500" {
		t.Errorf("got the statuses %s, want 200 400 403 405 413 415 500", have)
	}
}

func TestDocument_StatusesFollowFromInput(t *testing.T) {
	for name, c := range map[string]struct {
		function endpoint.Function
		statuses string
		security string
	}{
		"no input":                      {define[endpoint.None, hint](spec("GET", "/search", endpoint.Public)), "200 405 500", "security: []\n"},
		"a token":                       {define[struct{ identity.Required }, hint](spec("POST", "/search", endpoint.Required), accesstoken.Verifying), "200 401 405 415 500", "security: [{bearer: []}]\n"},
		"an optional token":             {define[struct{ identity.Optional }, hint](spec("GET", "/search", endpoint.Optional), accesstoken.Verifying), "200 401 405 500", "security: [{}, {bearer: []}]\n"},
		"a body and an Idempotency-Key": {define[keyed, hint](spec("POST", "/search", endpoint.Public)), "200 400 405 413 415 422 500", "security: []\n"},
	} {
		got, err := Document([]endpoint.Function{c.function})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		document, head, _ := strings.Cut(string(got), "    head:\n")
		if have := statuses(document); have != c.statuses || !strings.Contains(document, c.security) {
			t.Errorf("%s: got the statuses %s, want %s and %s", name, have, c.statuses, c.security)
		}
		if get := c.function.Endpoints[0].Method == "GET"; get != (head != "") || get && statuses(head) != c.statuses || strings.Contains(head, "content:") {
			t.Errorf("%s: got the HEAD operation %q, want it for GET only, with the statuses %s and no content", name, head, c.statuses)
		}
	}
}

type keyed struct {
	endpoint.Keyed
	Text string `json:"text"`
}

func TestDocument_RateLimitedFunction(t *testing.T) {
	limited := func(name string) endpoint.Function {
		f := define[question, hint](spec("POST", "/search", endpoint.Public), ratelimit.Counting())
		f.Endpoints[0] = endpoint.LimitRequests(f.Endpoints[0], endpoint.Limit{Name: name})
		return f
	}
	got, err := Document([]endpoint.Function{limited("signin")})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"                    RateLimit: '\"signin\";r=0;t=150'\n                    RateLimit-Policy: '\"signin\";q=1000;w=300'\n                    Retry-After: \"150\"\n",
		"            RateLimit:\n              $ref: '#/components/headers/RateLimit'\n",
		"                      - message: Too many requests. Try again later.\n",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the document does not contain\n%s", want)
		}
	}
	if _, err := Document([]endpoint.Function{limited("search")}); err == nil || err.Error() != `search: package ratelimit has no limit "search"` {
		t.Errorf("a limit that does not exist: got the error %v", err)
	}
}

func statuses(document string) string {
	var all []string
	for line := range strings.Lines(document) {
		if status, ok := strings.CutPrefix(line, `        "`); ok {
			all = append(all, strings.TrimSuffix(status, "\":\n"))
		}
	}
	return strings.Join(all, " ")
}

type wrong struct {
	Text string `json:"text"`
}

func (wrong) Members() []reference.Member { return []reference.Member{{Name: "txt"}} }

func TestDocument_ErrorNamesFunctionAndType(t *testing.T) {
	type unnamed struct{ Text string }
	type odd struct {
		Size complex64 `json:"size"`
	}
	search := func(path string) endpoint.Spec { return spec("GET", path, endpoint.Public) }
	first := define[endpoint.None, hint](search("/search"))
	type hint struct { // the name of another type
		Text string `json:"text"`
	}
	for want, functions := range map[string][]endpoint.Function{
		"describes the member txt, but has no such member": {define[endpoint.None, wrong](search("/search"))},
		"has no JSON name for its field Text":              {define[endpoint.None, unnamed](search("/search"))},
		"size of openapi.odd: a member of type complex64":  {define[endpoint.None, odd](search("/search"))},
		"have the same name in the reference: hint":        {first, define[endpoint.None, hint](search("/hint"))},
	} {
		_, err := Document(functions)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "search: ") {
			t.Errorf("got the error %v, want one about search with %q", err, want)
		}
	}
}
