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

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/events/receiver"
	"ticketing.com/auth/shared/httpserver"
)

// private takes a bearer token and reads no body.
var private = function(endpoint.Define(endpoint.Spec{Method: http.MethodPost, Path: "/private", Access: endpoint.Required, Success: http.StatusOK},
	newNothing, func(_ nothing, _ context.Context, _ privateInput) (string, error) { return "hello", nil }))

type privateInput struct{ AnyToken }

// AnyToken is an identity that accepts every token.
type AnyToken struct{}

func (*AnyToken) Access() endpoint.Access { return endpoint.Required }

func (*AnyToken) ReadPart(_ context.Context, r *endpoint.Request) error {
	token, err := r.Bearer()
	if err == nil && token == "" {
		err = apierror.NoToken()
	}
	return err
}

// keyed reads the Idempotency-Key before the body.
var keyed = function(endpoint.Define(endpoint.Spec{Method: http.MethodPost, Path: "/keyed", Access: endpoint.Public, Success: http.StatusOK},
	newNothing, func(_ nothing, _ context.Context, in keyedInput) (named, error) { return named{in.Name}, nil }))

type keyedInput struct {
	endpoint.Keyed
	Name string `json:"name"`
}

// subscriber receives an event.
var subscriber = endpoint.Function{Name: "subscriber", Receivers: []endpoint.Receiver{
	receiver.On(endpoint.Receiver{
		Types:   []*event.Type{event.Define[named]("taken", "", "")},
		Reply:   event.Define[named]("done", "/test", ""),
		Refusal: event.Define[apierror.Errors]("rejected", "/test", ""),
	},
		newNothing, func(_ nothing, _ context.Context, in named) (named, error) { return in, nil })},
	Endpoints: []endpoint.Endpoint{endpoint.Define(
		endpoint.Spec{Method: http.MethodPost, Path: "/subscriber", Access: endpoint.Public, Success: http.StatusOK},
		newNothing, func(_ nothing, _ context.Context, in named) (named, error) { return in, nil })},
}

const eventHeaders = "Content-Type: application/json\r\nCe-Specversion: 1.0\r\nCe-Id: 1\r\nCe-Source: /test\r\nCe-Type: taken\r\n"

// startServers serves endpoints of every kind. It returns the addresses of the server and of
// a reverse proxy in front of it.
func startServers(t *testing.T, settings map[string]string) (direct, proxy string) {
	t.Helper()
	direct = serveUntilEnd(t, newConfig(io.Discard, settings), echo(nil), minimal, private, keyed, subscriber)
	front := httptest.NewServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: direct}))
	t.Cleanup(front.Close)
	return direct, front.Listener.Addr().String()
}

// writeAll writes a whole request before it reads the response. It returns the status.
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
	return readResponse(c)
}

// checkStatus fails the test unless a request receives a status. The server reads the rest of a request
// for a second before the response, and for a second after it. On a busy machine a request takes longer,
// and can fail rightly, so checkStatus repeats it.
func checkStatus(t *testing.T, name string, want int, send func() (int, error)) {
	t.Helper()
	for range 50 {
		began := time.Now()
		status, err := send()
		if err == nil && status == want {
			return
		}
		if time.Since(began) < time.Second {
			t.Errorf("%s: got %d %v, want %d", name, status, err, want)
			return
		}
	}
	t.Errorf("%s: got no request that took less than a second", name)
}

// readResponse reads one whole response and returns its status.
func readResponse(c net.Conn) (int, error) {
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	return answer.StatusCode, nil
}

// post sends a request with the client of net/http, which reads while it writes.
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

