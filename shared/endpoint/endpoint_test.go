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

// bind returns a function with the given handler, and its log.
func bind[In, Out any](spec endpoint.Spec, handle func(context.Context, In) (Out, error)) (*endpoint.Bound, *bytes.Buffer) {
	var log bytes.Buffer
	cfg := config.New(func(string) (string, bool) { return "", false },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(&log, o) }, time.Now)
	return endpoint.Define(spec, func(*config.Config) struct{} { return struct{}{} },
		func(_ struct{}, ctx context.Context, in In) (Out, error) { return handle(ctx, in) }).Bind(cfg, "test"), &log
}

func request(body string) *endpoint.Request {
	return &endpoint.Request{Method: "POST", ContentType: []string{"application/json"}, Length: int64(len(body)), Body: strings.NewReader(body)}
}

var spec = endpoint.Spec{Method: "POST", Path: "/test", Access: endpoint.Public, Success: 200}

func TestInvoke_Success(t *testing.T) {
	f, log := bind(spec, func(_ context.Context, in input) (input, error) { return in, nil })
	got := f.Invoke(t.Context(), request(`{"count":3,"name":"<ann>","more":[{}]}`))
	if got.Status != 200 || string(got.Body) != `{"name":"<ann>","count":3}` || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v %s, want 200, no-store and the input", got.Status, got.Header, got.Body)
	}
	if strings.Contains(log.String(), "ann") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log %s, want one line without the input", log)
	}
}

func TestInvoke_Failure(t *testing.T) {
	cause := errors.New("secret of the database")
	for _, c := range []struct {
		name   string
		handle func(context.Context, endpoint.None) (any, error)
		status int
		log    string
	}{
		{"an untyped error", func(context.Context, endpoint.None) (any, error) { return nil, cause }, 500, "secret of the database"},
		{"an API error with a cause", func(context.Context, endpoint.None) (any, error) { return nil, apierror.Unreachable(cause) }, 503, "secret of the database"},
		{"a panic with a value", func(context.Context, endpoint.None) (any, error) { panic("password123") }, 500, "panic: a string"},
		{"a nil dereference", func(context.Context, endpoint.None) (any, error) { var p *input; return p.Name, nil }, 500, "nil pointer"},
		{"an output that JSON cannot represent", func(context.Context, endpoint.None) (any, error) { return make(chan int), nil }, 500, "render"},
		{"a deadline", func(ctx context.Context, _ endpoint.None) (any, error) { <-ctx.Done(); return nil, ctx.Err() }, 503, "deadline"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, log := bind(spec, c.handle)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			got := f.Invoke(ctx, &endpoint.Request{Method: "POST"})
			if got.Status != c.status || strings.Contains(string(got.Body), "secret") {
				t.Errorf("got %d %s, want %d without the cause", got.Status, got.Body, c.status)
			}
			if !strings.Contains(log.String(), c.log) || strings.Contains(log.String(), "password123") {
				t.Errorf("log %s, want %q and no panic value", log, c.log)
			}
		})
	}
}

func TestInvoke_ClientDisconnects(t *testing.T) {
	f, log := bind(spec, func(ctx context.Context, _ endpoint.None) (any, error) { return nil, ctx.Err() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Invoke(ctx, &endpoint.Request{Method: "POST"})
	if !strings.Contains(log.String(), `"status":499`) || strings.Contains(log.String(), `"level":"ERROR"`) {
		t.Errorf("log %s, want status 499 below level ERROR", log)
	}
}

func TestInvoke_CacheControl(t *testing.T) {
	cached := spec
	cached.Method = "GET"
	cached.MaxAge = time.Minute
	failing := true
	f, _ := bind(cached, func(context.Context, endpoint.None) (string, error) {
		if failing {
			return "", apierror.Unreachable(nil)
		}
		return "x", nil
	})
	if got := f.Invoke(t.Context(), &endpoint.Request{}).Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("an error: Cache-Control %q, want no-store", got)
	}
	failing = false
	if got := f.Invoke(t.Context(), &endpoint.Request{}).Header.Get("Cache-Control"); got != "public, max-age=60" {
		t.Errorf("a success: Cache-Control %q, want public, max-age=60", got)
	}
}

// A transport may pass a body of unknown length or a truncated body.
func TestInvoke_BodyLimit(t *testing.T) {
	f, _ := bind(spec, func(_ context.Context, in input) (input, error) { return in, nil })
	endless := &counting{r: zeros{}}
	r := request("")
	r.Length, r.Body = -1, endless
	if got := f.Invoke(t.Context(), r); got.Status != http.StatusRequestEntityTooLarge || endless.n > endpoint.MaxBody+1 {
		t.Errorf("a body of unknown length: got %d after %d bytes, want 413 after at most %d", got.Status, endless.n, endpoint.MaxBody+1)
	}
	declared := &counting{r: zeros{}}
	r.Length, r.Body = endpoint.MaxBody+1, declared
	if got := f.Invoke(t.Context(), r); got.Status != http.StatusRequestEntityTooLarge || declared.n != 0 {
		t.Errorf("a body with a large Content-Length: got %d after %d bytes, want 413 after 0", got.Status, declared.n)
	}
	r.Length, r.Body = 10, io.MultiReader(strings.NewReader(`{"name":`), truncated{})
	if got := f.Invoke(t.Context(), r); got.Status != http.StatusBadRequest {
		t.Errorf("a truncated body: got %d %s, want 400", got.Status, got.Body)
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
			t.Errorf("%q: got %d %s, want %d", c.headers, got.Status, got.Body, c.status)
		}
		if rejected := c.status == http.StatusUnsupportedMediaType; rejected != (got.Header.Get("Accept-Encoding") == "identity") || rejected && string(got.Body) != `{"errors":[{"message":"The body must have no Content-Encoding."}]}` {
			t.Errorf("%q: got %v %s, want Accept-Encoding only with 415", c.headers, got.Header, got.Body)
		}
	}
}

func TestDecode_InvalidMembers(t *testing.T) {
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
			t.Errorf("%s: got %v, want %q", body, err, want)
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
				t.Errorf("kind %d, %v, want Invalid without a cause", kind, err)
			}
			return
		}
		if bytes.Contains(body, []byte{0}) || strings.ContainsRune(in.Name, 0) || !strings.HasPrefix(strings.TrimLeft(string(body), " \t\r\n"), "{") {
			t.Errorf("Decode(%q) returns no error", body)
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

type truncated struct{}

func (truncated) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
