package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/serve"
)

type named struct {
	Name string `json:"name"`
}

// echo answers with its input, after the gate if there is one.
func echo(gate chan struct{}) endpoint.Endpoint {
	return endpoint.Define(endpoint.Spec{Name: "echo", Method: http.MethodPost, Path: "/echo", Success: http.StatusOK},
		func(*app.Wiring) endpoint.Handler[named, named] {
			return func(_ context.Context, in named) (named, error) {
				if gate != nil {
					gate <- struct{}{} // begun
					<-gate             // go on
				}
				return in, nil
			}
		})
}

// needless is a function that asks for nothing.
var needless = endpoint.Define(endpoint.Spec{Name: "needless", Method: http.MethodGet, Path: "/needless", Success: http.StatusOK},
	func(*app.Wiring) endpoint.Handler[endpoint.None, string] {
		return func(context.Context, endpoint.None) (string, error) { return "hello", nil }
	})

// needy is a function that asks for all there is.
var needy = endpoint.Define(endpoint.Spec{Name: "needy", Method: http.MethodGet, Path: "/needy", Success: http.StatusOK},
	func(w *app.Wiring) endpoint.Handler[endpoint.None, string] {
		w.Required("MONGODB_URI")
		w.Document("SIGNING_KEYS")
		return func(context.Context, endpoint.None) (string, error) { return "", nil }
	})

func wiring(log io.Writer, settings map[string]string) *app.Wiring {
	return app.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(log, o) }, time.Now)
}

func TestAStartWithAWrongEnvironmentSaysAllThatIsWrongAndExits2(t *testing.T) {
	var stderr bytes.Buffer
	code := serve.Run(t.Context(), func(name string) (string, bool) {
		s, ok := map[string]string{"PORT": "http", "LOG_LEVEL": "loud"}[name]
		return s, ok
	}, &stderr, func(*app.Wiring) []endpoint.Endpoint { return []endpoint.Endpoint{needy} })
	want := `needy cannot start:
  LOG_LEVEL must be debug, info, warn or error
  MONGODB_URI is not set
  SIGNING_KEYS (or SIGNING_KEYS_FILE) is not set
  PORT must be a whole number from 0 to 65535
`
	if code != 2 || stderr.String() != want {
		t.Errorf("exit code %d:\n%s", code, &stderr)
	}
}

