package httpserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"ticketing.com/auth/shared/endpoint"
)

// laterLimit bounds the functions that run after responses. Each delivers events and occupies
// about 50 KB, with its connection to the sink.
const laterLimit = 100

// A laterGroup runs functions after the responses of a server (see endpoint.Later).
type laterGroup struct {
	slots chan struct{} // one element for each function
	log   *slog.Logger

	mu       sync.Mutex
	answered map[net.Conn]chan struct{} // closed after the response to the request in flight
}

// runLater returns the group of a server and registers the hooks that start its functions. The
// server must not serve HTTP/2: a connection has one request at a time.
func runLater(server *http.Server, log *slog.Logger) *laterGroup {
	g := &laterGroup{slots: make(chan struct{}, laterLimit), log: log, answered: map[net.Conn]chan struct{}{}}
	connContext, connState := server.ConnContext, server.ConnState
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return endpoint.WithLater(connContext(ctx, c), func(f func()) bool { return g.start(c, f) })
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		connState(c, state)
		if state == http.StateIdle || state == http.StateClosed || state == http.StateHijacked {
			g.release(c) // the response is written, or the client is gone
		}
	}
	return g
}

// start runs f after the response to the request in flight on the connection.
func (g *laterGroup) start(c net.Conn, f func()) bool {
	select {
	case g.slots <- struct{}{}:
	default:
		return false
	}
	g.mu.Lock()
	answered, exists := g.answered[c]
	if !exists {
		answered = make(chan struct{})
		g.answered[c] = answered
	}
	g.mu.Unlock()
	go func() {
		defer func() {
			if p := recover(); p != nil {
				g.log.Error("work after a response failed", "error", endpoint.PanicError(p))
			}
			<-g.slots
		}()
		<-answered
		f()
	}()
	return true
}

func (g *laterGroup) release(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if answered, exists := g.answered[c]; exists {
		close(answered)
		delete(g.answered, c)
	}
}

// wait returns when no function runs. Further ones cannot start.
func (g *laterGroup) wait(ctx context.Context) error {
	for range cap(g.slots) {
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			return errors.New("work after responses did not end in time")
		}
	}
	return nil
}
