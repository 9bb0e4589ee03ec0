package httpserver_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/telemetry"
)

// TestMain runs more tests at the same time than there are cores, because they wait for timeouts.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "16")
	os.Exit(m.Run())
}

type named struct {
	Name string `json:"name"`
}

// function returns a function with one endpoint. It has the name of the path.
func function(e endpoint.Endpoint) endpoint.Function {
	return endpoint.Function{Name: e.Path[1:], Endpoints: []endpoint.Endpoint{e}}
}

// nothing is a handler without settings.
type nothing struct{}

func newNothing(*config.Config) nothing { return nothing{} }

// echo returns its input. If pause is not nil, the handler sends on it, then waits for a
// value from it.
func echo(pause chan struct{}) endpoint.Function {
	return function(endpoint.Define(endpoint.Spec{Method: http.MethodPost, Path: "/echo", Access: endpoint.Public, Success: http.StatusOK},
		newNothing, func(_ nothing, _ context.Context, in named) (named, error) {
			if pause != nil {
				pause <- struct{}{}
				<-pause
			}
			return in, nil
		}))
}

// minimal is a function without settings.
var minimal = function(endpoint.Define(endpoint.Spec{Method: http.MethodGet, Path: "/minimal", Access: endpoint.Public, Success: http.StatusOK},
	newNothing, func(nothing, context.Context, endpoint.None) (string, error) { return "hello", nil }))

// configured is a function with required settings.
var configured = function(endpoint.Define(endpoint.Spec{Method: http.MethodGet, Path: "/configured", Access: endpoint.Public, Success: http.StatusOK},
	func(cfg *config.Config) nothing {
		cfg.Required("MONGODB_URI")
		cfg.Document("SIGNING_KEYS")
		return nothing{}
	}, func(nothing, context.Context, endpoint.None) (string, error) { return "", nil }))

// A server serves functions until its context ends.
type server struct {
	address  string
	accepted atomic.Int32 // connections
	stop     context.CancelFunc
	stopped  chan error // the error of Serve
}

func serve(t *testing.T, cfg *config.Config, functions ...endpoint.Function) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := httpserver.Handler(cfg, functions...)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &server{address: listener.Addr().String(), stop: stop, stopped: make(chan error, 1)}
	go func() { s.stopped <- httpserver.Serve(ctx, countedListener{listener, &s.accepted}, handler, cfg.Log()) }()
	return s
}

// serveUntilEnd serves functions until the end of the test and returns the address.
func serveUntilEnd(t *testing.T, cfg *config.Config, functions ...endpoint.Function) string {
	t.Helper()
	s := serve(t, cfg, functions...)
	t.Cleanup(func() {
		s.stop()
		if err := <-s.stopped; err != nil {
			t.Error(err)
		}
	})
	return s.address
}

// A countedListener counts accepted connections.
type countedListener struct {
	net.Listener
	n *atomic.Int32
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

func newConfig(log io.Writer, settings map[string]string) *config.Config {
	return config.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
		func(o *slog.HandlerOptions) slog.Handler { return telemetry.LogHandler(slog.NewJSONHandler(log, o)) }, time.Now)
}

func TestRun_InvalidSettings(t *testing.T) {
	var stderr bytes.Buffer
	code := httpserver.Run(t.Context(), func(name string) (string, bool) {
		s, ok := map[string]string{"PORT": "http", "LOG_LEVEL": "loud"}[name]
		return s, ok
	}, &stderr, func(*config.Config) []endpoint.Function { return []endpoint.Function{configured} })
	want := `configured cannot start:
  LOG_LEVEL must be debug, info, warn or error
  MONGODB_URI is not set
  SIGNING_KEYS (or SIGNING_KEYS_FILE) is not set
  PORT must be a whole number from 0 to 65535
`
	if code != 2 || stderr.String() != want {
		t.Errorf("got exit code %d and\n%s\nwant 2 and\n%s", code, &stderr, want)
	}
}

// Without newConnections, Server.Shutdown drops a request that arrives after its start.
func TestServe_ShutdownServesOpenConnections(t *testing.T) {
	s := serve(t, newConfig(io.Discard, nil), echo(nil))
	connections := make([]net.Conn, 20)
	for i := range connections {
		var err error
		if connections[i], err = net.Dial("tcp", s.address); err != nil {
			t.Fatal(err)
		}
	}
	for int(s.accepted.Load()) < len(connections) {
		time.Sleep(time.Millisecond)
	}
	s.stop()
	for refused := false; !refused; {
		c, err := net.Dial("tcp", s.address)
		if refused = err != nil; !refused {
			c.Close()
		}
	}
	for _, c := range connections { // all within firstRequestTimeout
		fmt.Fprint(c, "GET /health/readiness HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	for i, c := range connections {
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || answer.StatusCode != http.StatusOK || !answer.Close {
			t.Fatalf("connection %d: got %v %v, want 200 and Connection: close", i, answer, err)
		}
		c.Close()
	}
	if err := <-s.stopped; err != nil {
		t.Error(err)
	}
}

// A connection without a request delays a shutdown by firstRequestTimeout at most.
func TestServe_ShutdownClosesSilentConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a first request")
	}
	t.Parallel()
	s := serve(t, newConfig(io.Discard, nil), echo(nil))
	silent, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for s.accepted.Load() < 1 {
		time.Sleep(time.Millisecond)
	}
	s.stop()
	if err := <-s.stopped; err != nil {
		t.Error(err)
	}
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read from the silent connection: got %v, want EOF", err)
	}
}

