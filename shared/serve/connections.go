package serve

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// What a stranger can make a server keep, for as long as inputTime, is bounded per
// connection and in the number of connections, or a few hundred of them end a process
// that has the memory of a small container.
const (
	// maxHeader is what the headers of a request may have in bytes, its first line
	// included: the longest token, and as much again for its neighbours.
	maxHeader = 16 << 10

	// maxLines is how many lines that may be. net/http keeps each header in a map:
	// 16 KiB are 20 KB where they are one line, and 450 KB where each line is "ab:".
	// Apache, HAProxy and Envoy draw the line at the same place.
	maxLines = 100

	// perConnection is the most that a connection can hold: its buffers and stacks,
	// its headers and what is read out of them, its body. Only an event's may be larger,
	// which come from within. infra/e2e measures what a process has of a thousand, of
	// either kind.
	perConnection = 96 << 10

	// sip is how much is read at once. What is read beyond the end of a request may be
	// the head of the next, whose lines were not counted.
	sip = 1 << 10
)

// Room returns how many connections a process may have open that has so much memory: a
// third of it is theirs, as half is for hashes (see package password).
func Room(limit int64) int { return int(max(min(limit/3/perConnection, 4096), 16)) }

// connections are those that a server has open. They know whom the server waits for.
//
// Where there is no room for one that comes, the one goes that has kept the server
// waiting for the longest time: for its next request, for the rest of this one, or for
// its reading of the answer. So those who send or read slowly, or not at all, hold up
// nobody for long. One whose request has come whole is not cut off before it is answered,
// nor one that the server has only not got round to reading; who comes then waits until
// one is answered, and each that is answered is the last of its connection.
type connections struct {
	net.Listener
	room int

	mu       sync.Mutex
	changed  *sync.Cond // one is gone, or waits for its caller
	open     map[*connection]bool
	waiting  list.List // those that wait for their caller, the longest first
	crowded  bool      // one is at the door
	stopping bool
}

// patience is how long a caller may keep the server waiting while others are at the door:
// a connection between two requests is about to be used again, and a body may be a packet
// behind its head.
const patience = 250 * time.Millisecond

func newConnections(listener net.Listener, room int) *connections {
	cs := &connections{Listener: listener, room: room, open: map[*connection]bool{}}
	cs.changed = sync.NewCond(&cs.mu)
	return cs
}

// A connection is one of them.
type connection struct {
	net.Conn
	of *connections

	// of.mu guards these
	place  *list.Element // among those that wait; nil where it is the server's turn
	since  time.Time     // when it came to that place
	begun  bool          // something of the present request has come
	writes bool          // the answer is being sent, which takes long where it is not read
	served bool          // the first request has come to its handler

	head  head        // whoever reads guards this, and there is one at a time
	reads atomic.Bool // somebody waits for what is sent

	writeBy time.Time // the deadline of the whole answer; whoever writes guards this
}

type connectionOf struct{} // the key of a request's connection

// serve makes a server tell of its connections.
func (cs *connections) serve(server *http.Server) error {
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connectionOf{}, c)
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateIdle:
			c.(*connection).rests()
		case http.StateClosed:
			c.(*connection).ends()
		}
	}
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(connectionOf{}).(*connection)
		if c.arrives(r.ContentLength == 0) {
			w.Header().Set("Connection", "close")
		}
		if r.ContentLength == 0 {
			handler.ServeHTTP(w, r)
			return
		}
		c.head.ended = true // what comes is no header, though the end of them may have come before they were counted

		request := r.WithContext(r.Context()) // net/http looks at the body of its own
		request.Body = &incoming{r.Body, r, c}
		handler.ServeHTTP(w, request)
	})
	return server.Serve(cs)
}

// Accept implements net.Listener.
func (cs *connections) Accept() (net.Conn, error) {
	conn, err := cs.Listener.Accept()
	if err != nil {
		return nil, err
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for len(cs.open) >= cs.room && !cs.stopping {
		cs.crowded = true
		again := time.AfterFunc(cs.showOut(), func() {
			cs.mu.Lock() // a signal before Wait is one that nobody hears
			defer cs.mu.Unlock()
			cs.changed.Signal()
		})
		cs.changed.Wait()
		again.Stop()
	}
	cs.crowded = false
	c := &connection{Conn: conn, of: cs}
	cs.open[c] = true
	c.waits()
	return c, nil
}

// showOut closes the connection that has kept the server waiting for longest, and returns
// when to look again.
func (cs *connections) showOut() time.Duration {
	for range cs.waiting.Len() {
		longest := cs.waiting.Front().Value.(*connection)
		if left := patience - time.Since(longest.since); left > 0 {
			return left
		}
		if longest.isLate() {
			longest.waits()
			continue
		}
		longest.leavesLine()
		longest.Conn.Close()
		break
	}
	return patience
}

// isLate tells whether it is the server that has not yet got round to reading, and not the
// caller that keeps it waiting.
func (c *connection) isLate() bool { return !c.writes && (!c.reads.Load() || unread(c.Conn)) }

// stop lets in whoever is at the door, and nobody after that.
func (cs *connections) stop() {
	cs.Listener.Close()
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.stopping = true
	cs.changed.Signal()
}

// silence is how long a stop waits for those who have sent nothing yet, such as a
// browser that connects in advance. Who means to ask sends at once.
const silence = time.Second

// settle lets everybody who is connected bring a first request to its handler, which
// a server's ReadTimeout sees to, or returns when the context ends.
//
// net/http drops a request that it has read once Shutdown has begun, without an
// answer, though its caller was connected before.
func (cs *connections) settle(ctx context.Context) {
	patience := time.Now().Add(silence)
	for ctx.Err() == nil && cs.unserved(time.Now().After(patience)) > 0 {
		time.Sleep(5 * time.Millisecond)
	}
}

// unserved counts those that have brought no request yet, and cuts off the silent ones
// if that is asked.
func (cs *connections) unserved(cut bool) (left int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		if c.served {
			continue
		}
		left++
		if cut && !c.begun && !c.isLate() {
			c.Conn.Close()
		}
	}
	return left
}

