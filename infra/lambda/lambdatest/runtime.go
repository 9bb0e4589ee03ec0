// Package lambdatest is AWS Lambda as a function's process sees it, for tests: the
// Runtime API that the process asks for events, and before it the two gateways
// that make events of HTTP requests, API Gateway's HTTP APIs and Function URLs.
//
// It is written from AWS's documentation, not from the SDK that the functions use,
// so that a misreading on one side shows. It is no Lambda: it starts, freezes and
// ends no process, and grants everything.
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
	// prefix is what the paths of the Runtime API begin with.
	prefix = "/2018-06-01/runtime/"
	// timeout is that of the function, as its configuration would say.
	timeout = 10 * time.Second
	arn     = "arn:aws:lambda:eu-central-1:123456789012:function:under-test"
)

// A Runtime is the Runtime API of one execution environment: it hands the process
// one event at a time.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type Runtime struct {
	Address string // the value of AWS_LAMBDA_RUNTIME_API

	t      testing.TB
	next   chan *invocation
	ready  chan struct{}
	first  sync.Once
	serial sync.Mutex // held by the invocation that goes on

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

// A Result is what became of an event.
type Result struct {
	Payload []byte
	Error   string // its type, where the function failed; the payload then describes it
}

// New starts a Runtime, which is stopped when the test ends.
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
		t.Errorf("the Runtime API is asked for %s %s", q.Method, q.URL) // init/error too: no function here uses it
		http.NotFound(w, q)
	})
	server := &http.Server{Handler: r.counting(api)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return r
}

// Ready is closed when the process has asked for its first event: until then Lambda
// counts its time as that of a cold start.
func (r *Runtime) Ready() <-chan struct{} { return r.ready }

// Requests returns how often the process has called.
func (r *Runtime) Requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// Invoke hands an event to the process, after those before it, and waits for its
// answer as long as the function's configuration allows.
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
		return Result{}, fmt.Errorf("nobody asks for the event: %w", ctx.Err())
	}
	select {
	case result := <-i.result:
		return result, nil
	case <-ctx.Done():
		return Result{}, fmt.Errorf("no answer to the event: %w", ctx.Err())
	}
}

func (r *Runtime) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.requests++
		r.mu.Unlock()
		next.ServeHTTP(w, q)
	})
}

// serveNext waits for an event, for as long as it takes.
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

// serveResult takes the one answer to an event.
func (r *Runtime) serveResult(w http.ResponseWriter, q *http.Request) {
	payload, err := io.ReadAll(q.Body)
	if err != nil {
		r.t.Errorf("an answer was cut off: %v", err)
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
		r.t.Errorf("an answer to no event: %s", q.URL)
		http.Error(w, `{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`, http.StatusBadRequest)
		return
	}
	r.current = nil
	r.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, `{"status":"OK"}`)
	i.result <- result
}
