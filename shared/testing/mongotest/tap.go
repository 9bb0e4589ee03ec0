package mongotest

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// A Tap is a proxy in front of a database. It records the commands of its clients, and can
// delay, drop and replace messages.
type Tap struct {
	URI string // like the result of function URI, with the address of the tap

	mu        sync.Mutex
	commands  []string
	writes    []string // retryable writes
	stalled   string
	held      []func() // each forwards a stalled command
	replies   map[string]bson.D
	roundTrip time.Duration
	accepted  int
	open      int    // accepted connections that were not dropped
	group     *group // of new connections
}

// A group has the state of the connections that were opened between two calls of Drop or Mute.
type group struct{ dropped, muted atomic.Bool }

// NewTap returns a tap in front of a new database.
func NewTap(t testing.TB) *Tap {
	t.Helper()
	return TapOf(t, URI(t))
}

// TapOf returns a tap in front of the database of a URI.
func TapOf(t testing.TB, uri string) *Tap {
	t.Helper()
	address, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap, server := &Tap{replies: map[string]bson.D{}, group: &group{}}, address.Host
	address.Host = listener.Addr().String()
	query := address.Query()
	query.Del("replicaSet")
	query.Set("directConnection", "true") // not to the addresses that the server returns
	address.RawQuery = query.Encode()
	tap.URI = address.String()
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go tap.proxy(client, server)
		}
	}()
	return tap
}

// Stall holds all further commands on a collection, so that they receive no reply until Release.
func (tap *Tap) Stall(collection string) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.stalled = collection
}

// Release forwards the stalled commands, and stalls no further ones.
func (tap *Tap) Release() {
	tap.mu.Lock()
	held := tap.held
	tap.stalled, tap.held = "", nil
	tap.mu.Unlock()
	for _, forward := range held {
		forward()
	}
}

// Drop drops all further messages on the open connections without closing them, like a network
// that has lost the state of a connection. New connections work.
func (tap *Tap) Drop() {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.group.dropped.Store(true)
	tap.group, tap.open = &group{}, 0
}

// Mute drops all further replies on the open connections, but still forwards commands. New
// connections work.
func (tap *Tap) Mute() {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.group.muted.Store(true)
	tap.group, tap.open = &group{}, 0
}

// RoundTrip sets the delay of each further reply and each new connection.
func (tap *Tap) RoundTrip(d time.Duration) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.roundTrip = d
}

func (tap *Tap) delay() {
	tap.mu.Lock()
	d := tap.roundTrip
	tap.mu.Unlock()
	time.Sleep(d)
}

// Reply sets the reply to a command on a collection, such as "find users". The tap then does
// not forward the command to the database. A nil document restores the forwarding.
func (tap *Tap) Reply(command string, document bson.D) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.replies[command] = document
}

// Accepted returns the number of connections that clients have opened so far.
func (tap *Tap) Accepted() int {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return tap.accepted
}

// Open returns the number of open connections, without those of Drop and Mute.
func (tap *Tap) Open() int {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return tap.open
}

// Commands returns the commands since the last call, such as "find users". They are in
// alphabetical order, because parallel commands have no other order.
func (tap *Tap) Commands() string {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	all := slices.Sorted(slices.Values(tap.commands))
	tap.commands = nil
	return strings.Join(all, ", ")
}

// Writes returns the retryable writes since the last call, in their order. Each has the
// command, collection, session and transaction number.
func (tap *Tap) Writes() []string {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	writes := tap.writes
	tap.writes = nil
	return writes
}

// proxy forwards the messages of a connection until the client or the server closes it.
func (tap *Tap) proxy(client net.Conn, server string) {
	defer client.Close()
	to, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer to.Close()
	tap.mu.Lock()
	tap.accepted++
	tap.open++
	group := tap.group
	tap.mu.Unlock()
	defer func() {
		tap.mu.Lock()
		defer tap.mu.Unlock()
		if group == tap.group {
			tap.open--
		}
	}()
	tap.delay()
	go func() {
		defer client.Close()
		for {
			reply, err := readMessage(to)
			if err != nil {
				return
			}
			tap.delay()
			if !group.dropped.Load() && !group.muted.Load() {
				client.Write(reply)
			}
		}
	}()
	for {
		message, err := readMessage(client)
		if err != nil {
			return
		}
		reply, stalled := tap.record(message, func() { to.Write(message) })
		switch {
		case group.dropped.Load() || stalled:
		case reply != nil:
			client.Write(replyTo(message, reply))
		default:
			to.Write(message)
		}
	}
}

// readMessage reads one message of the wire protocol. A message begins with its length.
func readMessage(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, min(max(binary.LittleEndian.Uint32(length[:]), 16), 1<<20))
	copy(message, length[:])
	_, err := io.ReadFull(r, message[4:])
	return message, err
}

// Offsets and the opcode of an OP_MSG. It has a header, flags, the kind of its first section,
// and a document. The name of the document's first member is the command.
const opcode, opMsg, document = 12, 2013, 16 + 4 + 1

// record records the command of an OP_MSG. It returns the document that replaces the reply of
// the database, or nil. If stalled is true, Release calls forward.
func (tap *Tap) record(message []byte, forward func()) (reply bson.D, stalled bool) {
	if len(message) < document || binary.LittleEndian.Uint32(message[opcode:]) != opMsg {
		return nil, false
	}
	command := bson.Raw(message[document:])
	first, err := command.IndexErr(0)
	if err != nil {
		return nil, false
	}
	collection, is := first.Value().StringValueOK() // the driver sends commands without a collection itself
	if !is {
		return nil, false
	}
	name := first.Key() + " " + collection
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.commands = append(tap.commands, name)
	if number := command.Lookup("txnNumber"); !number.IsZero() {
		tap.writes = append(tap.writes, name+" "+command.Lookup("lsid").String()+" "+number.String())
	}
	if collection == tap.stalled {
		tap.held = append(tap.held, forward)
		return nil, true
	}
	return tap.replies[name], false
}

// replyTo returns a message that replies to another with a document.
func replyTo(message []byte, reply bson.D) []byte {
	body, err := bson.Marshal(reply)
	if err != nil {
		panic(err)
	}
	m := make([]byte, document, document+len(body))
	binary.LittleEndian.PutUint32(m, uint32(cap(m)))
	copy(m[8:12], message[4:8]) // responseTo: the ID of the other message
	binary.LittleEndian.PutUint32(m[opcode:], opMsg)
	return append(m, body...)
}
