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

// A commandProxy forwards connections to a database. It counts commands and can interrupt the
// connection after one of them.
type commandProxy struct {
	uri string

	inFlight sync.RWMutex // read-locked by each command until its reply is counted

	mu        sync.Mutex
	left      int    // commands until the interruption
	interrupt func() // nil if none is planned
	drop      bool   // the reply to the last command too
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
	p := &commandProxy{uri: "mongodb://" + listener.Addr().String() + "/" + parsed.Database}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", parsed.Hosts[0])
			if err != nil {
				client.Close()
				continue
			}
			go p.forward(client, server)
		}
	}()
	return p
}

// dropReplyAfter calls interrupt when the database has answered this many further commands,
// and drops the last reply. The returned function cancels the plan and reports whether the
// interruption has happened.
func (p *commandProxy) dropReplyAfter(commands int, interrupt func()) (happened func() bool) {
	return p.after(commands, true, interrupt)
}

// interruptAfter is dropReplyAfter, but the last reply arrives.
func (p *commandProxy) interruptAfter(commands int, interrupt func()) (happened func() bool) {
	return p.after(commands, false, interrupt)
}

func (p *commandProxy) after(commands int, drop bool, interrupt func()) (happened func() bool) {
	p.inFlight.Lock()
	defer p.inFlight.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.interrupt, p.drop = commands, interrupt, drop
	return func() bool {
		p.inFlight.Lock()
		defer p.inFlight.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.interrupt = nil
		return p.left == 0
	}
}

// forward copies messages until one side closes or a reply is dropped. A driver sends one
// command on a connection and waits for its reply.
func (p *commandProxy) forward(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	for {
		command, err := readMessage(client)
		if err != nil {
			return
		}
		reply, dropped := p.exchange(server, command)
		if dropped {
			return
		}
		client.Write(reply)
	}
}

// exchange sends a command and returns its reply, or reports that there is none for the client.
func (p *commandProxy) exchange(server net.Conn, command []byte) (reply []byte, dropped bool) {
	p.inFlight.RLock()
	defer p.inFlight.RUnlock()
	server.Write(command)
	reply, err := readMessage(server)
	return reply, err != nil || p.dropsReply(command)
}

// dropsReply counts a command, runs the interruption if it is due, and reports whether to
// drop the reply.
func (p *commandProxy) dropsReply(command []byte) bool {
	// OP_MSG: header, flags, kind of the section, length of the document, type of its first
	// member, name of that member
	const name = 16 + 4 + 1 + 4 + 1
	end := bytes.IndexByte(command[min(name, len(command)):], 0)
	if end < 0 || !slices.Contains([]string{"find", "insert", "update", "findAndModify", "aggregate"}, string(command[name:name+end])) {
		return false // the driver's own: hello, ping, endSessions
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.interrupt == nil || p.left == 0 {
		return false
	}
	if p.left--; p.left > 0 {
		return false
	}
	p.interrupt()
	return p.drop
}

// readMessage reads one message of MongoDB's wire protocol. It begins with its length.
func readMessage(from io.Reader) ([]byte, error) {
	m := make([]byte, 4)
	if _, err := io.ReadFull(from, m); err != nil {
		return nil, err
	}
	m = append(m, make([]byte, binary.LittleEndian.Uint32(m)-4)...)
	_, err := io.ReadFull(from, m[4:])
	return m, err
}
