package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// These tests run the proxy in front of fake backends that hang, send long replies or
// disconnect. FerretDB does none of these on demand.

// timeout limits steps that should be immediate. It is long because the machine may be
// busy.
const timeout = 30 * time.Second

// newMessage returns an OP_MSG. The proxy reads only its header and flags.
func newMessage(number int32, flags uint32, body []byte) message {
	m := make(message, headerLength+4, headerLength+4+len(body))
	binary.LittleEndian.PutUint32(m[0:], uint32(cap(m)))
	binary.LittleEndian.PutUint32(m[4:], uint32(number))
	binary.LittleEndian.PutUint32(m[12:], opMsg)
	binary.LittleEndian.PutUint32(m[headerLength:], flags)
	return append(m, body...)
}

func (m message) number() int32  { return int32(binary.LittleEndian.Uint32(m[4:])) }
func (m message) replyTo() int32 { return int32(binary.LittleEndian.Uint32(m[8:])) }

// reply returns a reply to m.
func (m message) reply(body []byte) message {
	r := newMessage(1000+m.number(), 0, body)
	binary.LittleEndian.PutUint32(r[8:], uint32(m.number()))
	return r
}

// A fakeBackend replies to each request with the result of its function. It closes the
// connection if the result is nil.
type fakeBackend func(message) message

func (f fakeBackend) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for {
				request, err := readMessage(conn)
				if err != nil {
					return
				}
				reply := f(request)
				if reply == nil {
					return
				}
				if _, err := conn.Write(reply); err != nil {
					return
				}
			}
		}()
	}
}

// echo replies immediately.
func echo(m message) message { return m.reply(nil) }

func listenLocally(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A fixture is a proxy on a TCP port with a fake backend.
type fixture struct {
	*proxy
	t        *testing.T
	listener net.Listener
	served   chan error

	mu       sync.Mutex
	warnings []string
}

func newFixture(t *testing.T, backend fakeBackend) *fixture {
	t.Helper()
	private := listenLocally(t)
	go backend.serve(private)
	f := &fixture{t: t, listener: listenLocally(t), served: make(chan error, 1)}
	f.proxy = newProxy(
		func() (net.Conn, error) { return net.Dial("tcp", private.Addr().String()) },
		&catalog{files: map[string]*file{}},
		func(format string, _ ...any) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.warnings = append(f.warnings, format)
		})
	return f
}

// open starts serving. A test may configure the proxy before.
func (f *fixture) open() *fixture {
	go func() { f.served <- f.serve(f.listener) }()
	return f
}

func (f *fixture) warned() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.warnings)
}

func (f *fixture) client() net.Conn {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(timeout))
	f.t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, m message) {
	t.Helper()
	if _, err := conn.Write(m); err != nil {
		t.Fatal(err)
	}
}

// roundTrip sends a command and returns its reply.
func roundTrip(t *testing.T, conn net.Conn, m message) message {
	t.Helper()
	send(t, conn, m)
	return receive(t, conn, m)
}

func receive(t *testing.T, conn net.Conn, request message) message {
	t.Helper()
	reply, err := readMessage(conn)
	if err != nil {
		t.Fatalf("no reply to %d: %v", request.number(), err)
	}
	if reply.replyTo() != request.number() {
		t.Fatalf("got a reply to %[2]d, want one to %[1]d", request.number(), reply.replyTo())
	}
	return reply
}

func isClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	if m, err := readMessage(conn); err == nil {
		t.Fatalf("got message %d, want a closed connection", m.number())
	} else if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Fatal("the connection is still open, want it closed")
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestProxy_OneCommandAtATime(t *testing.T) {
	var running, most atomic.Int32
	f := newFixture(t, func(m message) message {
		if now := running.Add(1); now > most.Load() {
			most.Store(now)
		}
		time.Sleep(time.Millisecond) // long enough to observe a concurrent command
		running.Add(-1)
		return m.reply(nil)
	}).open()

	var clients sync.WaitGroup
	for range 20 {
		conn := f.client()
		clients.Go(func() {
			for n := range int32(10) {
				request := newMessage(n, 0, nil)
				if _, err := conn.Write(request); err != nil {
					t.Error(err)
					return
				}
				reply, err := readMessage(conn)
				if err != nil || reply.replyTo() != n {
					t.Errorf("reply to %d: %v, %v", n, reply, err)
					return
				}
			}
		})
	}
	clients.Wait()
	if most.Load() != 1 {
		t.Errorf("got %d concurrent commands, want 1", most.Load())
	}
}

