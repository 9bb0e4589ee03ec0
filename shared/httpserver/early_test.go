package httpserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/httpserver"
)

// private takes a bearer token and reads no body.
var private = endpoint.Define(endpoint.Spec{Name: "private", Method: http.MethodPost, Path: "/private", Success: http.StatusOK},
	func(*config.Config) endpoint.Handler[endpoint.Bearer, string] {
		return func(context.Context, endpoint.Bearer) (string, error) { return "hello", nil }
	})

// keyed reads the Idempotency-Key before the body.
var keyed = endpoint.Define(endpoint.Spec{Name: "keyed", Method: http.MethodPost, Path: "/keyed", Success: http.StatusOK},
	func(*config.Config) endpoint.Handler[keyedInput, named] {
		return func(_ context.Context, in keyedInput) (named, error) { return named{in.Name}, nil }
	})

type keyedInput struct {
	endpoint.Keyed
	Name string `json:"name"`
}

// taker takes an event.
var taker = receiver.On(endpoint.Define(endpoint.Spec{Name: "taker", Method: http.MethodPost, Path: "/taker", Success: http.StatusOK},
	func(*config.Config) endpoint.Handler[named, named] {
		return func(_ context.Context, in named) (named, error) { return in, nil }
	}), endpoint.Trigger{Types: []string{"taken"}, Reply: "done", Refusal: "refused"},
	func(*config.Config) endpoint.Handler[named, named] {
		return func(_ context.Context, in named) (named, error) { return in, nil }
	})

const eventHeaders = "Content-Type: application/json\r\nCe-Specversion: 1.0\r\nCe-Id: 1\r\nCe-Source: /test\r\nCe-Type: taken\r\n"

// serveEarly serves endpoints of every kind, as a process does, and returns the address
// of the server and that of a reverse proxy in front of it.
func serveEarly(t *testing.T, settings map[string]string) (direct, proxy string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := wiring(io.Discard, settings)
	handler := httpserver.Handler(cfg, echo(nil), needless, private, keyed, taker)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- httpserver.Serve(ctx, listener, handler, cfg.Log()) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	direct = listener.Addr().String()
	front := httptest.NewServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: direct}))
	t.Cleanup(front.Close)
	return direct, front.Listener.Addr().String()
}

// writeAll writes a whole request, and only then reads. It returns the status.
func writeAll(address, head, body string, chunked bool) (int, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	framed := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	if chunked {
		framed = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	}
	if _, err := io.WriteString(c, head+framed); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	return answered(c)
}

// answered reads one whole response.
func answered(c net.Conn) (int, error) {
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	return answer.StatusCode, nil
}

// post sends a request as Go's client does: it reads while it writes.
func post(address, body string, chunked bool) (int, error) {
	var reader io.Reader = strings.NewReader(body)
	if chunked {
		reader = io.MultiReader(reader) // of unknown length
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+address+"/echo", reader)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

// A server that closes a connection with something unread resets it, and the reset can
// overtake the response.
func TestEarlyAnswer_LargeBody(t *testing.T) {
	t.Parallel()
	direct, proxy := serveEarly(t, nil)
	const head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for _, size := range []int{1 << 20, 4 << 20} {
		body := strings.Repeat(" ", size)
		for way, address := range map[string]string{"direct": direct, "through a reverse proxy": proxy} {
			for kind, send := range map[string]func(chunked bool) (int, error){
				"a client that reads while it writes": func(chunked bool) (int, error) { return post(address, body, chunked) },
				"a client that writes, then reads":    func(chunked bool) (int, error) { return writeAll(address, head, body, chunked) },
			} {
				t.Run(fmt.Sprintf("%d MB, %s, %s", size>>20, way, kind), func(t *testing.T) {
					for i := range 60 {
						if status, err := send(i%2 == 1); err != nil || status != http.StatusRequestEntityTooLarge {
							t.Errorf("request %d: %d %v", i, status, err)
						}
					}
				})
			}
		}
	}
}

// Every response that comes before the body was read, on a route and to an event.
func TestEarlyAnswer_EveryStatus(t *testing.T) {
	direct, proxy := serveEarly(t, map[string]string{"EVENTS": "insecure"})
	shut, shutProxy := serveEarly(t, map[string]string{"EVENTS": "on", "EVENT_OIDC_ISSUER": "https://issuer.example", "EVENT_OIDC_AUDIENCE": "test"})
	const json = "Content-Type: application/json\r\n"
	body := strings.Repeat(" ", 1<<20)
	for name, c := range map[string]struct {
		line, headers string
		want          int
	}{
		"200, no body is read":              {"POST /private", "Authorization: Bearer x\r\n", 200},
		"200, a GET with a body":            {"GET /needless", "", 200},
		"401, no token":                     {"POST /private", "", 401},
		"400, the key of a retry":           {"POST /keyed", json + "Idempotency-Key: \"\"\r\n", 400},
		"404, an unknown path":              {"POST /nothing", json, 404},
		"405, another method":               {"PUT /echo", json, 405},
		"405, a probe":                      {"POST /health/liveness", json, 405},
		"413, a body":                       {"POST /echo", json, 413},
		"415, another media type":           {"POST /echo", "Content-Type: text/plain\r\n", 415},
		"415, a coding":                     {"POST /echo", json + "Content-Encoding: gzip\r\n", 415},
		"415, an event on a route":          {"POST /echo", eventHeaders, 415},
		"401, an event without a token":     {"POST /", eventHeaders, 401},
		"413, an event":                     {"POST /", eventHeaders, 413},
		"415, an event with a coding":       {"POST /", eventHeaders + "Content-Encoding: gzip\r\n", 415},
		"404, no event, on the events path": {"PUT /", json, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ways := map[string]string{"direct": direct, "through a reverse proxy": proxy}
			if c.line == "POST /" && c.want == http.StatusUnauthorized {
				ways = map[string]string{"direct": shut, "through a reverse proxy": shutProxy}
			}
			for way, address := range ways {
				for i := range 6 {
					status, err := writeAll(address, c.line+" HTTP/1.1\r\nHost: x\r\n"+c.headers, body, i%2 == 1)
					if err != nil || status != c.want {
						t.Errorf("%s: %d %v", way, status, err)
					}
				}
			}
		})
	}
}

