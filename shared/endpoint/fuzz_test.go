package endpoint_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
)

// A Color parses itself.
type Color string

func (c *Color) UnmarshalText(text []byte) error {
	if len(text) != 7 || text[0] != '#' {
		return errors.New("no color: " + string(text))
	}
	*c = Color(text)
	return nil
}

type (
	// A plan has a member of every kind, some with large bounds.
	plan struct {
		Name     string                  `json:"name" min:"1" max:"1000"`
		Color    Color                   `json:"color"`
		Colors   []Color                 `json:"colors" max:"200"`
		At       time.Time               `json:"at"`
		Ends     *time.Time              `json:"ends"`
		Times    []time.Time             `json:"times" max:"100"`
		Big      int64                   `json:"big" min:"-9007199254740991" max:"9007199254740991"`
		Ratio    float64                 `json:"ratio" min:"-1e300" max:"1e300"`
		Open     bool                    `json:"open"`
		Rows     []row                   `json:"rows" max:"100"`
		Center   *point                  `json:"center"`
		Note     endpoint.Patch[string]  `json:"note" max:"2000"`
		Limit    endpoint.Patch[int]     `json:"limit" min:"0" max:"1000000"`
		Position endpoint.Patch[point]   `json:"position"`
		Labels   endpoint.Patch[[]Color] `json:"labels" max:"100"`
	}
	row struct {
		Seats []point `json:"seats" max:"100"`
		Label *string `json:"label" max:"500"`
	}
	point struct {
		X int     `json:"x" min:"-1000000" max:"1000000"`
		Y float64 `json:"y" min:"-1e9" max:"1e9"`
	}
)

const goodPlan = `{"name":"hall","color":"#a0b1c2","colors":["#000000"],"at":"2026-01-02T03:04:05Z","times":["2026-01-02T03:04:05.678+02:00"],` +
	`"big":9007199254740991,"ratio":-1e299,"open":true,"rows":[{"seats":[{"x":1,"y":2.5}],"label":"A"}],"center":{"x":-1,"y":0},` +
	`"note":null,"limit":7,"position":{"x":0,"y":1},"labels":["#ffffff"]}`

// maxAnswer bounds an error response. The limit of an input is 16 KiB, and a response must not
// amplify it.
const maxAnswer = 32 << 10

// checkAnswer fails the test unless an answer is a success, or an error in the API's format that
// has no cause in its text and none of the marked parts of the input.
func checkAnswer(t *testing.T, input string, got endpoint.Response) {
	t.Helper()
	if got.Status == http.StatusOK {
		return
	}
	if got.Status != http.StatusBadRequest || len(got.Body) > maxAnswer {
		t.Fatalf("%.200q: got %d and %d bytes, want 400 and at most %d", input, got.Status, len(got.Body), maxAnswer)
	}
	var errs apierror.Errors
	if err := json.Unmarshal(got.Body, &errs, json.RejectUnknownMembers(true)); err != nil || len(errs.Errors) == 0 {
		t.Fatalf("%.200q: got %s (%v), want the format of errors", input, got.Body, err)
	}
	for _, e := range errs.Errors {
		if e.Message == "" || strings.Contains(e.Message, marker) || strings.Contains(e.Field, marker) {
			t.Errorf("%.200q: got the message %q for %q, want one without the input", input, e.Message, e.Field)
		}
	}
}

// marker is a text that the fuzz targets put into each part of their input. It is no part of a
// message.
const marker = "qZ7"

// mark replaces a part of the input at an offset with the marker, so that each part is marked
// in some input.
func mark(input string, at uint16) string {
	if len(input) < len(marker) {
		return input + marker
	}
	i := int(at) % (len(input) - len(marker) + 1)
	return input[:i] + marker + input[i+len(marker):]
}