// If a server closes a connection with unread data, it resets the connection. The reset can
// overtake the response. Without the discarding, one in eight clients that write first loses the
// response.
func TestEarlyResponse_LargeBody(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 200 MB")
	}
	t.Parallel()
	direct, proxy := startServers(t, nil)
	const head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	body := strings.Repeat(" ", 4<<20)
	for via, address := range map[string]string{"direct": direct, "through a reverse proxy": proxy} {
		for kind, c := range map[string]struct {
			n    int
			send func(chunked bool) (int, error)
		}{
			"a client that reads while it writes": {4, func(chunked bool) (int, error) { return post(address, body, chunked) }},
			"a client that writes, then reads":    {20, func(chunked bool) (int, error) { return writeAll(address, head, body, chunked) }},
		} {
			t.Run(via+", "+kind, func(t *testing.T) {
				for i := range c.n {
					checkStatus(t, fmt.Sprint("request ", i), http.StatusRequestEntityTooLarge, func() (int, error) { return c.send(i%2 == 1) })
				}
			})
		}
	}
}

// Every response before the end of the body, on a route and to an event.
func TestEarlyResponse_EveryStatus(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("sends 240 MB")
	}
	direct, proxy := startServers(t, map[string]string{"EVENTS": "insecure"})
	oidc, oidcProxy := startServers(t, map[string]string{"EVENTS": "on", "EVENT_OIDC_ISSUER": "https://issuer.example", "EVENT_OIDC_AUDIENCE": "test"})
	const json = "Content-Type: application/json\r\n"
	body := strings.Repeat(" ", 4<<20)
	for name, c := range map[string]struct {
		route, headers string
		want           int
	}{
		"200, a handler without a body":        {"POST /private", "Authorization: Bearer x\r\n", 200},
		"200, a GET with a body":               {"GET /minimal", "", 200},
		"401, no token":                        {"POST /private", "", 401},
		"400, an empty Idempotency-Key":        {"POST /keyed", json + "Idempotency-Key: \"\"\r\n", 400},
		"404, an unknown path":                 {"POST /nothing", json, 404},
		"405, another method":                  {"PUT /echo", json, 405},
		"405, a probe":                         {"POST /health/liveness", json, 405},
		"413, a large body":                    {"POST /echo", json, 413},
		"415, another media type":              {"POST /echo", "Content-Type: text/plain\r\n", 415},
		"415, a coding":                        {"POST /echo", json + "Content-Encoding: gzip\r\n", 415},
		"415, an event on a route":             {"POST /echo", eventHeaders, 415},
		"401, an event without a token":        {"POST /", eventHeaders, 401},
		"413, a large event":                   {"POST /", eventHeaders, 413},
		"415, an event with a coding":          {"POST /", eventHeaders + "Content-Encoding: gzip\r\n", 415},
		"404, the event path without an event": {"PUT /", json, 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addresses := map[string]string{"direct": direct, "through a reverse proxy": proxy}
			if c.route == "POST /" && c.want == http.StatusUnauthorized {
				addresses = map[string]string{"direct": oidc, "through a reverse proxy": oidcProxy}
			}
			for via, address := range addresses {
				for i := range 2 {
					checkStatus(t, via, c.want, func() (int, error) {
						return writeAll(address, c.route+" HTTP/1.1\r\nHost: x\r\n"+c.headers, body, i%2 == 1)
					})
				}
			}
		})
	}
}

// net/http does not discard a body that it cannot parse.
func TestEarlyResponse_MalformedChunks(t *testing.T) {
	t.Parallel()
	direct, _ := startServers(t, nil)
	for i := range 6 {
		checkStatus(t, fmt.Sprint("request ", i), http.StatusBadRequest, func() (int, error) {
			c, err := net.Dial("tcp", direct)
			if err != nil {
				return 0, err
			}
			defer c.Close()
			if _, err = io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"+strings.Repeat(" ", 4<<20)); err != nil {
				return 0, fmt.Errorf("write: %w", err)
			}
			return readResponse(c)
		})
	}
}