// What net/http cannot read as a body it does not skip either.
func TestEarlyAnswer_MalformedChunks(t *testing.T) {
	t.Parallel()
	direct, _ := serveEarly(t, nil)
	for range 60 {
		c, err := net.Dial("tcp", direct)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"+strings.Repeat(" ", 4<<20))
		if status, readErr := answered(c); err != nil || readErr != nil || status != http.StatusBadRequest {
			t.Errorf("%d %v %v", status, err, readErr)
		}
		c.Close()
	}
}

// A client that never stops, or that pauses forever, gets its response and is
// disconnected.
func TestEarlyAnswer_EndlessBody(t *testing.T) {
	direct, _ := serveEarly(t, map[string]string{"EVENTS": "insecure"})
	chunk := strings.Repeat(" ", 1<<10)
	for name, c := range map[string]struct {
		head, piece string
		pause       time.Duration
		want        int
	}{
		"a length":                {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n", chunk, 0, 413},
		"chunks":                  {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", "400\r\n" + chunk + "\r\n", 0, 413},
		"a length, slowly":        {"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", " ", 10 * time.Millisecond, 404},
		"chunks, slowly":          {"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", 10 * time.Millisecond, 404},
		"no chunks, slowly":       {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", "no chunk\r\n", 10 * time.Millisecond, 400},
		"a length, asked to wait": {"POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n", " ", 10 * time.Millisecond, 404},
		"an event":                {"POST / HTTP/1.1\r\nHost: x\r\n" + eventHeaders + "Transfer-Encoding: chunked\r\n\r\n", "400\r\n" + chunk + "\r\n", 0, 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", direct)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began, closed := time.Now(), make(chan time.Duration)
			io.WriteString(conn, c.head)
			go func() {
				for {
					if _, err := io.WriteString(conn, c.piece); err != nil {
						closed <- time.Since(began)
						return
					}
					time.Sleep(c.pause)
				}
			}()
			if status, err := answered(conn); err != nil || status != c.want {
				t.Errorf("%d %v", status, err)
			}
			if took := <-closed; took > 5*time.Second {
				t.Errorf("the connection was open for %v", took)
			}
		})
	}
}

// A client that waits for leave to send its body learns at once that it need not.
func TestEarlyAnswer_ExpectContinue(t *testing.T) {
	direct, _ := serveEarly(t, nil)
	conn, err := net.Dial("tcp", direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	io.WriteString(conn, "POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
	if status, err := answered(conn); err != nil || status != http.StatusNotFound || time.Since(began) > 500*time.Millisecond {
		t.Errorf("%d %v after %v", status, err, time.Since(began))
	}
}

// Behind a proxy two requests may share a connection, and what one leaves unread must not
// become the start of the next.
func TestEarlyAnswer_ClosesTheConnection(t *testing.T) {
	server := httptest.NewServer(httpserver.Handler(wiring(io.Discard, nil), echo(nil)))
	t.Cleanup(server.Close)
	for request, status := range map[string]string{
		"POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000000000": "413",
		"POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 20000":      "413",
		"POST /echo HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 10":               "415",
		"POST /nothing HTTP/1.1\r\nContent-Length: 10":                                        "404",
		"PUT /echo HTTP/1.1\r\nTransfer-Encoding: chunked":                                    "405",
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "%s\r\nHost: x\r\n\r\n", request)
			answer, err := io.ReadAll(bufio.NewReader(c)) // to the end, though the body is never sent
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+status+" ") || !strings.Contains(string(answer), "\r\nConnection: close\r\n") {
				t.Errorf("%v %s", err, answer)
			}
		})
	}
}

// A client that has its response may send the rest, whether or not it has asked to close
// the connection.
func TestEarlyAnswer_ClientSendsOn(t *testing.T) {
	address := listen(t)
	for _, connection := range []string{"close", "keep-alive"} {
		for _, framing := range []string{"Content-Length: 20000", "Transfer-Encoding: chunked"} {
			t.Run(connection+", "+framing, func(t *testing.T) {
				t.Parallel()
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				fmt.Fprintf(c, "POST /nothing HTTP/1.1\r\nHost: x\r\n%s\r\nConnection: %s\r\n\r\n", framing, connection)
				if status, err := answered(c); err != nil || status != http.StatusNotFound {
					t.Fatal(status, err)
				}
				for range 20 {
					if _, err := io.WriteString(c, strings.Repeat(" ", 1000)); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
				}
				if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
					t.Error(n, err)
				}
			})
		}
	}
}
