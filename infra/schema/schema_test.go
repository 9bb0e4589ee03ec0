package schema_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/infra/schema"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/reference"
)

type order struct {
	endpoint.Keyed
	ID     string    `json:"id" min:"1" max:"9"`
	Seats  []seat    `json:"seats" max:"8"`
	Buyer  *string   `json:"buyer,omitzero"`
	Note   string    `json:"note,omitempty"`
	Price  float64   `json:"price" min:"0.5"`
	At     time.Time `json:"at"`
	Paid   bool      `json:"paid"`
	Next   *seat     `json:"next,omitempty"`
	Hidden string    `json:"-"`
}

type seat struct {
	Row int `json:"row"`
}

func (seat) Members() []reference.Member {
	return []reference.Member{{Name: "row", Minimum: 1, About: "The row."}}
}

func TestStandalone(t *testing.T) {
	s, err := schema.Standalone(reflect.TypeFor[order](), schema.Payload)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	const want = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","required":["id","seats","price","at","paid"],"properties":{` +
		`"id":{"type":"string","minLength":1,"maxLength":9},` +
		`"seats":{"type":"array","maxItems":8,"items":{"$ref":"#/$defs/seat"}},` +
		`"buyer":{"type":"string"},"note":{"type":"string"},"price":{"type":"number","minimum":0.5},` +
		`"at":{"type":"string","format":"date-time"},"paid":{"type":"boolean"},"next":{"$ref":"#/$defs/seat"}},` +
		`"$defs":{"seat":{"type":"object","required":["row"],"properties":{"row":{"type":"integer","description":"The row.","minimum":1}}}}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s and the error %v\nwant %s", got, err, want)
	}
}

// A pointer is null in an output, and absent in an input and in a payload.
func TestSet_Pointers(t *testing.T) {
	type in struct {
		Note *string `json:"note"`
	}
	type out struct {
		Note *string `json:"note,omitzero"`
	}
	for want, of := range map[string]struct {
		t   reflect.Type
		use schema.Use
	}{
		`{"type":"object","required":["note"],"properties":{"note":{"anyOf":[{"type":"string"},{"type":"null"}]}}}`: {reflect.TypeFor[in](), schema.Output},
		`{"type":"object","properties":{"note":{"anyOf":[{"type":"string"},{"type":"null"}]}}}`:                     {reflect.TypeFor[out](), schema.Output},
		`{"type":"object","properties":{"note":{"type":"string"}}}`:                                                 {reflect.TypeFor[in](), schema.Input},
		`{"type":"object","properties":{"note":{"type":"string"}}} `:                                                {reflect.TypeFor[out](), schema.Payload},
	} {
		s := schema.NewSet("#/x/")
		if _, err := s.Of(of.t, of.use); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(s.All[0].Value); err != nil || string(got) != strings.TrimSpace(want) {
			t.Errorf("got %s and the error %v, want %s", got, err, want)
		}
	}
}

func TestStandalone_RejectsPayloads(t *testing.T) {
	for want, payload := range map[string]reflect.Type{
		"writes null for its field Note: add omitzero to its tag": reflect.TypeFor[struct {
			Note *string `json:"note"`
		}](),
		"has no JSON name for its field Note": reflect.TypeFor[struct{ Note string }](),
		"a member of type map[string]string has no schema": reflect.TypeFor[struct {
			All map[string]string `json:"all"`
		}](),
		"seats of": reflect.TypeFor[struct {
			Seats []struct{ Row int } `json:"seats"`
		}](),
	} {
		if _, err := schema.Standalone(payload, schema.Payload); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got the error %v, want one with %q", payload, err, want)
		}
	}
}

// One name in a document stands for one schema.
func TestSet_OptionalMembersInRequestAndResponse(t *testing.T) {
	type seat struct {
		Row *string `json:"row"`
	}
	type order struct {
		Seats []seat `json:"seats"`
	}
	type plain struct {
		Row string `json:"row"`
	}
	for name, c := range map[string]struct {
		t    reflect.Type
		fail bool
	}{"optional": {reflect.TypeFor[seat](), true}, "below": {reflect.TypeFor[order](), true}, "none": {reflect.TypeFor[plain](), false}} {
		set := schema.NewSet("#/")
		if _, err := set.Of(c.t, schema.Input); err != nil {
			t.Fatal(err)
		}
		if _, err := set.Of(c.t, schema.Output); (err != nil) != c.fail {
			t.Errorf("%s: got the error %v, want one: %v", name, err, c.fail)
		}
	}
}
