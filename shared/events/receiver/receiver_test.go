package receiver_test

import (
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/httpserver"
)

type named struct {
	Name string `json:"name"`
}

func newNothing(*config.Config) struct{} { return struct{}{} }

func newConfig(settings map[string]string) *config.Config {
	return config.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
}

var (
	hello   = event.Define[named]("hello.v1", "", "")
	greeted = event.Define[named]("greeted.v1", "/greeter", "")
	refused = event.Define[apierror.Errors]("refused.v1", "/greeter", "")
)

// greeter replies to an event with its data. It rejects x, is unavailable for y, and panics
// for z.
var greeter = endpoint.Function{
	Name: "greeter",
	Endpoints: []endpoint.Endpoint{endpoint.Define(
		endpoint.Spec{Method: http.MethodPost, Path: "/echo", Access: endpoint.Public, Success: http.StatusOK}, newNothing,
		func(_ struct{}, _ context.Context, in named) (named, error) { return in, nil })},
	Receivers: []endpoint.Receiver{receiver.On(
		endpoint.Receiver{Types: []*event.Type{hello}, Reply: greeted, Refusal: refused}, newNothing,
		func(_ struct{}, _ context.Context, in named) (named, error) {
			switch in.Name {
			case "x":
				return named{}, apierror.Field("name", "Not x.")
			case "y":
				return named{}, apierror.Unreachable(nil)
			case "z":
				panic("z")
			}
			return in, nil
		})},
}

func deliver(t *testing.T, handler http.Handler, header, body string) (int, http.Header, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	for line := range strings.SplitSeq(header, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			r.Header.Add(name, value)
		}
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	answer := w.Result()
	got, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, string(got)
}

const (
	binary     = "ce-specversion: 1.0\nce-id: 1\nce-source: /s\nce-type: hello.v1\ncontent-type: application/json"
	structured = "content-type: application/cloudevents+json"
)

func envelope(members string) string {
	return `{"specversion":"1.0","id":"1","source":"/s","type":"hello.v1"` + members + `}`
}

// The cases of the CloudEvents conformance definitions for the HTTP binding, and invalid
// requests.
func TestReceiver(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	ann := base64.StdEncoding.EncodeToString([]byte(`{"name":"ann"}`))
	for _, c := range []struct {
		name, header, body string
		status             int
		kind               string // of the reply
		want               string // a part of the body
	}{
		{"binary mode", binary, `{"name":"ann"}`, 200, "greeted.v1", `{"name":"ann"}`},
		{"binary mode with extensions and a charset", strings.Replace(binary, "json", "json; charset=utf-8", 1) + "\nce-myext: v\nce-time: 2026-01-02T03:04:05Z\nce-subject: s", `{"name":"ann"}`, 200, "greeted.v1", `{"name":"ann"}`},
		{"structured mode", structured, envelope(`,"datacontenttype":"application/json","data":{"name":"ann"}`), 200, "greeted.v1", `{"name":"ann"}`},
		{"structured mode with a charset", structured + "; charset=utf-8", envelope(`,"data":{"name":"ann"}`), 200, "greeted.v1", `{"name":"ann"}`},
		{"structured mode with base64", structured, envelope(`,"datacontenttype":"application/json","data_base64":"` + ann + `"`), 200, "greeted.v1", `{"name":"ann"}`},
		{"input that the function rejects gets a reply", binary, `{"name":"x"}`, 200, "refused.v1", `{"errors":[{"message":"Not x.","field":"name"}]}`},
		{"malformed data gets a refusal", binary, `{"name":"ann"`, 200, "refused.v1", `one JSON object`},
		{"no data gets a refusal", binary, ``, 200, "refused.v1", `one JSON object`},
		{"structured mode without data gets a refusal", structured, envelope(``), 200, "refused.v1", `one JSON object`},
		{"a temporary error gets no reply", binary, `{"name":"y"}`, 503, "", `unavailable`},
		{"a panic gets no reply", binary, `{"name":"z"}`, 500, "", `Something went wrong.`},
		{"another data type is rejected", strings.Replace(binary, "application/json", "text/xml", 1), `<name/>`, 415, "", `application/json`},
		{"a batch is rejected", "content-type: application/cloudevents-batch+json", `[` + envelope(``) + `]`, 415, "", `batches`},
		{"another event type is rejected", strings.Replace(binary, "hello", "bye", 1), `{}`, 400, "", `this type`},
		{"no type", strings.Replace(binary, "ce-type: hello.v1\n", "", 1), `{}`, 400, "", `not a valid`},
		{"no id", strings.Replace(binary, "ce-id: 1\n", "", 1), `{}`, 400, "", `not a valid`},
		{"an empty id", strings.Replace(binary, "ce-id: 1", "ce-id: ", 1), `{}`, 400, "", `not a valid`},
		{"no source", strings.Replace(binary, "ce-source: /s\n", "", 1), `{}`, 400, "", `not a valid`},
		{"no version", strings.Replace(binary, "ce-specversion: 1.0\n", "", 1), `{}`, 400, "", `not a valid`},
		{"an unknown version", strings.Replace(binary, "1.0", "9.9", 1), `{}`, 400, "", `not a valid`},
		{"the old version 0.3", strings.Replace(binary, "1.0", "0.3", 1), `{"name":"ann"}`, 400, "", `not a valid`},
		{"a malformed time", binary + "\nce-time: yesterday", `{"name":"ann"}`, 400, "", `not a valid`},
		{"an attribute without a name", binary + "\nce-: x", `{"name":"ann"}`, 400, "", `not a valid`},
		{"an attribute twice", binary + "\nce-id: 2", `{"name":"ann"}`, 400, "", `not a valid`},
		{"an attribute in broken percent-encoding", strings.Replace(binary, "ce-id: 1", "ce-id: %C3%", 1), `{"name":"ann"}`, 400, "", `not a valid`},
		{"an attribute in percent-encoding", strings.Replace(binary, "ce-id: 1", "ce-id: %C3%A9", 1), `{"name":"ann"}`, 200, "greeted.v1", `{"name":"ann"}`},
		{"a member of the envelope twice", structured, strings.Replace(envelope(`,"data":{"name":"ann"}`), `"id":"1"`, `"id":"1","id":"2"`, 1), 400, "", `not a valid`},
		{"structured mode with invalid JSON", structured, `{"specversion":"1.0"`, 400, "", `not a valid`},
		{"structured mode without attributes", structured, `{}`, 400, "", `not a valid`},
		{"structured mode with the old version", structured, strings.Replace(envelope(``), "1.0", "0.3", 1), 400, "", `not a valid`},
		{"a plain request", "content-type: application/json", `{"name":"ann"}`, 415, "", `takes CloudEvents`},
		{"an empty request", "", ``, 415, "", `takes CloudEvents`},
		{"data over the limit", binary, `{"name":"` + strings.Repeat("a", endpoint.MaxBody) + `"}`, 413, "", `16 KiB`},
		{"an event over the limit", structured, envelope(`,"data":{"name":"` + strings.Repeat("a", 80<<10) + `"}`), 413, "", `64 KiB`},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, header, body := deliver(t, handler, c.header, c.body)
			if status != c.status || header.Get("Ce-Type") != c.kind || !strings.Contains(body, c.want) {
				t.Errorf("got %d %v %s, want %d %q %q", status, header, body, c.status, c.kind, c.want)
			}
			if c.kind != "" && (header.Get("Ce-Specversion") != "1.0" || header.Get("Ce-Id") == "" || header.Get("Ce-Source") != "/greeter" ||
				header.Get("Ce-Dataschema") != "tag:ticketing.com,2026:/schemas/"+c.kind+".json" || header.Get("Content-Type") != "application/json") {
				t.Errorf("got the reply %v, want a valid event", header)
			}
			if c.kind == "" && !strings.HasPrefix(body, `{"errors":`) {
				t.Errorf("got %s, want a JSON error", body)
			}
		})
	}
}

