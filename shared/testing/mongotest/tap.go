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

// A Tap is a proxy in front of a database. It records the commands that a program
// sends, and can delay, drop and replace what passes.
type Tap struct {
	URI string // as URI returns it, with the address of the tap

	mu        sync.Mutex
	commands  []string
	writes    []string // the retryable ones
	stalled   string
	replies   map[string]bson.D
	roundTrip time.Duration
	accepted  int
	open      int   // of them, those that were not dropped
	fate      *fate // of the connections that are opened now
}

// A fate is what became of the connections that were opened in some time.
type fate struct{ dropped, muted atomic.Bool }

// NewTap returns a tap in front of a database of this call's own.
func NewTap(t testing.TB) *Tap {
	t.Helper()
	return TapOf(t, URI(t))
}

// TapOf returns a tap in front of the database of a URI.
func TapOf(t testing.TB, uri string) *Tap {
	t.Helper()
	where, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap, server := &Tap{replies: map[string]bson.D{}, fate: &fate{}}, where.Host
	where.Host = listener.Addr().String()
	query := where.Query()
	query.Del("replicaSet")
	query.Set("directConnection", "true") // not to the addresses that the server names
	where.RawQuery = query.Encode()
	tap.URI = where.String()
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go tap.carry(client, server)
		}
	}()
	return tap
}

// Stall leaves the commands on a collection without a reply from now on.
func (tap *Tap) Stall(collection string) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.stalled = collection
}

// Drop has every open connection carry nothing from now on, without closing it, as
// networks do that forget a connection. New connections work.
func (tap *Tap) Drop() {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.fate.dropped.Store(true)
	tap.fate, tap.open = &fate{}, 0
}

// Mute has every open connection carry commands, but no reply, from now on. New
// connections work.
func (tap *Tap) Mute() {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.fate.muted.Store(true)
	tap.fate, tap.open = &fate{}, 0
}

// RoundTrip delays each reply, and each new connection, by so much from now on.
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

// Reply answers a command on a collection, such as "find users", with a document from
// now on. The database does not see the command. A nil document takes that back.
func (tap *Tap) Reply(command string, document bson.D) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.replies[command] = document
}

// Accepted returns how many connections were opened so far.
func (tap *Tap) Accepted() int {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return tap.accepted
}

// Open returns how many connections are open, without those that were dropped.
func (tap *Tap) Open() int {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return tap.open
}

// Commands returns the commands since the last call, such as "find users", in
// alphabetical order: those that are sent at the same time have no other.
func (tap *Tap) Commands() string {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	all := slices.Sorted(slices.Values(tap.commands))
	tap.commands = nil
	return strings.Join(all, ", ")
}

// Writes returns the retryable writes since the last call, in their order: command,
// collection, session and transaction number.
func (tap *Tap) Writes() []string {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	writes := tap.writes
	tap.writes = nil
	return writes
}

// carry carries a connection until one of its ends closes.
func (tap *Tap) carry(client net.Conn, server string) {
	defer client.Close()
	to, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer to.Close()
	tap.mu.Lock()
	tap.accepted++
	tap.open++
	fate := tap.fate
	tap.mu.Unlock()
	defer func() {
		tap.mu.Lock()
		defer tap.mu.Unlock()
		if fate == tap.fate {
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
			if !fate.dropped.Load() && !fate.muted.Load() {
				client.Write(reply)
			}
		}
	}()
	for {
		message, err := readMessage(client)
		if err != nil {
			return
		}
		reply, silent := tap.note(message)
		switch {
		case fate.dropped.Load() || silent:
		case reply != nil:
			client.Write(answer(message, reply))
		default:
			to.Write(message)
		}
	}
}

// readMessage reads one message of the wire protocol, which begins with its length.
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

// The OP_MSG of the wire protocol: header, flags, and the kind of its first section,
// which is a document. The first member of that is named after the command.
const opcode, opMsg, document = 12, 2013, 16 + 4 + 1

// note records the command of an OP_MSG, and returns the reply that replaces the
// database's, or whether there is none.
func (tap *Tap) note(message []byte) (reply bson.D, silent bool) {
	if len(message) < document || binary.LittleEndian.Uint32(message[opcode:]) != opMsg {
		return nil, false
	}
	command := bson.Raw(message[document:])
	first, err := command.IndexErr(0)
	if err != nil {
		return nil, false
	}
	collection, is := first.Value().StringValueOK() // a command on no collection is the driver's own
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
	return tap.replies[name], collection == tap.stalled
}

// answer returns a message that answers another with a document.
func answer(message []byte, reply bson.D) []byte {
	body, err := bson.Marshal(reply)
	if err != nil {
		panic(err)
	}
	m := make([]byte, document, document+len(body))
	binary.LittleEndian.PutUint32(m, uint32(cap(m)))
	copy(m[8:12], message[4:8]) // the number of the message that it answers
	binary.LittleEndian.PutUint32(m[opcode:], opMsg)
	return append(m, body...)
}
