package httpserver

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// firstRequestTimeout is how long a shutdown waits for the first request of a connection.
// Some clients, such as browsers, open connections that they do not use.
const firstRequestTimeout = time.Second

// newConnections is the set of open connections without a first request at the handler.
//
// Server.Shutdown drops a first request without a response, although the server accepted
// the connection earlier. So a shutdown waits for these requests first.
type newConnections struct {
	mu    sync.Mutex
	open  map[net.Conn]bool
	empty chan struct{} // receives when the set becomes empty
}

type connKey struct{} // the context key of a request's connection

// track returns the set of a server and registers the hooks that update it.
func track(server *http.Server) *newConnections {
	n := &newConnections{open: map[net.Conn]bool{}, empty: make(chan struct{}, 1)}
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open[c] = true
		return context.WithValue(ctx, connKey{}, c)
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			n.remove(c)
		}
	}
	next := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.remove(r.Context().Value(connKey{}).(net.Conn))
		next.ServeHTTP(w, r)
	})
	return n
}

func (n *newConnections) remove(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if delete(n.open, c); len(n.open) == 0 {
		select {
		case n.empty <- struct{}{}:
		default:
		}
	}
}

// wait returns when the set is empty. After firstRequestTimeout it closes the remaining
// connections.
func (n *newConnections) wait() {
	timeout := time.After(firstRequestTimeout)
	for n.len() > 0 {
		select {
		case <-n.empty:
		case <-timeout:
			n.close()
			return
		}
	}
}

func (n *newConnections) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.open {
		c.Close()
	}
}

func (n *newConnections) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.open)
}
