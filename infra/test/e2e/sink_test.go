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
	tries  []*try
	came   chan struct{} // holds one if something came since it was last emptied
}

// A try is one delivery of an event, taken or not.
type try struct {
	ID, Type, Time string
	Data           string
	wire           string // all of it, as it came
	taken          bool
}

// The answers of a sink.
func takes(*http.Request) int   { return http.StatusAccepted }
func fails(*http.Request) int   { return http.StatusInternalServerError }
func dies(*http.Request) int    { panic(http.ErrAbortHandler) }
func hangs(r *http.Request) int { <-r.Context().Done(); return http.StatusGatewayTimeout }

func newSink(t *testing.T) *sink {
	s := &sink{answer: takes, came: make(chan struct{}, 1)}
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
	came := &try{ID: h.Get("Ce-Id"), Type: h.Get("Ce-Type"), Time: h.Get("Ce-Time"), Data: string(body), wire: string(head) + string(body)}
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
	came.taken = status < 300 // before the sender knows, and so before the test does
	s.mu.Unlock()
	w.WriteHeader(status)
}

// answers changes what the sink answers from now on.
func (s *sink) answers(answer func(*http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// all returns what came so far.
func (s *sink) all() (tries []try) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tries {
		tries = append(tries, *t)
	}
	return tries
}

// await waits until so many tries have come since the first n.
func (s *sink) await(t *testing.T, n, more int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(s.all()) < n+more {
		select {
		case <-s.came:
		case <-ctx.Done():
			t.Fatalf("%d of %d tries came", len(s.all())-n, more)
		}
	}
}

// moody returns the answers of a sink that mostly takes, and sometimes fails or
// dies.
func moody() func(*http.Request) int {
	var mu sync.Mutex
	n := 0
	return func(r *http.Request) int {
		mu.Lock()
		n++
		now := n
		mu.Unlock()
		switch {
		case now%5 == 0:
			return fails(r)
		case now%7 == 0:
			return dies(r)
		}
		return takes(r)
	}
}

// counting returns some answers of one kind, and then others.
func counting(n int, first, then func(*http.Request) int) func(*http.Request) int {
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
