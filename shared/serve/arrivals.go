package serve

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// arrivals are the connections whose first request has not come to its handler yet.
//
// A stop must let them: net/http drops a request that it has read once Shutdown has
// begun, without an answer, though its caller was connected before.
type arrivals struct {
	mu  sync.Mutex
	all map[net.Conn]bool
}

type arrival struct{} // the key of a request's connection

// watch makes the server tell of its connections.
func (a *arrivals) watch(server *http.Server) {
	a.all = map[net.Conn]bool{}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			a.mu.Lock()
			a.all[c] = true
			a.mu.Unlock()
		case http.StateClosed:
			a.gone(c)
		}
	}
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, arrival{}, c)
	}
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.gone(r.Context().Value(arrival{}).(net.Conn))
		handler.ServeHTTP(w, r)
	})
}

func (a *arrivals) gone(c net.Conn) {
	a.mu.Lock()
	delete(a.all, c)
	a.mu.Unlock()
}

// wait returns when there is none left, which a server's ReadTimeout sees to, or when
// the context ends.
func (a *arrivals) wait(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		left := len(a.all)
		a.mu.Unlock()
		if left == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
