package mongodb

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// silence is how long a request of the usual budget waits for the first byte of a reply
// before it treats the connection as lost. NAT gateways, load balancers and failovers
// drop connections without a FIN or a RST, and then only a missing reply shows it.
//
// It leaves two thirds of the budget for a second try: a heartbeat, a new connection and the
// command. A database whose recent replies were slow gets twice their latency instead, so
// that it is not treated as lost.
const silence = 1500 * time.Millisecond

// errLost is the error of a connection that the network has dropped. It is not a
// net.Error with Timeout: the driver retries after a network error, and does not after
// a timeout. It also discards all pooled connections then, so that the other dropped
// ones cost nothing.
var errLost = errors.New("the database does not reply: the connection is treated as lost")

// A dialer opens connections that report a dropped network as a network error.
type dialer struct {
	net.Dialer

	latency atomic.Int64 // of recent replies, in ns: see note

	mu   sync.Mutex
	open map[*conn]bool
}

// note records the latency of a reply: the highest of the recent ones, which a slower reply
// replaces at once and each faster one lowers by an eighth.
func (d *dialer) note(took time.Duration) {
	d.latency.Store(max(int64(took), d.latency.Load()*7/8))
}

func newDialer() *dialer {
	// Keep-alive probes keep a connection known to the network. Where they fail, the
	// kernel closes an idle connection after 30 s, before a request meets it.
	return &dialer{
		Dialer: net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}},
		open:   map[*conn]bool{},
	}
}

// DialContext implements options.ContextDialer.
func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	dialed, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: dialed, dialer: d, address: address}
	c.asked.Store(time.Now().UnixNano())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[c] = true
	return c, nil
}

// A conn carries one command and its reply at a time. It is closed when a reply does
// not begin in time.
type conn struct {
	net.Conn
	dialer  *dialer
	address string

	asked atomic.Int64 // when it was opened, or the last command was written, in ns since 1970
	heard atomic.Int64 // when the last byte arrived

	limit time.Time // of the read, by the driver
	early bool      // whether the read gives up before its limit
}

// Write writes a command.
func (c *conn) Write(b []byte) (int, error) {
	c.asked.Store(time.Now().UnixNano())
	n, err := c.Conn.Write(b)
	return n, lost(err)
}

// SetReadDeadline sets the limit of a read, which is that of the request, or an earlier
// one that leaves the request time for a second try.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.limit = t
	return c.setReadDeadline()
}

func (c *conn) setReadDeadline() error {
	if c.limit.IsZero() {
		c.early = false
		return c.Conn.SetReadDeadline(c.limit)
	}
	left := time.Until(c.limit)
	wait := replyTimeout(left, time.Duration(c.dialer.latency.Load()))
	c.early = wait < left
	return c.Conn.SetReadDeadline(c.limit.Add(wait - left))
}

// replyTimeout returns how long a read waits, where its request has some time left: a third
// of it, at least silence and twice the latency of recent replies. There is no second try
// where too little is left, and a request that has more than half a minute waits for a
// command that takes long, such as the creation of an index.
func replyTimeout(left, latency time.Duration) time.Duration {
	if left <= 2*silence || left > 30*time.Second {
		return left
	}
	return min(left, max(silence, left/3, 2*latency))
}

// Read reads a part of a reply. Each part may take as long as the first.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		now := time.Now()
		if asked := c.asked.Load(); c.heard.Load() < asked { // the first byte of a reply
			c.dialer.note(now.Sub(time.Unix(0, asked)))
		}
		c.heard.Store(now.UnixNano())
		if c.early {
			c.setReadDeadline()
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, lost(err)
	}
	if asked := c.asked.Load(); time.Since(time.Unix(0, asked)) >= silence {
		c.dialer.closeSilent(c.address, asked)
	}
	if c.early {
		c.abort()
		err = errLost
	}
	return n, err
}

// lost makes an error of what the kernel calls a timeout: keep-alive probes or a
// retransmission without an answer.
func lost(err error) error {
	var n net.Error
	if errors.As(err, &n) && n.Timeout() && !errors.Is(err, os.ErrDeadlineExceeded) {
		return errLost
	}
	return err
}

// abort closes the connection with a RST. What the kernel could not deliver so far must
// not arrive after the second try.
func (c *conn) abort() {
	if tcp, is := c.Conn.(*net.TCPConn); is {
		tcp.SetLinger(0)
	}
	c.Close()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.open, c)
	c.dialer.mu.Unlock()
	return c.Conn.Close()
}

// closeSilent closes the connections to a server on which nothing has arrived since a
// time, but for those that were used later. Among them may be that of the driver's
// heartbeat, and one whose handshake has no reply: a second try waits for both.
func (d *dialer) closeSilent(address string, since int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open {
		if c.address == address && c.heard.Load() < since && c.asked.Load() <= since {
			c.Conn.Close()
			delete(d.open, c)
		}
	}
}