// Reads run at the same time. A write runs alone.
func TestProxy_ReadsRunConcurrently(t *testing.T) {
	named := func(number int32, name string) message {
		body, err := bson.Marshal(bson.D{{Key: name, Value: "c"}, {Key: "$db", Value: "test"}})
		if err != nil {
			t.Fatal(err)
		}
		m := newCommand(body)
		binary.LittleEndian.PutUint32(m[4:], uint32(number))
		return m
	}
	begun, end := make(chan int32, 3), make(chan struct{})
	f := newFixture(t, func(m message) message {
		begun <- m.number()
		<-end
		return m.reply([]byte{0, 5, 0, 0, 0, 0})
	}).open()
	one, other, writer := f.client(), f.client(), f.client()
	send(t, one, named(1, "find"))
	send(t, other, named(2, "find"))
	if first, second := <-begun, <-begun; first+second != 3 {
		t.Errorf("got concurrent commands %d and %d, want 1 and 2", first, second)
	}
	send(t, writer, named(3, "insert"))
	select {
	case n := <-begun:
		t.Errorf("command %d started during the reads, want it to wait", n)
	case <-time.After(50 * time.Millisecond): // a correct proxy does not start it before the reads end
	}
	close(end)
	receive(t, one, named(1, "find"))
	receive(t, other, named(2, "find"))
	receive(t, writer, named(3, "insert"))
}

func TestProxy_SlowRequestBlocksNoOtherClient(t *testing.T) {
	f := newFixture(t, echo).open()
	slow, request := f.client(), newMessage(1, 0, []byte("in two parts"))
	send(t, slow, request[:len(request)-1])
	roundTrip(t, f.client(), newMessage(2, 0, nil))
	send(t, slow, request[len(request)-1:])
	receive(t, slow, request)
}

func TestProxy_SlowReaderBlocksNoOtherClient(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 20_000_000) // more than sockets buffer
	replied := make(chan struct{}, 1)
	f := newFixture(t, func(m message) message {
		if m.number() != 1 {
			return m.reply(nil)
		}
		replied <- struct{}{}
		return m.reply(long)
	}).open()

	slow, request := f.client(), newMessage(1, 0, nil)
	send(t, slow, request)
	<-replied
	roundTrip(t, f.client(), newMessage(2, 0, nil))
	if reply := receive(t, slow, request); !bytes.Equal(reply[headerLength+4:], long) {
		t.Error("the long reply was changed")
	}
}

func TestProxy_ClientDisconnectReleasesSlots(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	f := newFixture(t, func(m message) message {
		if m.number() == 1 {
			close(begun)
			<-end
			ended.Store(true)
		} else if !ended.Load() {
			t.Error("a command started before the abandoned one ended")
		}
		return m.reply(nil)
	}).open()

	abandoned := f.client()
	send(t, abandoned, newMessage(1, 0, nil))
	<-begun
	abandoned.Close()

	next, request := f.client(), newMessage(2, 0, nil)
	send(t, next, request)
	close(end)
	receive(t, next, request)
}

func TestProxy_CommandTimeoutReleasesSlots(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	f := newFixture(t, func(m message) message {
		if m.number() == 1 {
			<-forever
		}
		return m.reply(nil)
	})
	f.timeout = 50 * time.Millisecond
	f.open()

	hung := f.client()
	send(t, hung, newMessage(1, 0, nil))
	isClosed(t, hung)
	roundTrip(t, f.client(), newMessage(2, 0, nil))
	if f.warned() != 1 {
		t.Errorf("got %d warnings, want 1", f.warned())
	}
}

func TestProxy_BackendDisconnectClosesClient(t *testing.T) {
	f := newFixture(t, func(m message) message {
		if m.number() == 1 {
			return nil
		}
		return m.reply(nil)
	}).open()
	conn := f.client()
	send(t, conn, newMessage(1, 0, nil))
	isClosed(t, conn)
	roundTrip(t, f.client(), newMessage(2, 0, nil))
}

func TestProxy_BackendUnavailableClosesClient(t *testing.T) {
	f := newFixture(t, echo)
	f.dial = func() (net.Conn, error) { return nil, errors.New("connection refused") }
	f.open()
	isClosed(t, f.client())
	if f.warned() != 1 {
		t.Errorf("got %d warnings, want 1", f.warned())
	}
}

// FerretDB replies to every request, and so does the fake backend.
func TestProxy_UnacknowledgedRequestGetsNoReply(t *testing.T) {
	f := newFixture(t, echo).open()
	conn := f.client()
	send(t, conn, newMessage(1, moreToCome, nil))
	send(t, conn, newMessage(2, moreToCome, nil))
	roundTrip(t, conn, newMessage(3, 0, nil))
}

