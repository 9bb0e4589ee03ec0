package endpointtest

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
)

// A Case is one behaviour: a request and the complete response. Its name is a sentence.
type Case struct {
	Name string
	Call

	Status int
	Want   http.Header // in addition to the headers of every response, or in place of them
	JSON   string      // "*" in it stands for any string that is not empty
}

// Play runs cases in parallel subtests and returns after all of them.
func (f *Fixture) Play(t *testing.T, cases ...Case) {
	t.Helper()
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				Check(t, c, f.Do(t, c.Call))
			})
		}
	})
}

// Check compares a complete response with a case.
func Check(t testing.TB, c Case, got Answer) {
	t.Helper()
	if got.Status != c.Status {
		t.Errorf("status %d, want %d", got.Status, c.Status)
	}
	checkHeader(t, c.Want, got.Header)
	if c.Method == http.MethodHead {
		if got.Body != "" {
			t.Errorf("HEAD response has the body %q, want none", got.Body)
		}
		return
	}
	var have, want any
	if err := json.Unmarshal([]byte(c.JSON), &want); err != nil {
		t.Fatalf("the JSON of the case is invalid: %v", err)
	}
	if err := json.Unmarshal([]byte(got.Body), &have); err != nil || !matches(want, have) {
		t.Errorf("body %s\nwant %s", got.Body, c.JSON)
	}
}

// checkHeader compares all headers. An additional header fails the test too.
func checkHeader(t testing.TB, more, got http.Header) {
	t.Helper()
	want := http.Header{
		"Content-Type":           {"application/json"},
		"X-Content-Type-Options": {"nosniff"},
		"Cache-Control":          {"no-store"},
	}
	maps.Copy(want, more)
	got = got.Clone()
	if device := got.Get("Device-Token"); device != "" { // a new session has a new one
		cookie := "__Host-device=" + device + "; Path=/; Max-Age=7776000; HttpOnly; Secure; SameSite=Strict"
		if len(device) != 22 || !slices.Equal(got["Set-Cookie"], []string{cookie}) {
			t.Errorf("device token %q, Set-Cookie %q, want %q", device, got["Set-Cookie"], cookie)
		}
		delete(got, "Device-Token")
		delete(got, "Set-Cookie")
	}
	for _, name := range []string{"Content-Length", "Date", "Connection"} { // set by the HTTP server
		delete(got, name)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("headers %v\nwant    %v", got, want)
	}
}

func matches(want, got any) bool {
	switch want := want.(type) {
	case string:
		s, ok := got.(string)
		return ok && (s == want || want == "*" && s != "")
	case map[string]any:
		m, ok := got.(map[string]any)
		if !ok || len(m) != len(want) {
			return false
		}
		for k, v := range want {
			if w, ok := m[k]; !ok || !matches(v, w) {
				return false
			}
		}
		return true
	case []any:
		l, ok := got.([]any)
		return ok && slices.EqualFunc(want, l, matches)
	}
	return reflect.DeepEqual(want, got)
}
