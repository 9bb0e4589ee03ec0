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

// A wire is the way to a server, with what can be wrong with one. It knows no
// protocol, so it serves before the database as before the sink.
type faultProxy struct {
	addr string // where it is, all the time

	to string

	mu       sync.Mutex
	fault    networkFault
	changed  chan struct{} // closed when the mood is another
	listener net.Listener  // nil while it refuses
	open     map[net.Conn]bool
	dropped  map[net.Conn]bool // of them, those that the network has forgotten
	accepted int
	replies  int
	struck   int // how often somebody met with the present mood
}

// A mood is what is wrong with a wire.
type networkFault string

const (
	healthy   networkFault = "healthy"
	slow      networkFault = "slow"      // each reply comes a second late
	stalled   networkFault = "stalled"   // it takes a connection and what is sent, and no answer comes
	resetting networkFault = "resetting" // every third reply is reset in the middle
	refusing  networkFault = "refusing"  // nobody listens
	dropping  networkFault = "dropping"  // connections that are open now carry nothing any more, and do not close
)

// newFaultProxy lays a wire to an address, on a port below those that the kernel hands
// out: it must be free still after the wire has refused for a while.
func newFaultProxy(t testing.TB, to string) *faultProxy {
	t.Helper()
	w := &faultProxy{to: to, fault: healthy, changed: make(chan struct{}), open: map[net.Conn]bool{}, dropped: map[net.Conn]bool{}}
	var err error
	for range 20 {
		w.addr = fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000))
		if err = w.listen(); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.setFault(refusing) })
	return w
}

func (w *faultProxy) listen() error {
	listener, err := net.Listen("tcp", w.addr)
	if err != nil {
		return err
	}
	w.listener = listener
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go w.carry(near)
		}
	}()
	return nil
}

// is changes the mood. What was held up in a stall goes on; a wire that refuses
// drops whoever is connected.
func (w *faultProxy) setFault(m networkFault) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault, w.struck = m, 0
	close(w.changed)
	w.changed = make(chan struct{})
	switch {
	case m == refusing && w.listener != nil:
		w.listener.Close()
		w.listener = nil
		for c := range w.open {
			reset(c)
			w.struck++
		}
	case m == dropping:
		maps.Copy(w.dropped, w.open)
	case m != refusing && w.listener == nil:
		return w.listen()
	}
	return nil
}

// strikes counts how often somebody has met with the mood, or found the server gone,
// since the mood came. A fault that struck nobody proves nothing.
func (w *faultProxy) hits() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.struck
}

func (w *faultProxy) strike() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.struck++
}

// reset closes a connection so that the other end reads an error and no end.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// carry joins a connection with the server. In a stall, and where a connection was
// dropped, what is lost is the question on one connection and the answer on the next,
// so that of the commands nobody hears of again some were obeyed.
func (w *faultProxy) carry(near net.Conn) {
	far, err := net.Dial("tcp", w.to)
	if err != nil {
		w.strike()
		reset(near)
		return
	}
	w.mu.Lock()
	w.accepted++
	deaf := w.accepted%2 == 0
	w.open[near], w.open[far] = true, true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range []net.Conn{near, far} {
			delete(w.open, c)
			delete(w.dropped, c)
		}
	}()
	var group sync.WaitGroup
	group.Go(func() { w.pump(near, far, deaf, false) })
	group.Go(func() { w.pump(far, near, !deaf, true) })
	group.Wait()
}

// pump carries what comes one way. Mute says that a stall holds it up.
func (w *faultProxy) pump(from, to net.Conn, mute, reply bool) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if mute && w.isDropped(from) {
			w.strike()
			continue
		}
		for held := true; held; {
			m, changed, third := w.now(reply)
			held = false
			switch {
			case m == stalled && mute:
				w.strike()
				<-changed
				held = true // by the next mood
			case m == slow && reply:
				w.strike()
				select {
				case <-time.After(time.Second):
				case <-changed:
				}
			case m == resetting && third:
				to.Write(buffer[:n/2])
				reset(to)
				w.strike()
				return
			}
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// isDropped reports whether a connection was dropped.
func (w *faultProxy) isDropped(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped[c]
}

// now returns the mood, what is closed when it changes, and whether this is a third
// reply.
func (w *faultProxy) now(reply bool) (m networkFault, changed chan struct{}, third bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if reply {
		w.replies++
	}
	return w.fault, w.changed, reply && w.replies%3 == 0
}
