package endpoint_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

type input struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func (in *input) Validate(bad *apierror.Fields) {
	if in.Name == "bad" {
		bad.Add("name", "Bad name.")
	}
}

// bind makes a function of a handle, and of the log it writes.
func bind[In, Out any](spec endpoint.Spec, handle endpoint.Handler[In, Out]) (*endpoint.Function, *bytes.Buffer) {
	var log bytes.Buffer
	cfg := config.New(func(string) (string, bool) { return "", false },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(&log, o) }, time.Now)
	return endpoint.Define(spec, func(*config.Config) endpoint.Handler[In, Out] { return handle }).Bind(cfg, false), &log
}

func request(body string) *endpoint.Request {
	return &endpoint.Request{Method: "POST", ContentType: []string{"application/json"}, Length: int64(len(body)), Body: strings.NewReader(body)}
}

var spec = endpoint.Spec{Name: "test", Method: "POST", Path: "/test", Success: 200}

func TestInvokeDecodesCallsAndRenders(t *testing.T) {
	f, log := bind(spec, func(_ context.Context, in input) (input, error) { return in, nil })
	got := f.Invoke(t.Context(), request(`{"count":3,"name":"<ann>","more":[{}]}`))
	if got.Status != 200 || string(got.Body) != `{"name":"<ann>","count":3}` || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", got.Status, got.Header, got.Body)
	}
	if strings.Contains(log.String(), "ann") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log: %s", log)
	}
}

