package endpoint_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// Owner is an identity. It accepts every token.
type Owner struct{ Name string }

func (*Owner) Access() endpoint.Access { return endpoint.Required }

func (o *Owner) ReadPart(_ context.Context, r *endpoint.Request) (err error) {
	o.Name, err = r.Bearer()
	if err == nil && o.Name == "" {
		err = apierror.NoToken()
	}
	return err
}

// define declares an endpoint that returns its input, and returns the panic of Define.
func define[In, Out any](spec endpoint.Spec) (problem string) {
	defer func() {
		if p := recover(); p != nil {
			problem = p.(string)
		}
	}()
	endpoint.Define(spec, func(*config.Config) struct{} { return struct{}{} },
		func(_ struct{}, _ context.Context, _ In) (out Out, err error) { return out, nil })
	return ""
}

// Guest is another identity.
type Guest struct{ Name string }

func (*Guest) Access() endpoint.Access { return endpoint.Optional }

func (*Guest) ReadPart(context.Context, *endpoint.Request) error { return nil }

// Base is a Part with a member, which a request would not fill.
type Base struct {
	Owner
	Title string `json:"title"`
}

// Unit parses itself. Its error quotes the input.
type Unit string

func (*Unit) UnmarshalText(text []byte) error { return errors.New("no unit: " + string(text)) }

// Plain is no Part.
type Plain struct{ Name string }

type node struct {
	Next *node `json:"next"`
}

type venue struct {
	City string `json:"city"`
}

// A mistake in an input shows when the endpoint is defined.
func TestDefine_Rejects(t *testing.T) {
	post := endpoint.Spec{Method: "POST", Path: "/x", Access: endpoint.Public, Success: 200}
	get := endpoint.Spec{Method: "GET", Path: "/x", Access: endpoint.Public, Success: 200}
	with := func(s endpoint.Spec, change func(*endpoint.Spec)) endpoint.Spec { change(&s); return s }
	protected := with(post, func(s *endpoint.Spec) { s.Access = endpoint.Required })
	type titled struct {
		Title string `json:"title"`
	}
	for want, problem := range map[string]string{
		"it embeds endpoint_test.Plain, which is no exported endpoint.Part": define[struct {
			Plain
			Title string `json:"title"`
		}, string](post),
		"it embeds endpoint_test.titled, which is no exported":           define[struct{ titled }, string](post),
		"its Spec must set Access":                                       define[titled, string](with(post, func(s *endpoint.Spec) { s.Access = 0 })),
		"the identity that the input embeds differ: Required and Public": define[titled, string](protected),
		"the identity that the input embeds differ: Public and Required": define[struct {
			Owner
			Title string `json:"title"`
		}, string](post),
		"it embeds two identities": define[struct {
			Owner
			Guest
		}, string](protected),
		"the field Title of": define[struct{ Title string }, string](post),
		"a body is JSON or a form": define[struct {
			Title string `json:"title"`
			Token string `form:"token"`
		}, string](post),
		"another field has the form member a": define[struct {
			A string `form:"a"`
			B string `form:"a"`
		}, string](post),
		"a form cannot be []string": define[struct {
			A []string `form:"a" max:"3"`
		}, string](post),
		"has no tag json, path, query or form: it would stay empty": define[struct{ Title string }, string](post),
		"has the tags json and query": define[struct {
			Title string `json:"title" query:"title"`
		}, string](post),
		"its tag has no name": define[struct {
			Title string `json:",omitempty"`
		}, string](post),
		"the type chan int is not supported": define[struct {
			C chan int `json:"c"`
		}, string](post),
		"the type map[string]string is not supported": define[struct {
			M map[string]string `json:"m"`
		}, string](post),
		"contains itself": define[node, string](post),
		"an array needs the tag max": define[struct {
			All []string `json:"all"`
		}, string](post),
		"an array of arrays has no bound": define[struct {
			All [][]string `json:"all" max:"3"`
		}, string](post),
		"is not a bound of bool": define[struct {
			On bool `json:"on" max:"3"`
		}, string](post),
		`the tag min:"few" is not a bound`: define[struct {
			N int `json:"n" min:"few"`
		}, string](post),
		"has no tag json": define[struct {
			Venue struct{ City string } `json:"venue"`
		}, string](post),
		"the {name} in the path and the field": define[titled, string](with(post, func(s *endpoint.Spec) { s.Path = "/x/{id}" })),
		"must have the same name": define[struct {
			ID string `path:"id"`
		}, string](with(get, func(s *endpoint.Spec) { s.Path = "/x/{name}" })),
		"a Part has no fields of the input": define[struct {
			Base
			Seats int `json:"seats"`
		}, string](protected),
		"it is not exported": define[struct {
			title string `query:"title"`
		}, string](get),
		"another field has the query member a": define[struct {
			A string `query:"a"`
			B string `query:"a"`
		}, string](get),
		"only a Public GET endpoint has a MaxAge": define[struct{ Owner }, string](
			endpoint.Spec{Method: "GET", Path: "/x", Access: endpoint.Required, Success: 200, MaxAge: time.Minute}),
		"it needs a Method and a Path": define[struct {
			ID string `path:"id"`
		}, string](with(get, func(s *endpoint.Spec) { s.Path = "/x/a{id}b" })),
		"a path has one parameter": define[struct {
			ID int `path:"id"`
		}, string](with(get, func(s *endpoint.Spec) { s.Path = "/x/{id}" })),
		"a query cannot be endpoint_test.venue": define[struct {
			Venue venue `query:"venue"`
		}, string](get),
		"a GET request has no body": define[titled, string](get),
		"only a GET endpoint has query members": define[struct {
			Page int `query:"page"`
		}, string](post),
		"the Success 404 must be":                          define[titled, string](with(post, func(s *endpoint.Spec) { s.Success = 404 })),
		"the output None and the Success 204 belong":       define[titled, endpoint.None](post),
		"the output Redirect and the Success 303":          define[titled, endpoint.Redirect](post),
		"the input string must be a struct":                define[string, string](post),
		"endpoint POST /x: its Spec and the identity that": define[titled, string](protected),
	} {
		if !strings.Contains(problem, want) {
			t.Errorf("got the panic %q, want one with %q", problem, want)
		}
	}
}