// net/http by itself drops a request that it reads after its Shutdown has begun.
func TestAStopAnswersWhoWasConnectedBefore(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := wiring(io.Discard, nil)
	stopped := make(chan error, 1)
	go func() { stopped <- serve.Serve(ctx, listener, serve.Handler(w, echo(nil)), w.Log()) }()
	connections := make([]net.Conn, 20)
	for i := range connections {
		if connections[i], err = net.Dial("tcp", listener.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // they are accepted, and say nothing yet
	stop()
	time.Sleep(50 * time.Millisecond)
	for i, c := range connections {
		fmt.Fprint(c, "GET /health/readiness HTTP/1.1\r\nHost: x\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("connection %d: %v %v", i, answer, err)
		}
		c.Close()
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestAStopFinishesWhatHasBegun(t *testing.T) {
	gate := make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := wiring(io.Discard, nil)
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- serve.Serve(ctx, listener, serve.Handler(w, echo(gate)), w.Log()) }()
	answered := make(chan string, 1)
	go func() {
		r, err := http.Post("http://"+listener.Addr().String()+"/echo", "application/json", strings.NewReader(`{"name":"ann"}`))
		if err != nil {
			answered <- err.Error()
			return
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		answered <- r.Status + string(b)
	}()
	<-gate
	stop()
	for { // until the stop is under way
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the answer: %v", err)
	case gate <- struct{}{}:
	}
	if got := <-answered; got != `200 OK{"name":"ann"}` {
		t.Errorf("answer %s", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestHealthAsksNobodyAndIsNotLogged(t *testing.T) {
	var log bytes.Buffer
	server := httptest.NewServer(serve.Handler(wiring(&log, nil), echo(nil)))
	defer server.Close()
	for _, path := range []string{"/health/liveness", "/health/readiness"} {
		r, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != http.StatusOK || string(body) != `{"status":"ok"}` || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v %s", path, r, body)
		}
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", &log)
	}
	for path, want := range map[string]int{"/health": 404, "/health/": 404, "/health/readiness/": 404, "/health%2Fliveness": 404} {
		r, err := http.Get(server.URL + path)
		if err != nil || r.StatusCode != want {
			t.Errorf("%s: %v %v", path, r, err)
		}
		r.Body.Close()
	}
	r, err := http.Post(server.URL+"/health/liveness", "", nil)
	if err != nil || r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %v %v", r, err)
	}
	r.Body.Close()
}

func TestTheTraceOfTheCallerIsLogged(t *testing.T) {
	var log bytes.Buffer
	handler := serve.Handler(wiring(&log, nil), echo(nil))
	r := httptest.NewRequest(http.MethodGet, "/elsewhere", nil)
	r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	handler.ServeHTTP(httptest.NewRecorder(), r)
	if !strings.Contains(log.String(), `"trace":"4bf92f3577b34da6a3ce929d0e0e4736"`) || strings.Contains(log.String(), "elsewhere") {
		t.Errorf("log: %s", &log)
	}
}

func TestOriginsThatAreNotAllowedGetNoCORSHeader(t *testing.T) {
	for _, c := range []struct{ name, allowed, origin, want string }{
		{"none is allowed where none is named", "", "https://tickets.example", ""},
		{"one that is named is allowed", "https://a.example, https://tickets.example", "https://tickets.example", "https://tickets.example"},
		{"another is not", "https://tickets.example", "https://evil.example", ""},
		{"another scheme is another origin", "https://tickets.example", "http://tickets.example", ""},
		{"a longer name is another origin", "https://tickets.example", "https://tickets.example.evil", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := wiring(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": c.allowed})
			handler := serve.Handler(w, echo(nil))
			if err := w.Err(); err != nil {
				t.Fatal(err)
			}
			preflight := httptest.NewRequest(http.MethodOptions, "/echo", nil)
			preflight.Header.Set("Access-Control-Request-Method", "POST")
			preflight.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
			post := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(`{"name":"ann"}`))
			post.Header.Set("Content-Type", "application/json")
			for _, r := range []*http.Request{preflight, post} {
				r.Header.Set("Origin", c.origin)
				answer := httptest.NewRecorder()
				handler.ServeHTTP(answer, r)
				h := answer.Result().Header
				if got := h.Get("Access-Control-Allow-Origin"); got != c.want || h.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("%s: %v", r.Method, h)
				}
				if r == preflight && (h.Get("Access-Control-Allow-Headers") != "") != (c.want != "") {
					t.Errorf("preflight: %v", h)
				}
			}
		})
	}
}

// Behind a proxy two requests may share a connection, and what one leaves unread
// must not become the start of the next.
func TestARefusalThatReadsNoBodyClosesTheConnection(t *testing.T) {
	server := httptest.NewServer(serve.Handler(wiring(io.Discard, nil), echo(nil)))
	defer server.Close()
	for request, status := range map[string]string{
		"POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000000000": "413",
		"POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 20000":      "413",
		"POST /echo HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 10":               "415",
		"POST /nothing HTTP/1.1\r\nContent-Length: 10":                                        "404",
		"PUT /echo HTTP/1.1\r\nTransfer-Encoding: chunked":                                    "405",
	} {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "%s\r\nHost: x\r\n\r\n", request)
		answer, err := io.ReadAll(bufio.NewReader(c)) // to the end, though the body is never sent
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+status+" ") || !strings.Contains(string(answer), "\r\nConnection: close\r\n") {
			t.Errorf("%s: %v %s", request, err, answer)
		}
		c.Close()
	}
}

// One who says that the request is the last is no different: the answer is not lost to a
// reset, however much is still on its way.
func TestWhoIsRefusedWhileSendingMaySendTheRest(t *testing.T) {
	address := listen(t)
	for _, connection := range []string{"close", "keep-alive"} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20000\r\nConnection: %s\r\n\r\n", connection)
		r := bufio.NewReader(c)
		answer, err := http.ReadResponse(r, nil)
		if err != nil || answer.StatusCode != http.StatusRequestEntityTooLarge {
			t.Fatal(answer, err)
		}
		io.Copy(io.Discard, answer.Body)
		for range 20 {
			if _, err := io.WriteString(c, strings.Repeat(" ", 1000)); err != nil {
				t.Errorf("%s: %v", connection, err)
			}
			time.Sleep(time.Millisecond)
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("%s: %v", connection, err)
		}
	}
}

func TestAWholeBodyKeepsTheConnection(t *testing.T) {
	server := httptest.NewServer(serve.Handler(wiring(io.Discard, nil), echo(nil)))
	defer server.Close()
	for _, body := range []string{`{"name":"ann"}`, `{"name":1}`} {
		r, err := http.Post(server.URL+"/echo", "application/json", strings.NewReader(body))
		if err != nil || r.Close {
			t.Errorf("%s: %v %v", body, r, err)
		}
		r.Body.Close()
	}
}

func TestAnOriginIsNamedInFull(t *testing.T) {
	for _, origin := range []string{"*", "https://*", "https://*.tickets.example", "tickets.example", "https://tickets.example/", "null"} {
		w := wiring(io.Discard, map[string]string{"CORS_ALLOWED_ORIGINS": "https://a.example," + origin})
		if serve.Handler(w, echo(nil)); w.Err() == nil {
			t.Errorf("%s is taken", origin)
		}
	}
}