func TestInvokeNeverFails(t *testing.T) {
	boom := errors.New("secret of the database")
	for _, c := range []struct {
		name   string
		handle endpoint.Handler[endpoint.None, any]
		status int
		log    string
	}{
		{"an untyped error", func(context.Context, endpoint.None) (any, error) { return nil, boom }, 500, "secret of the database"},
		{"a fault with a cause", func(context.Context, endpoint.None) (any, error) { return nil, apierror.Unreachable(boom) }, 503, "secret of the database"},
		{"a panic with a value", func(context.Context, endpoint.None) (any, error) { panic("password123") }, 500, "panic: a string"},
		{"a nil dereference", func(context.Context, endpoint.None) (any, error) { var p *input; return p.Name, nil }, 500, "nil pointer"},
		{"an answer that cannot be rendered", func(context.Context, endpoint.None) (any, error) { return make(chan int), nil }, 500, "render"},
		{"a deadline", func(ctx context.Context, _ endpoint.None) (any, error) { <-ctx.Done(); return nil, ctx.Err() }, 503, "deadline"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, log := bind(spec, c.handle)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			got := f.Invoke(ctx, &endpoint.Request{Method: "POST"})
			if got.Status != c.status || strings.Contains(string(got.Body), "secret") {
				t.Errorf("%d %s", got.Status, got.Body)
			}
			if !strings.Contains(log.String(), c.log) || strings.Contains(log.String(), "password123") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestACallerThatLeftIsLoggedAsGone(t *testing.T) {
	f, log := bind(spec, func(ctx context.Context, _ endpoint.None) (any, error) { return nil, ctx.Err() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Invoke(ctx, &endpoint.Request{Method: "POST"})
	if !strings.Contains(log.String(), `"status":499`) || strings.Contains(log.String(), `"level":"ERROR"`) {
		t.Errorf("log: %s", log)
	}
}

func TestASuccessMayBeCacheable(t *testing.T) {
	cached := spec
	cached.MaxAge = time.Minute
	failing := true
	f, _ := bind(cached, func(context.Context, endpoint.None) (string, error) {
		if failing {
			return "", apierror.Unreachable(nil)
		}
		return "x", nil
	})
	if got := f.Invoke(t.Context(), &endpoint.Request{}).Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("a failure: %s", got)
	}
	failing = false
	if got := f.Invoke(t.Context(), &endpoint.Request{}).Header.Get("Cache-Control"); got != "public, max-age=60" {
		t.Errorf("a success: %s", got)
	}
}

// A door must be able to pass a body it cannot measure, and one that breaks off.
func TestABodyIsReadNoFurtherThanItsLimit(t *testing.T) {
	f, _ := bind(spec, func(_ context.Context, in input) (input, error) { return in, nil })
	endless := &counting{r: zeros{}}
	r := request("")
	r.Length, r.Body = -1, endless
	if got := f.Invoke(t.Context(), r); got.Status != http.StatusRequestEntityTooLarge || endless.n > endpoint.MaxBody+1 {
		t.Errorf("%d after %d bytes", got.Status, endless.n)
	}
	declared := &counting{r: zeros{}}
	r.Length, r.Body = endpoint.MaxBody+1, declared
	if got := f.Invoke(t.Context(), r); got.Status != http.StatusRequestEntityTooLarge || declared.n != 0 {
		t.Errorf("%d after %d bytes", got.Status, declared.n)
	}
	r.Length, r.Body = 10, io.MultiReader(strings.NewReader(`{"name":`), broken{})
	if got := f.Invoke(t.Context(), r); got.Status != http.StatusBadRequest {
		t.Errorf("a body that breaks off: %d %s", got.Status, got.Body)
	}
}

func TestInvoke_ContentEncoding(t *testing.T) {
	f, _ := bind(spec, func(_ context.Context, in input) (input, error) { return in, nil })
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{nil, 200},
		{[]string{""}, 200},
		{[]string{"", ""}, 200},
		{[]string{"identity"}, 200},
		{[]string{"Identity"}, 200},
		{[]string{" identity , IDENTITY,,\t"}, 200},
		{[]string{"identity", "identity"}, 200},
		{[]string{"gzip"}, 415},
		{[]string{"GZIP"}, 415},
		{[]string{"x-gzip"}, 415},
		{[]string{"br"}, 415},
		{[]string{"deflate"}, 415},
		{[]string{"identity, gzip"}, 415},
		{[]string{"gzip, identity"}, 415},
		{[]string{"identity", "gzip"}, 415},
		{[]string{"", "gzip"}, 415},
		{[]string{",gzip"}, 415},
		{[]string{"identity;q=1"}, 415},
		{[]string{"identity gzip"}, 415},
		{[]string{"*"}, 415},
	} {
		r := request(`{"name":"ann","count":3}`)
		r.ContentEncoding = c.headers
		got := f.Invoke(t.Context(), r)
		if got.Status != c.status {
			t.Errorf("%q: %d %s", c.headers, got.Status, got.Body)
		}
		if refused := c.status == http.StatusUnsupportedMediaType; refused != (got.Header.Get("Accept-Encoding") == "identity") || refused && string(got.Body) != `{"errors":[{"message":"The body must have no Content-Encoding."}]}` {
			t.Errorf("%q: %v %s", c.headers, got.Header, got.Body)
		}
	}
}

func TestMembersAreOfTheirTypes(t *testing.T) {
	for body, want := range map[string]string{
		`{"name":"ann","count":"3"}`:  "count must be a whole number.",
		`{"name":"ann","count":3.5}`:  "count must be a whole number.",
		`{"name":"ann","count":1e99}`: "count must be a whole number.",
		`{"name":["ann"],"count":3}`:  "name must be a string.",
		`{"name":"bad","count":3}`:    "Bad name.",
		`{"name":"ann"}`:              "count is missing.",
	} {
		err := endpoint.Decode([]byte(body), new(input))
		if items := apierror.From(err).Items(); len(items) != 1 || items[0].Message != want {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{`{"name":"a","count":1}`, `{}`, `[]`, `{"a":{"a":[{}]}}`, "{\"\xff\":1}", `{"a":"\u0000"}`, `{"a":1,"a":2}`, `{"\ud800":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var in input
		if err := endpoint.Decode(body, &in); err != nil {
			if kind := apierror.From(err).Kind(); kind != apierror.Invalid || errors.Unwrap(apierror.From(err)) != nil {
				t.Errorf("kind %d, %v", kind, err)
			}
			return
		}
		if bytes.Contains(body, []byte{0}) || strings.ContainsRune(in.Name, 0) || !strings.HasPrefix(strings.TrimLeft(string(body), " \t\r\n"), "{") {
			t.Errorf("%q is taken", body)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	body := []byte(`{"name":"ann@example.com","count":12}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := endpoint.Decode(body, new(input)); err != nil {
			b.Fatal(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
