package mongotest

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// A Tap is a database whose wire is listened to. It tells what a program asks of the
// database, which is what it costs, without a clock.
type Tap struct {
	URI string // as URI gives it, by way of the tap

	mu       sync.Mutex
	commands []string
	stalled  string
}

// Stall has the commands of a collection stay without an answer from now on.
func (tap *Tap) Stall(collection string) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.stalled = collection
}

// NewTap gives a database of this call's own behind a tap.
func NewTap(t testing.TB) *Tap {
	t.Helper()
	where, err := url.Parse(URI(t))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap, server := &Tap{}, where.Host
	where.Host = listener.Addr().String()
	query := where.Query()
	query.Del("replicaSet")
	query.Set("directConnection", "true") // and not to where the server says it is
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

// carry carries a connection, until one of its ends closes.
func (tap *Tap) carry(client net.Conn, server string) {
	defer client.Close()
	to, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		io.Copy(client, to)
		client.Close()
	}()
	for {
		message, err := readMessage(client)
		if err != nil {
			return
		}
		if stalled := tap.note(message); stalled {
			continue
		}
		if _, err := to.Write(message); err != nil {
			return
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

// note remembers the command of an OP_MSG, and tells whether it is stalled: after
// header, flags and the kind of its section comes a document, whose first member is
// named after the command.
func (tap *Tap) note(message []byte) (stalled bool) {
	const opcode, opMsg, document = 12, 2013, 16 + 4 + 1
	if len(message) < document || binary.LittleEndian.Uint32(message[opcode:]) != opMsg {
		return false
	}
	first, err := bson.Raw(message[document:]).IndexErr(0)
	if err != nil {
		return false
	}
	collection, is := first.Value().StringValueOK() // what is of no collection is the driver's own business
	if !is {
		return false
	}
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.commands = append(tap.commands, first.Key()+" "+collection)
	return collection == tap.stalled
}

// Commands returns what was asked since the last time, such as "find users", in the
// order of the alphabet: what is asked at once has no other.
func (tap *Tap) Commands() string {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	all := slices.Sorted(slices.Values(tap.commands))
	tap.commands = nil
	return strings.Join(all, ", ")
}
