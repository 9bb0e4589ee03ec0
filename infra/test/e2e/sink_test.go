package e2e_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/shared/events/event"
)

// A sink is an event receiver (K_SINK). It parses the HTTP requests itself, as a consumer in
// another language would, and records every delivery.
type sink struct {
	URL string

	mu     sync.Mutex
	answer func(*http.Request) int
	log    []*delivery
	signal chan struct{} // holds one value if a delivery arrived since the last receive
}

// A delivery is one attempt to deliver an event.
type delivery struct {
	ID, Type, Time string
	Data           string
	raw            string // the whole request
	accepted       bool
}

// The responses of a sink.
func accept(*http.Request) int     { return http.StatusAccepted }
func respond500(*http.Request) int { return http.StatusInternalServerError }
func abort(*http.Request) int      { panic(http.ErrAbortHandler) }
func hang(r *http.Request) int     { <-r.Context().Done(); return http.StatusGatewayTimeout }

func newSink(t *testing.T) *sink {
	s := &sink{answer: accept, signal: make(chan struct{}, 1)}
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
		return // the sender was killed
	}
	h := r.Header
	received := &delivery{ID: h.Get("Ce-Id"), Type: h.Get("Ce-Type"), Time: h.Get("Ce-Time"), Data: string(body), raw: string(head) + string(body)}
	s.mu.Lock()
	s.log = append(s.log, received)
	answer := s.answer
	s.mu.Unlock()
	select {
	case s.signal <- struct{}{}:
	default:
	}
	status := answer(r)
	s.mu.Lock()
	received.accepted = status < 300 // before the sender, and so the test, reads the response
	s.mu.Unlock()
	w.WriteHeader(status)
}

// respondWith changes the response to further deliveries.
func (s *sink) respondWith(answer func(*http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// deliveries returns the deliveries so far, without the requests for mails: those accompany other events.
func (s *sink) deliveries() []delivery {
	return slices.DeleteFunc(s.allDeliveries(), func(d delivery) bool { return d.Type == event.MailRequested.Name })
}

// allDeliveries returns the deliveries so far.
func (s *sink) allDeliveries() (all []delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.log {
		all = append(all, *d)
	}
	return all
}

// waitFor waits until the sink has at least n+more deliveries.
func (s *sink) waitFor(t *testing.T, n, more int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(s.deliveries()) < n+more {
		select {
		case <-s.signal:
		case <-ctx.Done():
			t.Fatalf("got %d deliveries, want %d", len(s.deliveries())-n, more)
		}
	}
}

// flaky returns the response of a sink that fails every fifth delivery and aborts every
// seventh.
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

// firstN returns a response that calls first for n deliveries, and then the other function. It accepts
// the requests for mails, which waitFor does not count.
func firstN(n int, first, then func(*http.Request) int) func(*http.Request) int {
	var mu sync.Mutex
	return func(r *http.Request) int {
		if r.Header.Get("Ce-Type") == event.MailRequested.Name {
			return accept(r)
		}
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
