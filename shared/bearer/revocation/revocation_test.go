package revocation_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/bearer/revocation"
)

// The feed and its consumers are different programs, so they must agree on each bit. Another
// implementation has computed these.
func TestFilter_KnownBits(t *testing.T) {
	const want = `{"hashes":10,"bits":"AgIEA4EIQAAgABCAGAEkAAIACYAAAAAAAABEAQBCAABAAAAAIAAACCAQABAAAAACAAAIQACIAAEAAAAABBAAAA"}`
	f := revocation.NewFilter(4, 0.001)
	for i := range 4 {
		f.Add(fmt.Sprintf("5e5510%02x", i))
	}
	got, err := json.Marshal(f)
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestFilter_FalsePositives(t *testing.T) {
	for _, c := range []struct {
		n      int
		target float64
	}{{0, 0.001}, {1, 0.001}, {1000, 0.1}, {20_000, 0.001}} {
		t.Run(fmt.Sprint(c.n, " sessions at ", c.target), func(t *testing.T) {
			written := revocation.NewFilter(c.n, c.target)
			for i := range c.n {
				written.Add(fmt.Sprintf("%016x", i))
			}
			text, err := json.Marshal(written)
			if err != nil {
				t.Fatal(err)
			}
			f := new(revocation.Filter)
			if err := json.Unmarshal(text, f); err != nil {
				t.Fatal(err)
			}
			for i := range c.n {
				if id := fmt.Sprintf("%016x", i); !f.Contains(id) {
					t.Fatalf("the filter does not contain %s, which was added", id)
				}
			}
			const others = 20_000
			hits := 0
			for i := range others {
				if f.Contains(fmt.Sprintf("%016x", 1_000_000+i)) {
					hits++
				}
			}
			if got := float64(hits) / others; got > 1.5*c.target {
				t.Errorf("got %g false positives, want about %g", got, c.target)
			}
		})
	}
}

func TestFilter_SizeBounded(t *testing.T) {
	f := revocation.NewFilter(1<<30, 1e-9)
	f.Add("a")
	if f.Size() != 8<<20 || !f.Contains("a") {
		t.Errorf("got %d bytes, contains its id: %t; want 8 MiB that contain it", f.Size(), f.Contains("a"))
	}
}

func TestParse_Valid(t *testing.T) {
	filter := revocation.NewFilter(1, 0.001)
	filter.Add("5e5510f10")
	for name, want := range map[string]revocation.Answer{
		"no entry": {Cursor: "0", Window: 960, Sessions: []string{}, Users: []revocation.User{}},
		"sessions": {Cursor: "0", Window: 960, Sessions: []string{"5e5510f10"}, Users: []revocation.User{{ID: "65f1c0ffee", Before: 1767322445}}},
		"a filter": {Cursor: "0", Window: 960, Filter: filter, Users: []revocation.User{}},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := revocation.Parse(text)
			if err != nil || !reflect.DeepEqual(*got, want) {
				t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
			}
		})
	}
	const more = `{"cursor":"0","window":960,"sessions":[],"users":[],"more":1}`
	if _, err := revocation.Parse([]byte(more)); err != nil {
		t.Errorf("an unknown member: got error %v, want none", err)
	}
}

