package e2e_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// A faultProxy forwards TCP connections to a server and injects one network fault at a time.
// It knows no protocol, so it works before the database and before the sink.
type faultProxy struct {
	addr string // the same throughout the test

	to string

	mu       sync.Mutex
	fault    networkFault
	changed  chan struct{} // closed when the fault changes
	listener net.Listener  // nil while the proxy refuses connections
	open     map[net.Conn]bool
	dropped  map[net.Conn]bool // those of open that carry no more bytes
	accepted int
	replies  int
	hit      int // connections and messages that met the current fault
}

// A networkFault is a fault that a faultProxy injects.
type networkFault string

const (
	healthy   networkFault = "healthy"
	slow      networkFault = "slow"      // each reply is delayed by a second
	stalled   networkFault = "stalled"   // connections open and accept requests, and no reply arrives
	resetting networkFault = "resetting" // every third reply ends with a reset in the middle
	refusing  networkFault = "refusing"  // the port is closed
	dropping  networkFault = "dropping"  // connections that are open now carry no more bytes and do not close
)

// newFaultProxy starts a proxy to an address. Its port is below the range from which the
// kernel assigns ports: it must still be free after the proxy has refused for a while.
func newFaultProxy(t testing.TB, to string) *faultProxy {
	t.Helper()
	p := &faultProxy{to: to, fault: healthy, changed: make(chan struct{}), open: map[net.Conn]bool{}, dropped: map[net.Conn]bool{}}
	var err error
	for range 20 {
		p.addr = fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000))
		if err = p.listen(); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.setFault(refusing) })
	return p
}

func (p *faultProxy) listen() error {
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = listener
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.forward(client)
		}
	}()
	return nil
}

// setFault changes the fault. Messages that a stall held up are then forwarded. A proxy that
// refuses resets all open connections.
func (p *faultProxy) setFault(f networkFault) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.hit = f, 0
	close(p.changed)
	p.changed = make(chan struct{})
	switch {
	case f == refusing && p.listener != nil:
		p.listener.Close()
		p.listener = nil
		for c := range p.open {
			reset(c)
			p.hit++
		}
	case f == dropping:
		maps.Copy(p.dropped, p.open)
	case f != refusing && p.listener == nil:
		return p.listen()
	}
	return nil
}

// hits returns how many connections and messages met the current fault, or found the server
// gone. A fault without a hit proves nothing.
func (p *faultProxy) hits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit
}

func (p *faultProxy) countHit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hit++
}

// reset closes a connection so that the peer reads an error instead of an end of file.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// forward connects a client with the server. A stalled or dropped connection loses its
// requests or its replies, in turn. So the server has executed some of the commands that get
// no reply.
func (p *faultProxy) forward(client net.Conn) {
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		p.countHit()
		reset(client)
		return
	}
	p.mu.Lock()
	p.accepted++
	losesRequests := p.accepted%2 == 0
	p.open[client], p.open[server] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range []net.Conn{client, server} {
			delete(p.open, c)
			delete(p.dropped, c)
		}
	}()
	var group sync.WaitGroup
	group.Go(func() { p.pump(client, server, losesRequests, false) })
	group.Go(func() { p.pump(server, client, !losesRequests, true) })
	group.Wait()
}

// pump copies one direction of a connection. If lossy is set, a stall or a drop stops it.
func (p *faultProxy) pump(from, to net.Conn, lossy, reply bool) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if lossy && p.isDropped(from) {
			p.countHit()
			continue
		}
		for held := true; held; {
			f, changed, third := p.now(reply)
			held = false
			switch {
			case f == stalled && lossy:
				p.countHit()
				<-changed
				held = true // the next fault applies to it too
			case f == slow && reply:
				p.countHit()
				select {
				case <-time.After(time.Second):
				case <-changed:
				}
			case f == resetting && third:
				to.Write(buffer[:n/2])
				reset(to)
				p.countHit()
				return
			}
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *faultProxy) isDropped(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped[c]
}

// now returns the fault, the channel that is closed when it changes, and whether this is
// every third reply.
func (p *faultProxy) now(reply bool) (f networkFault, changed chan struct{}, third bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reply {
		p.replies++
	}
	return p.fault, p.changed, reply && p.replies%3 == 0
}
