package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"sync"
	"testing"
	"time"
)

// A sink is somebody who is told what happens. It reads the wire by itself, as a
// consumer in another language would.
type sink struct {
	URL string

	mu     sync.Mutex
	answer func(*http.Request) int
	tries  []*delivery
	came   chan struct{} // holds one if something came since it was last emptied
}

// A try is one delivery of an event, taken or not.
type delivery struct {
	ID, Type, Time string
	Data           string
	raw            string // all of it, as it came
	accepted       bool
}

// The answers of a sink.
func accept(*http.Request) int     { return http.StatusAccepted }
func respond500(*http.Request) int { return http.StatusInternalServerError }
func abort(*http.Request) int      { panic(http.ErrAbortHandler) }
func hang(r *http.Request) int     { <-r.Context().Done(); return http.StatusGatewayTimeout }

func newSink(t *testing.T) *sink {
	s := &sink{answer: accept, came: make(chan struct{}, 1)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// ServeHTTP implements http.Handler.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head, _ := httputil.DumpRequest(r, false)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // a sender that was killed
	}
	h := r.Header
	came := &delivery{ID: h.Get("Ce-Id"), Type: h.Get("Ce-Type"), Time: h.Get("Ce-Time"), Data: string(body), raw: string(head) + string(body)}
	s.mu.Lock()
	s.tries = append(s.tries, came)
	answer := s.answer
	s.mu.Unlock()
	select {
	case s.came <- struct{}{}:
	default:
	}
	status := answer(r)
	s.mu.Lock()
	came.accepted = status < 300 // before the sender knows, and so before the test does
	s.mu.Unlock()
	w.WriteHeader(status)
}

// answers changes what the sink answers from now on.
func (s *sink) respondWith(answer func(*http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// all returns what came so far.
func (s *sink) deliveries() (tries []delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tries {
		tries = append(tries, *t)
	}
	return tries
}

// await waits until so many tries have come since the first n.
func (s *sink) waitFor(t *testing.T, n, more int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(s.deliveries()) < n+more {
		select {
		case <-s.came:
		case <-ctx.Done():
			t.Fatalf("%d of %d tries came", len(s.deliveries())-n, more)
		}
	}
}

// moody returns the answers of a sink that mostly accept, and sometimes fails or
// dies.
func flaky() func(*http.Request) int {
	var mu sync.Mutex
	n := 0
	return func(r *http.Request) int {
		mu.Lock()
		n++
		now := n
		mu.Unlock()
		switch {
		case now%5 == 0:
			return respond500(r)
		case now%7 == 0:
			return abort(r)
		}
		return accept(r)
	}
}

// counting returns some answers of one kind, and then others.
func firstN(n int, first, then func(*http.Request) int) func(*http.Request) int {
	var mu sync.Mutex
	return func(r *http.Request) int {
		mu.Lock()
		n--
		left := n >= 0
		mu.Unlock()
		if left {
			return first(r)
		}
		return then(r)
	}
}
