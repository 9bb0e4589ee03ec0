package httpserver_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

// working is a function that starts work after each response. The response is the result of its
// Later, or "none" without a Later.
func working(work func()) endpoint.Function {
	return function(endpoint.Define(endpoint.Spec{Method: http.MethodPost, Path: "/working", Access: endpoint.Public, Success: http.StatusOK},
		newNothing, func(_ nothing, ctx context.Context, in named) (named, error) {
			later := endpoint.LaterFrom(ctx)
			switch {
			case later == nil:
				return named{"none"}, nil
			case later(work):
				return named{"started"}, nil
			}
			return named{"refused"}, nil
		}))
}

// callWorking sends a request to a working function and returns the response.
func callWorking(t *testing.T, address string) string {
	t.Helper()
	response, err := http.Post("http://"+address+"/working", "application/json", strings.NewReader(`{"name":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

const started, refused = `{"name":"started"}`, `{"name":"refused"}`

// The client has the whole response while the work after it runs. A shutdown waits for the work.
func TestServe_WorkAfterResponse(t *testing.T) {
	t.Parallel()
	running, finish := make(chan struct{}), make(chan struct{})
	s := serve(t, newConfig(io.Discard, nil), working(func() { running <- struct{}{}; <-finish }))
	for range 2 { // on one connection
		if got := callWorking(t, s.address); got != started {
			t.Errorf("got %s, want %s", got, started)
		}
		<-running
	}
	s.stop()
	finish <- struct{}{}
	select {
	case err := <-s.stopped:
		t.Errorf("Serve returned %v before the end of the work", err)
	default:
	}
	finish <- struct{}{}
	if err := <-s.stopped; err != nil {
		t.Error(err)
	}
}

// The work starts even if the client has closed the connection, and if the server closes it.
func TestServe_WorkAfterClosedConnection(t *testing.T) {
	t.Parallel()
	var done sync.WaitGroup
	address := serveUntilEnd(t, newConfig(io.Discard, nil), working(done.Done))
	for _, request := range []string{
		"POST /working HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"name\":\"x\"}",
		"POST /working HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{\"name\":\"x\"}\r\n0\r\n\r\n",
		"POST /working HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"name\":\"x\"}",
	} {
		done.Add(1)
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, request)
		c.Close()
		done.Wait()
	}
}

func TestServe_TooMuchWorkAfterResponses(t *testing.T) {
	t.Parallel()
	const limit = 100
	finish := make(chan struct{})
	var log bytes.Buffer
	s := serve(t, newConfig(&log, nil), working(func() { <-finish; panic("secret") }))
	for range limit {
		if got := callWorking(t, s.address); got != started {
			t.Fatalf("got %s, want %s", got, started)
		}
	}
	if got := callWorking(t, s.address); got != refused {
		t.Errorf("got %s over the limit, want %s", got, refused)
	}
	close(finish)
	s.stop()
	if err := <-s.stopped; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "work after a response failed"); n != limit || strings.Contains(log.String(), "secret") {
		t.Errorf("got %d log lines about a panic, want %d without its value", n, limit)
	}
}

// AWS Lambda may freeze the process after a response.
func TestLambda_NoWorkAfterResponse(t *testing.T) {
	handler := httpserver.Handler(newConfig(io.Discard, nil), working(func() { t.Error("the work ran") }))
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/working", strings.NewReader(`{"name":"x"}`))
	r.Header.Set("Content-Type", "application/json")
	handler.ServeHTTP(w, r)
	got := invoke(t, handler, `{"rawPath":"/working","headers":{"content-type":"application/json"},"body":"{\"name\":\"x\"}","requestContext":{"http":{"method":"POST"}}}`)
	if want := `{"name":"none"}`; w.Body.String() != want || got.Body != want {
		t.Errorf("got %s and %s, want %s", w.Body, got.Body, want)
	}
}