// begins: something of a request has come.
func (c *connection) begins() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if !c.begun && c.place != nil {
		c.waits()
	}
	c.begun = true
}

// arrives: the headers have come, and perhaps all there is. It tells whether this request
// is to be the last: others are at the door, or the server stops.
func (c *connection) arrives(whole bool) (last bool) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.served = true
	if whole {
		c.leavesLine()
	}
	return c.of.crowded || c.of.stopping
}

// isWhole: the body has come.
func (c *connection) isWhole() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.leavesLine()
}

// rests: the request was answered, and there may be another.
func (c *connection) rests() {
	c.head = head{}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.begun = false
	c.waits()
	c.of.changed.Signal()
}

// ends: it is closed, by whomever.
func (c *connection) ends() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.leavesLine()
	delete(c.of.open, c)
	c.of.changed.Signal()
}

// waits puts it behind all others that wait for their caller.
func (c *connection) waits() {
	c.leavesLine()
	c.place, c.since = c.of.waiting.PushBack(c), time.Now()
}

// leavesLine takes it from those that wait for their caller, if it is one.
func (c *connection) leavesLine() {
	if c.place != nil {
		c.of.waiting.Remove(c.place)
		c.place = nil
	}
}

// Read implements net.Conn. Of headers that have too many lines the rest is read as a
// line that does not end, of which net/http says what it says of headers that are too
// large: 431, and it closes.
func (c *connection) Read(p []byte) (int, error) {
	n := 0
	if !c.head.isTooLong() {
		var err error
		c.reads.Store(true)
		n, err = c.Conn.Read(p[:min(len(p), sip)])
		c.reads.Store(false)
		if n == 0 || err != nil {
			return n, err
		}
		c.begins()
		c.head.grows(p[:n])
	}
	if c.head.isTooLong() {
		for i := range p {
			p[i] = 'x'
		}
		n = len(p)
	}
	return n, nil
}

// piece is what a caller must have taken of an answer within inputTime to get more of it.
const piece = 16 << 10

// Write implements net.Conn. A caller that does not read is in line with those who do not
// send.
func (c *connection) Write(p []byte) (n int, err error) {
	for {
		m, err := c.writePiece(p[n:min(len(p), n+piece)])
		if n += m; err != nil || n == len(p) {
			return n, err
		}
	}
}

func (c *connection) writePiece(p []byte) (n int, err error) {
	wasInLine := c.writesBegin()
	defer c.writesEnd(wasInLine)
	by := time.Now().Add(inputTime)
	if !c.writeBy.IsZero() && c.writeBy.Before(by) {
		by = c.writeBy
	}
	if err := c.Conn.SetWriteDeadline(by); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *connection) writesBegin() (wasInLine bool) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	wasInLine, c.writes = c.place != nil, true
	c.waits()
	return wasInLine
}

func (c *connection) writesEnd(wasInLine bool) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.writes = false
	if !wasInLine {
		c.leavesLine()
	}
}

// SetWriteDeadline implements net.Conn.
func (c *connection) SetWriteDeadline(t time.Time) error {
	c.writeBy = t
	return c.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn, for whoever has hijacked it.
func (c *connection) Close() error {
	c.ends()
	return c.Conn.Close()
}

// CloseWrite is how net/http lets a caller read an answer before the connection goes.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// A head is what is known of the headers of a request while they come: nothing but how
// many lines they have. It is no second reading of them: it lets nothing in.
type head struct {
	begun bool // empty lines before a request are none of it (RFC 9112 §2.2)
	lines int
	fresh bool // at the start of a line that is not the first
	ended bool // an empty line has come
}

func (h *head) grows(p []byte) {
	for _, b := range p {
		switch {
		case h.ended || h.isTooLong():
			return
		case !h.begun && (b == '\r' || b == '\n'):
		case b == '\n' && h.fresh:
			h.ended = true
		case b == '\n':
			h.lines++
			h.fresh = true
		case b != '\r':
			h.begun, h.fresh = true, false
		}
	}
}

// isTooLong allows for the first line, which is no header.
func (h *head) isTooLong() bool { return h.lines > 1+maxLines }

// An incoming body tells its connection when it has come to its end. What it has
// brought behind that is dropped: nobody reads a trailer.
type incoming struct {
	io.ReadCloser
	request    *http.Request
	connection *connection
}

// Read implements io.Reader.
func (b *incoming) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.request.Trailer = nil
		b.connection.isWhole()
	}
	return n, err
}