func TestProxy_InvalidMessageClosesConnection(t *testing.T) {
	withLength := func(length int32) []byte {
		m := newMessage(1, 0, nil)
		binary.LittleEndian.PutUint32(m, uint32(length))
		return m
	}
	for name, sent := range map[string][]byte{
		"a negative length":         withLength(-1),
		"a length of zero":          withLength(0),
		"shorter than a header":     withLength(headerLength - 1),
		"one byte too long":         withLength(maxMessageLength + 1),
		"another protocol entirely": []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(m message) message {
				t.Error("the message reached the backend")
				return nil
			}).open()
			conn := f.client()
			send(t, conn, sent)
			isClosed(t, conn)
			if f.warned() != 1 {
				t.Errorf("got %d warnings, want 1", f.warned())
			}
		})
	}
}

func TestReadMessage_MaxLength(t *testing.T) {
	longest := newMessage(1, 0, make([]byte, maxMessageLength-headerLength-4))
	got, err := readMessage(bytes.NewReader(longest))
	if err != nil || len(got) != maxMessageLength {
		t.Errorf("got %d bytes (%v), want %d", len(got), err, maxMessageLength)
	}
}

func TestReadMessage(t *testing.T) {
	whole := newMessage(7, 0, []byte("body"))
	for name, c := range map[string]struct {
		sent []byte
		want error
	}{
		"nothing":                             {nil, io.EOF},
		"half a header":                       {whole[:8], io.ErrUnexpectedEOF},
		"a header alone":                      {whole[:headerLength], io.ErrUnexpectedEOF},
		"all but one byte":                    {whole[:len(whole)-1], io.ErrUnexpectedEOF},
		"a whole message":                     {whole, nil},
		"a message and the start of the next": {append(bytes.Clone(whole), 1, 2, 3), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readMessage(bytes.NewReader(c.sent))
			if err != c.want {
				t.Fatalf("got error %v, want %v", err, c.want)
			}
			if err == nil && !bytes.Equal(got, whole) {
				t.Errorf("got %x, want %x", got, whole)
			}
		})
	}
}

func TestProxy_StopDrainsCommandInFlight(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	f := newFixture(t, func(m message) message {
		if m.number() != 1 {
			t.Error("a command started after the stop")
		}
		close(begun)
		<-end
		return m.reply(nil)
	}).open()

	first, request := f.client(), newMessage(1, 0, nil)
	send(t, first, request)
	<-begun
	second := f.client()
	send(t, second, newMessage(2, 0, nil)) // it may already wait for the slots

	f.listener.Close()
	stopped := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		f.stop(ctx)
		close(stopped)
	}()
	isClosed(t, second)
	select {
	case <-stopped:
		t.Fatal("stop returned before the command ended")
	default:
	}

	close(end)
	<-stopped
	receive(t, first, request) // the reply was written before stop returned
	if err := <-f.served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestProxy_StopEndsWithContext(t *testing.T) {
	replied := make(chan struct{})
	f := newFixture(t, func(m message) message {
		close(replied)
		return m.reply(make([]byte, 20_000_000))
	}).open()
	send(t, f.client(), newMessage(1, 0, nil)) // the client never reads the reply
	<-replied
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	f.stop(ctx)
	if ctx.Err() == nil {
		t.Error("stop returned before the context ended, with an unwritten reply")
	}
}

func TestSetDiskFullCode(t *testing.T) {
	const text = "[db.go:167 fsql.(*DB).InTransaction] database or disk is full (13)"
	for name, c := range map[string]struct {
		reply bson.D
		want  int32
	}{
		"a full disk":               {bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: text}, {Key: "code", Value: int32(1)}}, 14031},
		"another internal error":    {bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: "x"}, {Key: "code", Value: int32(1)}}, 1},
		"another error that quotes": {bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: text}, {Key: "code", Value: int32(9)}}, 9},
		"a document that quotes":    {bson.D{{Key: "x", Value: text}, {Key: "code", Value: int32(1)}, {Key: "ok", Value: 1.0}}, 1},
	} {
		body, err := bson.Marshal(c.reply)
		if err != nil {
			t.Fatal(err)
		}
		m := newMessage(1, 0, append([]byte{0}, body...))
		m.setDiskFullCode()
		if got := bson.Raw(m[headerLength+5:]).Lookup("code").Int32(); got != c.want {
			t.Errorf("%s: got code %d, want %d", name, got, c.want)
		}
	}
	for _, m := range []message{nil, newMessage(1, 0, nil), newMessage(1, 0, []byte("\x00database or disk is full (13)"))} {
		m.setDiskFullCode() // must not panic
	}
}