// The server closes the connection of a slow client after the read timeout.
func TestServe_SlowClientIsDisconnected(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the read timeout")
	}
	t.Parallel()
	address := listen(t)
	for name, sent := range map[string]string{
		"nothing":          "",
		"half of a header": "POST /echo HTTP/1.1\r\nHost: x\r\nConte",
		"half of a body":   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, sent)
			if answer, err := io.ReadAll(c); err != nil || bytes.Contains(answer, []byte("200 OK")) {
				t.Errorf("got %q, error %v, want EOF without status 200", answer, err)
			}
		})
	}
}

func TestMaxConnections(t *testing.T) {
	for name, c := range map[string]struct {
		memory int64
		want   int
	}{
		"64 MiB container":  {57 << 20, 202},
		"128 MiB container": {115 << 20, 408},
		"1 MiB":             {1 << 20, 16},
		"no limit":          {math.MaxInt64, 4096},
	} {
		if got := httpserver.MaxConnections(c.memory); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestServe_ShutdownDrainsInFlightRequests(t *testing.T) {
	pause := make(chan struct{})
	s := serve(t, newConfig(io.Discard, nil), echo(pause))
	responses := make(chan string, 1)
	go func() {
		r, err := http.Post("http://"+s.address+"/echo", "application/json", strings.NewReader(`{"name":"ann"}`))
		if err != nil {
			responses <- err.Error()
			return
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		responses <- r.Status + string(b)
	}()
	<-pause
	s.stop()
	for { // until the listener is closed
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case err := <-s.stopped:
		t.Fatalf("Serve returned %v before the response", err)
	case pause <- struct{}{}:
	}
	if got := <-responses; got != `200 OK{"name":"ann"}` {
		t.Errorf("got %s, want 200 and the input", got)
	}
	if err := <-s.stopped; err != nil {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	var log bytes.Buffer
	server := httptest.NewServer(httpserver.Handler(newConfig(&log, nil), echo(nil)))
	defer server.Close()
	for _, path := range []string{"/health/liveness", "/health/readiness"} {
		r, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != http.StatusOK || string(body) != `{"status":"ok"}` || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %v %s, want 200", path, r, body)
		}
	}
	if log.Len() > 0 {
		t.Errorf("log %s, want no lines for probes", &log)
	}
	for path, want := range map[string]int{"/health": 404, "/health/": 404, "/health/readiness/": 404, "/health%2Fliveness": 404} {
		r, err := http.Get(server.URL + path)
		if err != nil || r.StatusCode != want {
			t.Errorf("%s: got %v %v, want %d", path, r, err, want)
		}
		r.Body.Close()
	}
	r, err := http.Post(server.URL+"/health/liveness", "", nil)
	if err != nil || r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: got %v %v, want 405 and Allow: GET, HEAD", r, err)
	}
	r.Body.Close()
}

func TestLog_TraceOfTheRequest(t *testing.T) {
	var log bytes.Buffer
	handler := httpserver.Handler(newConfig(&log, nil), echo(nil))
	r := httptest.NewRequest(http.MethodGet, "/unknown", nil)
	r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	handler.ServeHTTP(httptest.NewRecorder(), r)
	if !strings.Contains(log.String(), `"trace":"4bf92f3577b34da6a3ce929d0e0e4736"`) || strings.Contains(log.String(), "unknown") {
		t.Errorf("log %s, want the trace without the path", &log)
	}
}

func TestServe_KeepsConnectionAfterWholeBody(t *testing.T) {
	server := httptest.NewServer(httpserver.Handler(newConfig(io.Discard, nil), echo(nil)))
	defer server.Close()
	for _, body := range []string{`{"name":"ann"}`, `{"name":1}`} {
		r, err := http.Post(server.URL+"/echo", "application/json", strings.NewReader(body))
		if err != nil || r.Close {
			t.Errorf("%s: got %v %v, want an open connection", body, r, err)
		}
		r.Body.Close()
	}
}

func TestEvents_ContentEncoding(t *testing.T) {
	server := httptest.NewServer(httpserver.Handler(newConfig(io.Discard, map[string]string{"EVENTS": "on"}), subscriber))
	defer server.Close()
	for _, c := range []struct {
		coding string
		status int
	}{{"", 200}, {"identity", 200}, {"IDENTITY", 200}, {"gzip", 415}, {"identity, br", 415}} {
		for mode, r := range map[string]struct{ contentType, body string }{
			"binary":     {"application/json", `{"name":"ann"}`},
			"structured": {"application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/test","type":"taken","data":{"name":"ann"}}`},
		} {
			request, err := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(r.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", r.contentType)
			request.Header.Set("Content-Encoding", c.coding)
			if mode == "binary" {
				for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "/test", "Ce-Type": "taken"} {
					request.Header.Set(name, value)
				}
			}
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if answer.StatusCode != c.status || c.status == 415 && string(body) != `{"errors":[{"message":"The body must have no Content-Encoding."}]}` {
				t.Errorf("%s, %q: got %d %s, want %d", mode, c.coding, answer.StatusCode, body, c.status)
			}
		}
	}
}