func FuzzInvoke_Body(f *testing.F) {
	for _, seed := range []string{goodPlan, `{}`, `[]`, `{"name":7,"color":{},"colors":"x","at":1,"times":[1],"big":"1","ratio":"1","open":1,"rows":{},"center":[],"note":1,"limit":"1","position":1,"labels":[[]]}`,
		`{"rows":[` + strings.Repeat(`{},`, 99) + `{}]}`, `{"rows":[` + strings.Repeat(`{"seats":[{},{}],"label":""},`, 40) + `{}]}`,
		`{"colors":[` + strings.Repeat(`"x",`, 199) + `""]}`, `{"rows":[` + strings.Repeat(`["a",[],{}],`, 49) + `[]]}`, `{"times":[` + strings.Repeat(`"0000-00-00T00:00:00Z",`, 99) + `""]}`,
		strings.Repeat(`{"center":`, 2000), `{"labels":[` + strings.Repeat(`null,`, 1000) + `1]}`, `{"big":1e400,"ratio":-1e400,"limit":1.5}`} {
		for _, at := range []uint16{0, 1, 9, 40, 160, 301} {
			f.Add(seed, at)
		}
	}
	s := endpoint.Spec{Method: "POST", Path: "/plans", Access: endpoint.Public, Success: 200}
	var valid bool
	bound, log := bind(s, func(_ context.Context, in plan) (string, error) {
		n := len([]rune(in.Name))
		valid = n >= 1 && n <= 1000 && len(in.Color) == 7 && len(in.Colors) <= 200 && len(in.Times) <= 100 && len(in.Rows) <= 100 &&
			in.Ratio >= -1e300 && in.Ratio <= 1e300 && (in.Limit.Value == nil || *in.Limit.Value >= 0) && (in.Center == nil || in.Center.X <= 1000000)
		for _, r := range in.Rows {
			valid = valid && len(r.Seats) <= 100
		}
		return "", nil
	})
	if got := bound.Invoke(f.Context(), request(goodPlan)); got.Status != http.StatusOK {
		f.Fatalf("got %d %s for a valid input, want 200", got.Status, got.Body)
	}
	f.Fuzz(func(t *testing.T, body string, at uint16) {
		valid = true
		log.Reset()
		for _, input := range []string{body, mark(body, at)} {
			if len(input) > endpoint.MaxBody {
				continue // 413 without a look at the body
			}
			got := bound.Invoke(t.Context(), &endpoint.Request{ContentType: []string{"application/json"}, Length: int64(len(input)), Body: strings.NewReader(input)})
			if checkAnswer(t, input, got); !valid {
				t.Errorf("%.200q: the handler got an input outside its bounds", input)
			}
		}
	})
}

func FuzzInvoke_PathAndQuery(f *testing.F) {
	type input struct {
		ID    string     `path:"id"`
		Text  *string    `query:"text" max:"1000"`
		Limit *int       `query:"limit" min:"1" max:"1000000"`
		Price *float64   `query:"price" min:"-1e300" max:"1e300"`
		Since *time.Time `query:"since"`
		Color *Color     `query:"color"`
		Open  *bool      `query:"open"`
	}
	for _, seed := range []string{"", "text=a&limit=5&price=1.5&since=2026-01-02T03:04:05Z&color=%23a0b1c2&open=true", "text=%", "text=a&text=b", "limit=1e2", "price=1e400", "since=2026-01-02t03:04:05z",
		"open=1&color=red&since=x&price=x&limit=x", strings.Repeat("a&", 4000), "text=%00", "text=%ff", "text=a;limit=1", "text=" + strings.Repeat("%C3%A9", 1001), "limit=1" + strings.Repeat("0", 5000)} {
		for _, at := range []uint16{0, 2, 5, 17, 44} {
			f.Add(seed, at)
		}
	}
	s := endpoint.Spec{Method: "GET", Path: "/plans/{id}", Access: endpoint.Public, Success: 200}
	var valid bool
	bound, log := bind(s, func(_ context.Context, in input) (string, error) {
		valid = in.ID == "t-1" && (in.Text == nil || len([]rune(*in.Text)) <= 1000) && (in.Limit == nil || *in.Limit >= 1 && *in.Limit <= 1000000) && (in.Color == nil || len(*in.Color) == 7)
		return "", nil
	})
	f.Fuzz(func(t *testing.T, query string, at uint16) {
		valid = true
		log.Reset()
		for _, q := range []string{query, mark(query, at)} {
			if checkAnswer(t, q, bound.Invoke(t.Context(), &endpoint.Request{Param: "t-1", Query: q})); !valid {
				t.Errorf("%.200q: the handler got an input outside its bounds", q)
			}
		}
	})
}

func FuzzInvoke_Headers(f *testing.F) {
	type input struct {
		endpoint.Keyed
		endpoint.Agent
		endpoint.Language
		Name string `json:"name" max:"10"`
	}
	for _, seed := range []string{"", `"order-7"`, "a,b", strings.Repeat("x", 256), "\x00", "\u00e9", `"\"`} {
		f.Add(seed, "de, en;q=0.5", "curl/8")
	}
	s := endpoint.Spec{Method: "POST", Path: "/plans", Access: endpoint.Public, Success: 200}
	var valid bool
	bound, log := bind(s, func(_ context.Context, in input) (string, error) {
		valid = len(in.Key) == 32 && len(in.UserAgent) <= endpoint.MaxAgent && len(in.AcceptLanguage) <= endpoint.MaxAgent
		return "", nil
	})
	f.Fuzz(func(t *testing.T, key, language, agent string) {
		valid = true
		log.Reset()
		for _, k := range []string{key, mark(key, uint16(len(agent)))} {
			got := bound.Invoke(t.Context(), &endpoint.Request{ContentType: []string{"application/json"}, Length: 12, Body: strings.NewReader(`{"name":"x"}`),
				IdempotencyKey: []string{k}, AcceptLanguage: []string{language}, UserAgent: agent})
			if checkAnswer(t, k, got); !valid {
				t.Errorf("%q %q %q: the handler got an input outside its bounds", k, language, agent)
			}
		}
	})
}
