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

// minReplyTimeout is the shortest time that a request waits for the first byte of a reply.
// After that the dialer treats the connection as lost. NAT gateways, load balancers and
// failovers drop connections without a FIN or a RST. Then only a missing reply shows the loss.
//
// The timeout leaves two thirds of the usual budget for a second attempt: a heartbeat, a new
// connection and the command. If recent replies were slow, the timeout is twice their
// latency, so a slow database does not count as lost.
const minReplyTimeout = 1500 * time.Millisecond

// errLost reports a connection that the network has dropped. It is not a net.Error with
// Timeout: the driver retries after a network error, but not after a timeout. After a network
// error the driver also discards all pooled connections, so the other dropped ones cost
// nothing.
var errLost = errors.New("the database does not reply: the connection counts as lost")

// A dialer opens connections that report a dropped connection as a network error.
type dialer struct {
	net.Dialer

	latency atomic.Int64 // of recent replies, in ns: see recordLatency

	mu   sync.Mutex
	open map[*conn]bool
}

// recordLatency stores the highest latency of the recent replies. A slower reply replaces it
// at once. Each faster reply lowers it by an eighth.
func (d *dialer) recordLatency(took time.Duration) {
	d.latency.Store(max(int64(took), d.latency.Load()*7/8))
}

func newDialer() *dialer {
	// Keep-alive probes prevent gateways from dropping an idle connection. If the probes
	// fail, the kernel closes the idle connection after 30 s, before a request uses it.
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
	c.sentAt.Store(time.Now().UnixNano())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[c] = true
	return c, nil
}

// A conn carries one command and its reply at a time. It closes if a reply does not begin
// before the timeout.
type conn struct {
	net.Conn
	dialer  *dialer
	address string

	sentAt     atomic.Int64 // time of the last command, or of the dial, in ns since 1970
	receivedAt atomic.Int64 // time of the last byte received, in ns since 1970

	deadline  time.Time // of the read, set by the driver
	shortened bool      // whether the read ends before the driver's deadline
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	c.sentAt.Store(time.Now().UnixNano())
	n, err := c.Conn.Write(b)
	return n, asLost(err)
}

// SetReadDeadline sets the deadline of a read: the given deadline of the request, or an
// earlier one that leaves time for a second attempt.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return c.setReadDeadline()
}

func (c *conn) setReadDeadline() error {
	if c.deadline.IsZero() {
		c.shortened = false
		return c.Conn.SetReadDeadline(c.deadline)
	}
	left := time.Until(c.deadline)
	timeout := replyTimeout(left, time.Duration(c.dialer.latency.Load()))
	c.shortened = timeout < left
	return c.Conn.SetReadDeadline(c.deadline.Add(timeout - left))
}

// replyTimeout returns the timeout of a read from the time left for its request. It is a third
// of that time, but at least minReplyTimeout and twice the latency of recent replies.
//
// If too little time is left for a second attempt, the read uses all of it. So does a request
// with more than 30 s: its command may take long, such as the creation of an index.
func replyTimeout(left, latency time.Duration) time.Duration {
	if left <= 2*minReplyTimeout || left > 30*time.Second {
		return left
	}
	return min(left, max(minReplyTimeout, left/3, 2*latency))
}

// Read reads a part of a reply. Each part has the timeout of the first.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		now := time.Now()
		if sent := c.sentAt.Load(); c.receivedAt.Load() < sent { // the first byte of a reply
			c.dialer.recordLatency(now.Sub(time.Unix(0, sent)))
		}
		c.receivedAt.Store(now.UnixNano())
		if c.shortened {
			c.setReadDeadline()
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, asLost(err)
	}
	if sent := c.sentAt.Load(); time.Since(time.Unix(0, sent)) >= minReplyTimeout {
		c.dialer.closeUnresponsive(c.address, sent)
	}
	if c.shortened {
		c.abort()
		err = errLost
	}
	return n, err
}

// asLost returns errLost for a timeout that the kernel reports: its keep-alive probes or
// retransmissions received no acknowledgment. It returns any other error unchanged.
func asLost(err error) error {
	var n net.Error
	if errors.As(err, &n) && n.Timeout() && !errors.Is(err, os.ErrDeadlineExceeded) {
		return errLost
	}
	return err
}

// abort closes the connection with a RST. Data that the kernel has not delivered yet must not
// arrive after the second attempt.
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

// closeUnresponsive closes the connections to a server that have received nothing since a
// time, unless a command was sent on them later. They include the connection of the driver's
// heartbeat and those with a pending handshake: a second attempt waits for both.
func (d *dialer) closeUnresponsive(address string, since int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open {
		if c.address == address && c.receivedAt.Load() < since && c.sentAt.Load() <= since {
			c.Conn.Close()
			delete(d.open, c)
		}
	}
}
