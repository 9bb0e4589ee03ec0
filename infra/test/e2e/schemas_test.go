package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// A validator validates the events that a system sends against its published references.
type validator struct {
	mu       sync.Mutex
	data     map[string]*jsonschema.Schema // by event type
	headers  map[string]*jsonschema.Schema
	read     func(path string) ([]byte, error)
	messages map[string]struct{ Headers any }
}

// newValidator returns a validator that reads the references at the paths of the local runner.
func newValidator(read func(path string) ([]byte, error)) (*validator, error) {
	v := &validator{data: map[string]*jsonschema.Schema{}, headers: map[string]*jsonschema.Schema{}, read: read}
	document, err := read("/asyncapi.yaml")
	if err != nil {
		return nil, err
	}
	var d struct {
		Components struct {
			Messages map[string]struct{ Headers any }
		}
	}
	err = yaml.Unmarshal(document, &d)
	v.messages = d.Components.Messages
	return v, err
}

// committed returns a validator that reads the files of the repository.
var committed = sync.OnceValues(func() (*validator, error) {
	return newValidator(func(path string) ([]byte, error) {
		return os.ReadFile(filepath.Join(repository, "infra", "asyncapi", filepath.FromSlash(path)))
	})
})

// validate returns an error if an event in binary mode does not match the schema of its data,
// which its attribute dataschema names, or the schema of its headers.
func (v *validator) validate(h http.Header, data string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	kind := h.Get("Ce-Type")
	path, is := strings.CutPrefix(h.Get("Ce-Dataschema"), "tag:ticketing.com,2026:")
	if !is || !strings.Contains(path, kind) {
		return fmt.Errorf("got dataschema %q of the type %s, want the id of its schema", h.Get("Ce-Dataschema"), kind)
	}
	if v.data[kind] == nil {
		schema, err := v.read(path)
		if err != nil {
			return err
		}
		if v.data[kind], err = compile(h.Get("Ce-Dataschema"), schema); err != nil {
			return err
		}
		described, err := json.Marshal(v.messages[kind].Headers)
		if err != nil {
			return err
		}
		if v.headers[kind], err = compile("tag:headers,2026:"+kind, described); err != nil {
			return err
		}
	}
	instance, err := jsonschema.UnmarshalJSON(strings.NewReader(data))
	if err != nil {
		return err
	}
	if err := v.data[kind].Validate(instance); err != nil {
		return err
	}
	sent := map[string]any{}
	for name, values := range h {
		sent[strings.ToLower(name)] = values[0]
	}
	return v.headers[kind].Validate(sent)
}

func compile(id string, schema []byte) (*jsonschema.Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(id, document); err != nil {
		return nil, err
	}
	return c.Compile(id)
}

// header returns the headers of a delivery.
func (d delivery) header(t testing.TB) http.Header {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(d.raw)))
	if err != nil {
		t.Fatal(err)
	}
	return r.Header
}

