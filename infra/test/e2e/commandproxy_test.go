package e2e_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
)

// A line is the way to a database. It counts commands, and can be cut after one.
type commandProxy struct {
	uri string

	mu   sync.Mutex
	left int    // commands until the cut
	cut  func() // nil: none
	lost bool   // whether the answer is
}

func newCommandProxy(t *testing.T, uri string) *commandProxy {
	t.Helper()
	parsed, err := connstring.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	l := &commandProxy{uri: "mongodb://" + listener.Addr().String() + "/" + parsed.Database}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", parsed.Hosts[0])
			if err != nil {
				near.Close()
				continue
			}
			go l.join(near, far)
		}
	}()
	return l
}

// dropReplyAfter has the line call cut when the database has answered so many commands
// from now on, and lose that answer. The function it returns takes that back, and
// tells whether it has happened.
func (l *commandProxy) dropReplyAfter(commands int, cut func()) (happened func() bool) {
	return l.after(commands, true, cut)
}

// interruptAfter is dropReplyAfter, but the answer is not lost.
func (l *commandProxy) interruptAfter(commands int, strike func()) (happened func() bool) {
	return l.after(commands, false, strike)
}

func (l *commandProxy) after(commands int, lost bool, cut func()) (happened func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.cut, l.lost = commands, cut, lost
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cut = nil
		return l.left == 0
	}
}

// join carries messages both ways until one of the two is gone or the line is cut.
// A driver sends one command on a connection and waits for its answer.
func (l *commandProxy) join(near, far net.Conn) {
	defer near.Close()
	defer far.Close()
	for {
		command, err := message(near)
		if err != nil {
			return
		}
		far.Write(command)
		answer, err := message(far)
		if err != nil || l.cuts(command) {
			return
		}
		near.Write(answer)
	}
}

// cuts tells whether the line is cut at the answer to a command, and cuts it.
func (l *commandProxy) cuts(command []byte) bool {
	// OP_MSG: the header, flags, the kind of the section, the length of the
	// document, the type of its first member, and the name of that
	const name = 16 + 4 + 1 + 4 + 1
	end := bytes.IndexByte(command[min(name, len(command)):], 0)
	if end < 0 || !slices.Contains([]string{"find", "insert", "update", "findAndModify", "aggregate"}, string(command[name:name+end])) {
		return false // the driver's own: it looks after its connections
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut == nil || l.left == 0 {
		return false
	}
	if l.left--; l.left > 0 {
		return false
	}
	l.cut()
	return l.lost
}

// message reads one message of MongoDB's wire protocol: it begins with its length.
func message(from io.Reader) ([]byte, error) {
	m := make([]byte, 4)
	if _, err := io.ReadFull(from, m); err != nil {
		return nil, err
	}
	m = append(m, make([]byte, binary.LittleEndian.Uint32(m)-4)...)
	_, err := io.ReadFull(from, m[4:])
	return m, err
}
