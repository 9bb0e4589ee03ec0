// Package lambdatest implements the parts of AWS Lambda that a function's process uses, for
// tests: the Runtime API, and two gateways that convert HTTP requests to events. These are
// HTTP APIs of API Gateway and Function URLs.
//
// The package follows AWS's documentation, not the SDK of the functions, so that tests detect
// an error in either. It does not start, freeze or stop processes, and checks no permissions.
package lambdatest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// prefix is the prefix of all paths of the Runtime API.
	prefix = "/2018-06-01/runtime/"
	// timeout is the timeout in the configuration of the function.
	timeout = 10 * time.Second
	arn     = "arn:aws:lambda:eu-central-1:123456789012:function:under-test"
)

// A Runtime is the Runtime API of one execution environment. It sends the process one event at
// a time.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type Runtime struct {
	Address string // the value of AWS_LAMBDA_RUNTIME_API

	t      testing.TB
	next   chan *invocation
	ready  chan struct{}
	first  sync.Once
	serial sync.Mutex // held by the current invocation

	mu       sync.Mutex
	count    int
	current  *invocation
	requests int
}

type invocation struct {
	id     string
	event  []byte
	result chan Result
}

// A Result is the response of a function to an event, or its error.
type Result struct {
	Payload []byte
	Error   string // the error type if the function failed; Payload then describes the error
}

// New starts a Runtime. It stops when the test ends.
func New(t testing.TB) *Runtime {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Runtime{Address: listener.Addr().String(), t: t, next: make(chan *invocation), ready: make(chan struct{})}
	api := http.NewServeMux()
	api.HandleFunc("GET "+prefix+"invocation/next", r.serveNext)
	api.HandleFunc("POST "+prefix+"invocation/{id}/response", r.serveResult)
	api.HandleFunc("POST "+prefix+"invocation/{id}/error", r.serveResult)
	api.HandleFunc("/", func(w http.ResponseWriter, q *http.Request) {
		t.Errorf("the process sent %s %s, which the Runtime API does not have", q.Method, q.URL) // no function uses init/error
		http.NotFound(w, q)
	})
	server := &http.Server{Handler: r.countRequests(api)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return r
}

// Ready returns a channel that is closed when the process requests its first event. Lambda
// counts the time until then as the cold start.
func (r *Runtime) Ready() <-chan struct{} { return r.ready }

// Requests returns the number of requests from the process.
func (r *Runtime) Requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// Invoke sends an event to the process, after all earlier events. It waits for the response
// until the timeout of the function.
func (r *Runtime) Invoke(ctx context.Context, event []byte) (Result, error) {
	r.serial.Lock()
	defer r.serial.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r.mu.Lock()
	r.count++
	i := &invocation{fmt.Sprintf("00000000-0000-4000-8000-%012d", r.count), event, make(chan Result, 1)}
	r.current = i
	r.mu.Unlock()
	select {
	case r.next <- i:
	case <-ctx.Done():
		return Result{}, fmt.Errorf("the process did not request the event: %w", ctx.Err())
	}
	select {
	case result := <-i.result:
		return result, nil
	case <-ctx.Done():
		return Result{}, fmt.Errorf("the process did not respond to the event: %w", ctx.Err())
	}
}

func (r *Runtime) countRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.requests++
		r.mu.Unlock()
		next.ServeHTTP(w, q)
	})
}

// serveNext waits for an event without a timeout.
func (r *Runtime) serveNext(w http.ResponseWriter, q *http.Request) {
	r.first.Do(func() { close(r.ready) })
	select {
	case i := <-r.next:
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", i.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(timeout).UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", arn)
		h.Set("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1")
		w.Write(i.event)
	case <-q.Context().Done():
	}
}

// serveResult receives the response to an event, exactly once.
func (r *Runtime) serveResult(w http.ResponseWriter, q *http.Request) {
	payload, err := io.ReadAll(q.Body)
	if err != nil {
		r.t.Errorf("read the response: %v", err)
		return
	}
	result := Result{Payload: payload}
	if strings.HasSuffix(q.URL.Path, "/error") {
		result.Error = errorType(payload)
	}
	r.mu.Lock()
	i := r.current
	if i == nil || i.id != q.PathValue("id") {
		r.mu.Unlock()
		r.t.Errorf("the process responded to an unknown event: %s", q.URL)
		http.Error(w, `{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`, http.StatusBadRequest)
		return
	}
	r.current = nil
	r.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, `{"status":"OK"}`)
	i.result <- result
}