func TestParse_Invalid(t *testing.T) {
	long := strings.Repeat("a", 1025)
	filter := func(hashes, bits string) string {
		return `{"cursor":"0","window":960,"filter":{"hashes":` + hashes + `,"bits":` + bits + `},"users":[]}`
	}
	for name, text := range map[string]string{
		"no byte":                  ``,
		"HTML":                     `<html>secret</html>`,
		"null":                     `null`,
		"an array":                 `[]`,
		"an empty object":          `{}`,
		"an error":                 `{"errors":[{"message":"secret"}]}`,
		"truncated":                `{"cursor":"0","window":960,"sessions":["5e55`,
		"data after it":            `{"cursor":"0","window":960,"sessions":[],"users":[]}{}`,
		"a duplicate name":         `{"cursor":"0","cursor":"1","window":960,"sessions":[],"users":[]}`,
		"no cursor":                `{"window":960,"sessions":[],"users":[]}`,
		"an empty cursor":          `{"cursor":"","window":960,"sessions":[],"users":[]}`,
		"a number as the cursor":   `{"cursor":1,"window":960,"sessions":[],"users":[]}`,
		"a long cursor":            `{"cursor":"` + long + `","window":960,"sessions":[],"users":[]}`,
		"no window":                `{"cursor":"0","sessions":[],"users":[]}`,
		"a negative window":        `{"cursor":"0","window":-1,"sessions":[],"users":[]}`,
		"a window of three days":   `{"cursor":"0","window":259200,"sessions":[],"users":[]}`,
		"a window in hours":        `{"cursor":"0","window":"1h","sessions":[],"users":[]}`,
		"no sessions":              `{"cursor":"0","window":960,"users":[]}`,
		"null sessions":            `{"cursor":"0","window":960,"sessions":null,"users":[]}`,
		"an object as sessions":    `{"cursor":"0","window":960,"sessions":{},"users":[]}`,
		"a number as a session":    `{"cursor":"0","window":960,"sessions":[1],"users":[]}`,
		"an empty session":         `{"cursor":"0","window":960,"sessions":[""],"users":[]}`,
		"a long session":           `{"cursor":"0","window":960,"sessions":["` + long + `"],"users":[]}`,
		"sessions and a filter":    `{"cursor":"0","window":960,"sessions":[],"filter":{"hashes":1,"bits":"AA"},"users":[]}`,
		"no users":                 `{"cursor":"0","window":960,"sessions":[]}`,
		"a user without an id":     `{"cursor":"0","window":960,"sessions":[],"users":[{"before":1}]}`,
		"a user without a time":    `{"cursor":"0","window":960,"sessions":[],"users":[{"id":"a"}]}`,
		"a negative time":          `{"cursor":"0","window":960,"sessions":[],"users":[{"id":"a","before":-1}]}`,
		"a time in milliseconds":   `{"cursor":"0","window":960,"sessions":[],"users":[{"id":"a","before":1767322445000}]}`,
		"no hashes":                `{"cursor":"0","window":960,"filter":{"bits":"AA"},"users":[]}`,
		"0 hashes":                 filter(`0`, `"AA"`),
		"33 hashes":                filter(`33`, `"AA"`),
		"no bits":                  filter(`1`, `""`),
		"bits in base64":           filter(`1`, `"+/+/"`),
		"bits with padding":        filter(`1`, `"AA=="`),
		"bits with a line break":   filter(`1`, `"AA\n"`),
		"bits with spare bits set": filter(`1`, `"AB"`),
		"bits over 8 MiB":          filter(`1`, `"`+strings.Repeat("A", 11_184_812)+`"`),
	} {
		t.Run(name, func(t *testing.T) {
			if a, err := revocation.Parse([]byte(text)); err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %+v, %v; want an error without the data", a, err)
			}
		})
	}
}

// Every accepted answer stays the same when it is written and parsed again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"cursor":"0","window":960,"sessions":["5e5510f10"],"users":[{"id":"a","before":1767322445}]}`))
	f.Add([]byte(`{"cursor":"0","window":960,"filter":{"hashes":10,"bits":"AAAA"},"users":[]}`))
	f.Add([]byte(`{"cursor":"0","window":960,"filter":{"hashes":32,"bits":"_w"},"users":null}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := revocation.Parse(text)
		if err != nil {
			return
		}
		if a.Filter != nil {
			a.Filter.Contains("5e5510f10")
		}
		written, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := revocation.Parse(written); err != nil || !reflect.DeepEqual(a, again) {
			t.Errorf("got %+v, %v; want %+v", again, err, a)
		}
	})
}

func BenchmarkFilter_Contains(b *testing.B) {
	f := revocation.NewFilter(100_000, 0.001)
	for b.Loop() {
		f.Contains("5e5510f10")
	}
}