func TestReceiver_ContinuesTrace(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	trace := "00-" + id + "-00f067aa0ba902b7-01"
	for name, delivery := range map[string][2]string{
		"a header":                     {binary + "\ntraceparent: " + trace, `{"name":"ann"}`},
		"an extension":                 {binary + "\nce-traceparent: " + trace, `{"name":"ann"}`},
		"an extension in the envelope": {structured, envelope(`,"traceparent":"` + trace + `","data":{"name":"ann"}`)},
	} {
		_, header, _ := deliver(t, handler, delivery[0], delivery[1])
		if !strings.Contains(header.Get("Ce-Traceparent"), id) {
			t.Errorf("%s: got %v, want the trace %s", name, header, id)
		}
	}
}

func TestReceiver_DisabledByDefault(t *testing.T) {
	handler := httpserver.Handler(newConfig(nil), greeter)
	if status, _, body := deliver(t, handler, binary, `{"name":"ann"}`); status != http.StatusNotFound {
		t.Errorf("got %d %s, want 404", status, body)
	}
}

func TestReceiver_RejectsEventsOnRoutes(t *testing.T) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	for _, header := range []string{"Ce-Id", "Ce-Type", "Ce-Anything"} {
		r := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(`{"name":"ann"}`))
		r.Header.Set(header, "1.0")
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusUnsupportedMediaType {
			t.Errorf("%s: got %d, want 415", header, w.Code)
		}
	}
}

func FuzzReceiver(f *testing.F) {
	handler := httpserver.Handler(newConfig(map[string]string{"EVENTS": "on"}), greeter)
	f.Add("1.0", "1", "/s", "hello.v1", "application/json", `{"name":"ann"}`)
	f.Add("", "", "", "", "application/cloudevents+json", envelope(`,"data":{"name":"ann"}`))
	f.Add("1.0", "%zz", "::", "hello.v1", "application/cloudevents+json", `{"specversion":"1.0","data":1}`)
	f.Fuzz(func(t *testing.T, version, id, source, kind, contentType, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		for name, value := range map[string]string{"Ce-Specversion": version, "Ce-Id": id, "Ce-Source": source, "Ce-Type": kind, "Content-Type": contentType} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		// a 2xx is an event or empty; any other response is a JSON error
		switch {
		case w.Code == http.StatusOK && (w.Body.Len() == 0 || w.Header().Get("Ce-Type") != ""):
		case w.Code >= 400 && strings.HasPrefix(w.Body.String(), `{"errors":`):
		default:
			t.Errorf("got %d %v %s, want an event or a JSON error", w.Code, w.Header(), w.Body)
		}
	})
}