// Every event that the system sends, and every reply, matches the schema that the local runner
// serves for its type.
func TestEvents_MatchServedSchemas(t *testing.T) {
	t.Parallel()
	sink := newSink(t)
	url, interrupt := e2e.StartLocal(t, t.TempDir(), "MONGODB_URI="+mongotest.URI(t), "K_SINK="+sink.URL,
		"SESSION_LIMIT=2", "RATE_LIMIT=off")
	defer interrupt()
	call := func(want int, function, bearer, body string) tokenPair {
		t.Helper()
		status, _, answer, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/"+function, bearer, body)
		if err != nil || status != want {
			t.Fatalf("%s: got %d %s %v, want %d", function, status, answer, err, want)
		}
		var tokens tokenPair
		json.Unmarshal([]byte(answer), &tokens)
		return tokens
	}
	v, err := newValidator(func(path string) ([]byte, error) {
		status, _, body, err := e2e.Call(t.Context(), http.MethodGet, url+path, "", "")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s: got %d, want 200", path, status)
		}
		return []byte(body), err
	})
	if err != nil {
		t.Fatal(err)
	}

	up := call(http.StatusCreated, "signup", "", credentials("ann@example.com"))
	call(http.StatusOK, "signin", "", credentials("ann@example.com"))
	call(http.StatusOK, "signin", "", credentials("ann@example.com")) // ends the first session: displaced
	out := call(http.StatusOK, "signin", "", credentials("ann@example.com"))
	call(http.StatusOK, "signout", out.Token, "") // signout
	bob := call(http.StatusCreated, "signup", "", credentials("bob@example.com"))
	stolen := bob.RefreshToken
	for range refreshesToDropFirst {
		bob = call(http.StatusOK, "refresh", "", `{"refreshToken":"`+bob.RefreshToken+`"}`)
	}
	call(http.StatusUnauthorized, "refresh", "", `{"refreshToken":"`+stolen+`"}`) // theft

	replies := map[string]bool{}
	for i, c := range []struct{ kind, data, reply string }{
		{"com.ticketing.user.signup.requested.v1", credentials("cid@example.com"), "com.ticketing.user.signup.accepted.v1"},
		{"com.ticketing.user.signup.requested.v1", credentials("ann@example.com"), "com.ticketing.user.signup.refused.v1"},
		{"com.ticketing.user.signup.requested.v1", `{"email":"dan"}`, "com.ticketing.user.signup.refused.v1"},
		{"com.ticketing.user.signout.requested.v1", `{"userId":"` + sessionOf(t, up.Token).userID + `"}`, "com.ticketing.user.signout.done.v1"},
		{"com.ticketing.user.signout.requested.v1", `{"userId":"unknown","sessionId":"s"}`, "com.ticketing.user.signout.done.v1"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/", strings.NewReader(c.data))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": fmt.Sprint(i), "Ce-Source": "/tests", "Ce-Type": c.kind, "Content-Type": "application/json"} {
			r.Header.Set(name, value)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if kind := response.Header.Get("Ce-Type"); err != nil || kind != c.reply {
			t.Fatalf("%s: got %d %s %s %v, want the reply %s", c.data, response.StatusCode, kind, body, err, c.reply)
		}
		if err := v.validate(response.Header, string(body)); err != nil {
			t.Errorf("the reply %s %s: %v", c.reply, body, err)
		}
		replies[c.reply] = true
	}

	sink.waitFor(t, 0, 11)
	reasons, mails := map[string]int{}, 0
	for _, d := range sink.allDeliveries() {
		if err := v.validate(d.header(t), d.Data); err != nil {
			t.Errorf("%v:\n%s", err, d.raw)
		}
		mails += strings.Count(d.Type, ".mail.requested.")
	}
	if mails < 3 {
		t.Errorf("got %d requests for mails, want at least one for each of 3 sign-ups", mails)
	}
	for _, d := range sink.deliveries() {
		_, reason := parseEvent(t, d)
		reasons[strings.TrimPrefix(d.Type, "com.ticketing.user.")+" "+reason]++
	}
	want := map[string]int{
		"signedup.v1 ": 3, "signedin.v1 ": 3,
		"signedout.v1 displaced": 2, "signedout.v1 user": 1, "signedout.v1 theft": 1, "signedout.v1 operator": 1,
	}
	if !maps.Equal(reasons, want) {
		t.Errorf("got the events %v, want %v", reasons, want)
	}
	if len(replies) != 3 {
		t.Errorf("got the replies %v, want all three types", slices.Collect(maps.Keys(replies)))
	}
}

// The validator itself must report each kind of difference.
func TestEvents_ValidatorReportsDifferences(t *testing.T) {
	v, err := committed()
	if err != nil {
		t.Fatal(err)
	}
	const data = `{"userId":"u","sessionId":"s","reason":"user"}`
	header := func() http.Header {
		return http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/api/users"}, "Ce-Type": {signedOut}, "Ce-Subject": {"u"},
			"Ce-Partitionkey": {"u"}, "Ce-Time": {"2026-01-02T03:04:05.006Z"}, "Ce-Dataschema": {"tag:ticketing.com,2026:/schemas/" + signedOut + ".json"}}
	}
	if err := v.validate(header(), data); err != nil {
		t.Errorf("a valid event: %v", err)
	}
	if err := v.validate(header(), strings.Replace(data, "{", `{"later":1,`, 1)); err != nil {
		t.Errorf("a member of a later version: %v", err)
	}
	for _, invalid := range []string{`{}`, `[]`, `null`, `{"userId":"u","reason":"user"}`, `{"userId":"u","sessionId":"s"}`,
		`{"userId":"","sessionId":"s","reason":"user"}`, `{"userId":7,"sessionId":"s","reason":"user"}`, `{"userId":"u","sessionId":null,"reason":"user"}`} {
		if err := v.validate(header(), invalid); err == nil {
			t.Errorf("%s: got no error, want one", invalid)
		}
	}
	for name, value := range map[string]string{"Ce-Source": "/other", "Ce-Time": "yesterday", "Ce-Specversion": "0.3", "Ce-Id": "", "Ce-Subject": "",
		"Ce-Dataschema": "/schemas/" + signedOut + ".json"} {
		h := header()
		h.Set(name, value)
		if err := v.validate(h, data); err == nil {
			t.Errorf("%s %q: got no error, want one", name, value)
		}
		if h.Del(name); v.validate(h, data) == nil {
			t.Errorf("no %s: got no error, want one", name)
		}
	}
}