// The identity precedes the body: a client without one learns nothing about its input.
func TestInvoke_IdentityWithBody(t *testing.T) {
	type in struct {
		Owner
		Title string `json:"title"`
	}
	s := spec
	s.Access = endpoint.Required
	f, _ := bind(s, func(_ context.Context, in in) (string, error) { return in.Name + " " + in.Title, nil })
	r := request(`{"title":5}`)
	if got := f.Invoke(t.Context(), r); got.Status != 401 {
		t.Errorf("without a token: got %d %s, want 401", got.Status, got.Body)
	}
	r = request(`{"title":"Concert"}`)
	r.Authorization = []string{"Bearer ann"}
	if got := f.Invoke(t.Context(), r); got.Status != 200 || string(got.Body) != `"ann Concert"` {
		t.Errorf("got %d %s, want 200 and both", got.Status, got.Body)
	}
}

type order struct {
	ID      string                 `path:"id"`
	Title   string                 `json:"title" min:"1" max:"5"`
	Count   int32                  `json:"count" min:"1" max:"10"`
	Price   float64                `json:"price" min:"0"`
	Gift    bool                   `json:"gift"`
	At      time.Time              `json:"at"`
	Note    *string                `json:"note" max:"3"`
	Venue   venue                  `json:"venue"`
	Seats   []seat                 `json:"seats" min:"1" max:"2"`
	Tags    []string               `json:"tags" max:"2"`
	Comment endpoint.Patch[string] `json:"comment" max:"3"`
}

type seat struct {
	Row int `json:"row" max:"9"`
}