// A client that sends an endless body receives the response. Then the server closes the
// connection.
func TestEarlyResponse_EndlessBody(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until the server closes the connection")
	}
	direct, _ := startServers(t, map[string]string{"EVENTS": "insecure"})
	chunk := strings.Repeat(" ", 1<<10)
	for name, c := range map[string]struct {
		head, piece string
		pause       time.Duration
		want        int
	}{
		"a length":             {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000000000\r\n\r\n", chunk, 0, 413},
		"chunks":               {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", "400\r\n" + chunk + "\r\n", 0, 413},
		"a length, slowly":     {"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", " ", 10 * time.Millisecond, 404},
		"chunks, slowly":       {"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", 10 * time.Millisecond, 404},
		"no chunks, slowly":    {"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", "no chunk\r\n", 10 * time.Millisecond, 400},
		"Expect: 100-continue": {"POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n", " ", 10 * time.Millisecond, 404},
		"an event":             {"POST / HTTP/1.1\r\nHost: x\r\n" + eventHeaders + "Transfer-Encoding: chunked\r\n\r\n", "400\r\n" + chunk + "\r\n", 0, 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", direct)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			closed := make(chan struct{})
			io.WriteString(conn, c.head)
			go func() {
				for {
					if _, err := io.WriteString(conn, c.piece); err != nil {
						close(closed)
						return
					}
					time.Sleep(c.pause)
				}
			}()
			if status, err := readResponse(conn); err != nil || status != c.want {
				t.Errorf("got %d %v, want %d", status, err, c.want)
			}
			<-closed
		})
	}
}

// A client that waits for 100 (Continue) receives a final response at once.
func TestEarlyResponse_ExpectContinue(t *testing.T) {
	t.Parallel()
	direct, _ := startServers(t, nil)
	var fastest time.Duration
	for range 10 { // on a busy machine one can be slow
		conn, err := net.Dial("tcp", direct)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		io.WriteString(conn, "POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
		if status, err := readResponse(conn); err != nil || status != http.StatusNotFound {
			t.Fatalf("got %d %v, want 404", status, err)
		}
		if fastest = time.Since(began); fastest < 500*time.Millisecond {
			return
		}
	}
	t.Errorf("got a response after %v, want one within 500ms", fastest)
}

// Behind a proxy two requests may share a connection. The unread rest of the first must not
// become the start of the second.
func TestEarlyResponse_ClosesTheConnection(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(httpserver.Handler(newConfig(io.Discard, nil), echo(nil)))
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
			answer, err := io.ReadAll(bufio.NewReader(c)) // until the server closes the connection: the body is never sent
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+status+" ") || !strings.Contains(string(answer), "\r\nConnection: close\r\n") {
				t.Errorf("got %s, error %v, want %s and Connection: close", answer, err, status)
			}
		})
	}
}

// A client may send the rest of the body after it has received the response, with or without
// Connection: close.
func TestEarlyResponse_ClientContinues(t *testing.T) {
	t.Parallel()
	address := listen(t)
	for _, connection := range []string{"close", "keep-alive"} {
		for _, framing := range []string{"Content-Length: 20000", "Transfer-Encoding: chunked"} {
			t.Run(connection+", "+framing, func(t *testing.T) {
				t.Parallel()
				checkStatus(t, "a client that continues", http.StatusNotFound, func() (int, error) {
					c, err := net.Dial("tcp", address)
					if err != nil {
						return 0, err
					}
					defer c.Close()
					fmt.Fprintf(c, "POST /nothing HTTP/1.1\r\nHost: x\r\n%s\r\nConnection: %s\r\n\r\n", framing, connection)
					status, err := readResponse(c)
					if err != nil {
						return status, err
					}
					for range 20 {
						if _, err := io.WriteString(c, strings.Repeat(" ", 1000)); err != nil {
							return status, fmt.Errorf("write the rest: %w", err)
						}
						time.Sleep(time.Millisecond)
					}
					if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
						return status, fmt.Errorf("read after the response: got %d bytes and %v, want EOF", n, err)
					}
					return status, nil
				})
			})
		}
	}
}