const goodOrder = `{"title":"Jazz","count":2,"price":1.5,"gift":true,"at":"2026-01-02T03:04:05+01:00","venue":{"city":"Bonn"},"seats":[{"row":1}],"tags":[]`

func TestDecode_RichTypes(t *testing.T) {
	var got order
	if err := endpoint.Decode([]byte(goodOrder+`,"note":"hi","comment":"no"}`), &got); err != nil {
		t.Fatal(err)
	}
	note, comment := "hi", "no"
	want := order{Title: "Jazz", Count: 2, Price: 1.5, Gift: true, Note: &note, Venue: venue{"Bonn"}, Seats: []seat{{1}}, Tags: []string{},
		Comment: endpoint.Patch[string]{Set: true, Value: &comment}}
	if !got.At.Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)) {
		t.Errorf("got the time %s", got.At)
	}
	if got.At = (time.Time{}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDecode_Patch(t *testing.T) {
	for members, want := range map[string]struct {
		set  bool
		null bool
	}{``: {false, true}, `,"comment":null`: {true, true}, `,"comment":"no"`: {true, false}} {
		var got order
		if err := endpoint.Decode([]byte(goodOrder+members+"}"), &got); err != nil || got.Comment.Set != want.set || (got.Comment.Value == nil) != want.null {
			t.Errorf("%q: got %+v %v, want %+v", members, got.Comment, err, want)
		}
	}
}

func TestDecode_InvalidRichTypes(t *testing.T) {
	for change, want := range map[string]string{
		`"title":"" `:                "title must have 1 to 5 characters.",
		`"title":"äöüßéé"`:           "title must have 1 to 5 characters.",
		`"title":null`:               "title must be a string.",
		`"count":0`:                  "count must be from 1 to 10.",
		`"count":2.5`:                "count must be a whole number.",
		`"count":9007199254740993`:   "count must be a whole number.", // does not fit
		`"count":"2"`:                "count must be a whole number.",
		`"price":-0.5`:               "price must be at least 0.",
		`"price":1e999`:              "price must be a number.",
		`"price":"1"`:                "price must be a number.",
		`"gift":1`:                   "gift must be true or false.",
		`"at":"yesterday"`:           "at must be a time such as 2006-01-02T15:04:05Z.",
		`"at":"2026-01-02T3:04:05Z"`: "at must be a time such as 2006-01-02T15:04:05Z.",
		`"at":1767322800`:            "at must be a time such as 2006-01-02T15:04:05Z.",
		`"note":"long"`:              "note must have at most 3 characters.",
		`"note":null`:                "note must be a string.",
		`"venue":"Bonn"`:             "venue must be an object.",
		`"venue":{}`:                 "venue.city is missing.",
		`"venue":{"city":["Bonn"]}`:  "venue.city must be a string.",
		`"seats":[]`:                 "seats must have 1 to 2 items.",
		`"seats":{}`:                 "seats must be an array.",
		`"seats":[{"row":1},{"row":1},{"row":"x"}]`: "seats must have 1 to 2 items.",
		`"seats":[{"row":1},{"row":10}]`:            "seats[1].row must be at most 9.",
		`"seats":[1]`:                               "seats[0] must be an object.",
		`"tags":["a",null]`:                         "tags[1] must be a string.",
		`"comment":5`:                               "comment must be a string.",
		`"comment":"long"`:                          "comment must have at most 3 characters.",
	} {
		name, _, _ := strings.Cut(change, ":")
		body := strings.Replace(goodOrder+`,"note":"hi","comment":"no"}`, name+":", name+`:`+change[len(name)+1:]+`,"old`+name[1:]+":", 1)
		var got order
		err := endpoint.Decode([]byte(body), &got)
		if err == nil {
			t.Errorf("%s: got no error", change)
			continue
		}
		if items := apierror.From(err).Items(); len(items) != 1 || items[0].Message != want || !strings.HasPrefix(want, items[0].Field) {
			t.Errorf("%s: got %v, want %q", change, items, want)
		}
	}
}

// A client cannot make the function compute or answer much by many invalid items.
func TestDecode_ManyErrors(t *testing.T) {
	type row struct {
		A, B, C, D int `json:"-"`
		E          int `json:"e"`
		F          int `json:"f"`
	}
	type in struct {
		Rows []row `json:"rows" max:"5000"`
	}
	body := `{"rows":[` + strings.Repeat(`{},`, 4999) + `{}]}`
	if n := len(apierror.From(endpoint.Decode([]byte(body), new(in))).Items()); n != 100 {
		t.Errorf("got %d errors, want 100", n)
	}
}

func TestDecode_NoInputInErrors(t *testing.T) {
	type in struct {
		Unit Unit `json:"unit"`
	}
	err := apierror.From(endpoint.Decode([]byte(`{"unit":"secret"}`), new(in)))
	if len(err.Items()) != 1 || err.Items()[0].Message != "unit is not valid." {
		t.Errorf("got %v", err.Items())
	}
}

func TestDecode_WholeNumbers(t *testing.T) {
	type in struct {
		N int64 `json:"n"`
	}
	for text, want := range map[string]int64{"3": 3, "3.0": 3, "3e2": 300, "-3.50e1": -35, "9007199254740993.0": 9007199254740993, "9223372036854775807": 9223372036854775807} {
		var got in
		if err := endpoint.Decode([]byte(`{"n":`+text+`}`), &got); err != nil || got.N != want {
			t.Errorf("%s: got %d %v, want %d", text, got.N, err, want)
		}
	}
	for _, text := range []string{"3.00000000000000000001", "9223372036854775808", "1e19", "1e999999999", "0.5", "1e-1"} {
		if err := endpoint.Decode([]byte(`{"n":`+text+`}`), new(in)); err == nil {
			t.Errorf("%s: got no error", text)
		}
	}
}

// Errors are in the order of the struct, for any order in the body.
func TestDecode_OrderOfErrors(t *testing.T) {
	for _, body := range []string{`{"venue":5,"count":0,"seats":[]}`, `{"seats":[],"count":0,"venue":5}`} {
		var fields []string
		for _, item := range apierror.From(endpoint.Decode([]byte(body), new(order))).Items() {
			fields = append(fields, item.Field)
		}
		if got := strings.Join(fields, " "); got != "title count price gift at venue seats tags" {
			t.Errorf("%s: got the fields %s", body, got)
		}
	}
}

type search struct {
	endpoint.Agent
	endpoint.Language
	Text  string     `query:"text" max:"5"`
	Limit *int       `query:"limit" min:"1" max:"100"`
	Price *float64   `query:"price"`
	Sold  *bool      `query:"sold"`
	Since *time.Time `query:"since"`
}

func TestInvoke_Query(t *testing.T) {
	s := endpoint.Spec{Method: "GET", Path: "/search", Access: endpoint.Public, Success: 200}
	var got search
	f, _ := bind(s, func(_ context.Context, in search) (string, error) { got = in; return "", nil })
	limit, price, sold := 5, 1.5, true
	if r := f.Invoke(t.Context(), &endpoint.Request{Query: "text=%C3%A9+a&limit=5&price=1.5&sold=true&since=2026-01-02T03:04:05Z&other=1&other=2",
		UserAgent: "a\x00b" + strings.Repeat("é", 9) + strings.Repeat("c", 999), AcceptLanguage: []string{"de", "en;q=0.5"}}); r.Status != 200 {
		t.Fatalf("got %d %s", r.Status, r.Body)
	}
	if got.Text != "é a" || *got.Limit != limit || *got.Price != price || *got.Sold != sold || got.Since.Year() != 2026 {
		t.Errorf("got %+v", got)
	}
	if len(got.UserAgent) != endpoint.MaxAgent || !strings.HasPrefix(got.UserAgent, "abccc") || got.AcceptLanguage != "de,en;q=0.5" {
		t.Errorf("got the agent %q and the languages %q", got.UserAgent, got.AcceptLanguage)
	}
	for query, want := range map[string]string{
		"":                                    "text is missing.",
		"text=a&text=a":                       "text must occur once.",
		"text=a%00":                           "text must be at most 256 bytes of UTF-8 without NUL.",
		"text=%ff":                            "text must be at most 256 bytes of UTF-8 without NUL.",
		"text=" + strings.Repeat("a", 257):    "text must be at most 256 bytes of UTF-8 without NUL.",
		"text=abcdef":                         "text must have at most 5 characters.",
		"text=a&limit=":                       "limit must be a whole number.",
		"text=a&limit=0x10":                   "limit must be a whole number.",
		"text=a&limit=%2B5":                   "limit must be a whole number.",
		"text=a&limit=1_0":                    "limit must be a whole number.",
		"text=a&limit=1e1":                    "limit must be a whole number.",
		"text=a&limit=5.0":                    "limit must be a whole number.",
		"text=a&limit=101":                    "limit must be from 1 to 100.",
		"text=a&price=Inf":                    "price must be a number.",
		"text=a&price=NaN":                    "price must be a number.",
		"text=a&sold=1":                       "sold must be true or false.",
		"text=a&since=now":                    "since must be a time such as 2006-01-02T15:04:05Z.",
		"text=a;limit=5":                      "The query is malformed.",
		"text=%zz":                            "The query is malformed.",
		"text=a&" + strings.Repeat("x", 3000): "The query is longer than 2 KiB.",
	} {
		r := f.Invoke(t.Context(), &endpoint.Request{Query: query})
		if r.Status != 400 || !strings.Contains(string(r.Body), `"message":"`+want+`"`) {
			t.Errorf("%q: got %d %s, want 400 %s", query, r.Status, r.Body, want)
		}
	}
}

func TestInvoke_Outputs(t *testing.T) {
	s := endpoint.Spec{Method: "POST", Path: "/x", Access: endpoint.Public}
	at := func(status int) endpoint.Spec { s.Success = status; return s }
	created, _ := bind(at(201), func(context.Context, endpoint.None) (endpoint.Located[string], error) {
		return endpoint.Located[string]{Location: "/x/1", Body: "one"}, nil
	})
	deleted, _ := bind(at(204), func(context.Context, endpoint.None) (endpoint.None, error) { return endpoint.None{}, nil })
	moved, _ := bind(at(303), func(context.Context, endpoint.None) (endpoint.Redirect, error) {
		return endpoint.Redirect{Location: "/y"}, nil
	})
	file, _ := bind(at(200), func(context.Context, endpoint.None) (endpoint.File, error) {
		return endpoint.File{Name: `my "tickets".csv`, Type: "text/csv", Content: []byte("a,b\n")}, nil
	})
	for name, c := range map[string]struct {
		f      *endpoint.Bound
		status int
		body   string
		header map[string]string
	}{
		"201":  {created, 201, `"one"`, map[string]string{"Location": "/x/1", "Content-Type": "application/json"}},
		"204":  {deleted, 204, "", map[string]string{"Content-Type": ""}},
		"303":  {moved, 303, "", map[string]string{"Location": "/y", "Content-Type": ""}},
		"file": {file, 200, "a,b\n", map[string]string{"Content-Type": "text/csv", "Content-Disposition": `attachment; filename="my \"tickets\".csv"`}},
	} {
		got := c.f.Invoke(t.Context(), &endpoint.Request{})
		if got.Status != c.status || string(got.Body) != c.body {
			t.Errorf("%s: got %d %s", name, got.Status, got.Body)
		}
		for header, want := range c.header {
			if got.Header.Get(header) != want {
				t.Errorf("%s: got %s %q, want %q", name, header, got.Header.Get(header), want)
			}
		}
		if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %v", name, got.Header)
		}
	}
}
