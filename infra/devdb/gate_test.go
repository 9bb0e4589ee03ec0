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

// These tests hold the gate to its word with backends that do what FerretDB
// will not do on demand: hang, reply at length, go away.

// soon bounds what should happen at once, on a machine that may be busy.
const soon = 30 * time.Second

// newMessage makes an OP_MSG. Only its frame matters to the gate.
func newMessage(number int32, flags uint32, body []byte) message {
	m := make(message, headerLength+4, headerLength+4+len(body))
	binary.LittleEndian.PutUint32(m[0:], uint32(cap(m)))
	binary.LittleEndian.PutUint32(m[4:], uint32(number))
	binary.LittleEndian.PutUint32(m[12:], opMsg)
	binary.LittleEndian.PutUint32(m[headerLength:], flags)
	return append(m, body...)
}

func (m message) number() int32    { return int32(binary.LittleEndian.Uint32(m[4:])) }
func (m message) answersTo() int32 { return int32(binary.LittleEndian.Uint32(m[8:])) }

// reply makes the reply to m.
func (m message) reply(body []byte) message {
	r := newMessage(1000+m.number(), 0, body)
	binary.LittleEndian.PutUint32(r[8:], uint32(m.number()))
	return r
}

// A fakeBackend answers each request with what its function returns, and
// closes the connection for nil.
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

// echo answers at once.
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

// A bench is a gate on a port, before a fake backend.
type bench struct {
	*gate
	t        *testing.T
	listener net.Listener
	served   chan error

	mu       sync.Mutex
	warnings []string
}

func newBench(t *testing.T, f fakeBackend) *bench {
	t.Helper()
	private := listenLocally(t)
	go f.serve(private)
	b := &bench{t: t, listener: listenLocally(t), served: make(chan error, 1)}
	b.gate = newGate(
		func() (net.Conn, error) { return net.Dial("tcp", private.Addr().String()) },
		&catalog{files: map[string]*file{}},
		func(format string, _ ...any) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.warnings = append(b.warnings, format)
		})
	return b
}

// open starts serving, after a test has set the gate up.
func (b *bench) open() *bench {
	go func() { b.served <- b.serve(b.listener) }()
	return b
}

func (b *bench) warned() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.warnings)
}

func (b *bench) client() net.Conn {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.listener.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(soon))
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, m message) {
	t.Helper()
	if _, err := conn.Write(m); err != nil {
		t.Fatal(err)
	}
}

// ask sends a command and demands its own reply.
func ask(t *testing.T, conn net.Conn, m message) message {
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
	if reply.answersTo() != request.number() {
		t.Fatalf("the reply to %d answers %d", request.number(), reply.answersTo())
	}
	return reply
}

func isClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	if m, err := readMessage(conn); err == nil {
		t.Fatalf("got message %d, want a closed connection", m.number())
	} else if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Fatal("the connection stays open")
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestOneCommandAtATimeOverAllConnections(t *testing.T) {
	var inside, most atomic.Int32
	b := newBench(t, func(m message) message {
		if now := inside.Add(1); now > most.Load() {
			most.Store(now)
		}
		time.Sleep(time.Millisecond) // room for a second one to be seen
		inside.Add(-1)
		return m.reply(nil)
	}).open()

	var clients sync.WaitGroup
	for range 20 {
		conn := b.client()
		clients.Go(func() {
			for n := range int32(10) {
				request := newMessage(n, 0, nil)
				if _, err := conn.Write(request); err != nil {
					t.Error(err)
					return
				}
				reply, err := readMessage(conn)
				if err != nil || reply.answersTo() != n {
					t.Errorf("reply to %d: %v, %v", n, reply, err)
					return
				}
			}
		})
	}
	clients.Wait()
	if most.Load() != 1 {
		t.Errorf("%d commands at once, want 1", most.Load())
	}
}

// TestGate_ReadsShareATurn has reads run at the same time, and a write by itself.
func TestGate_ReadsShareATurn(t *testing.T) {
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
	b := newBench(t, func(m message) message {
		begun <- m.number()
		<-end
		return m.reply([]byte{0, 5, 0, 0, 0, 0})
	}).open()
	one, other, writer := b.client(), b.client(), b.client()
	send(t, one, named(1, "find"))
	send(t, other, named(2, "find"))
	if first, second := <-begun, <-begun; first+second != 3 {
		t.Errorf("%d and %d run at the same time, want 1 and 2", first, second)
	}
	send(t, writer, named(3, "insert"))
	select {
	case n := <-begun:
		t.Errorf("%d runs beside the reads", n)
	case <-time.After(50 * time.Millisecond): // a gate that is right never begins it here
	}
	close(end)
	receive(t, one, named(1, "find"))
	receive(t, other, named(2, "find"))
	receive(t, writer, named(3, "insert"))
}

func TestAClientSlowToSendHoldsUpNobody(t *testing.T) {
	b := newBench(t, echo).open()
	slow, request := b.client(), newMessage(1, 0, []byte("in two parts"))
	send(t, slow, request[:len(request)-1])
	ask(t, b.client(), newMessage(2, 0, nil))
	send(t, slow, request[len(request)-1:])
	receive(t, slow, request)
}

func TestAClientSlowToReadHoldsUpNobody(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 20_000_000) // more than sockets buffer
	answered := make(chan struct{}, 1)
	b := newBench(t, func(m message) message {
		if m.number() != 1 {
			return m.reply(nil)
		}
		answered <- struct{}{}
		return m.reply(long)
	}).open()

	slow, request := b.client(), newMessage(1, 0, nil)
	send(t, slow, request)
	<-answered
	ask(t, b.client(), newMessage(2, 0, nil))
	if reply := receive(t, slow, request); !bytes.Equal(reply[headerLength+4:], long) {
		t.Error("the long reply arrived changed")
	}
}

func TestAClientThatGoesAwayLeavesNothingLocked(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	b := newBench(t, func(m message) message {
		if m.number() == 1 {
			close(begun)
			<-end
			ended.Store(true)
		} else if !ended.Load() {
			t.Error("a command began before the abandoned one had ended")
		}
		return m.reply(nil)
	}).open()

	gone := b.client()
	send(t, gone, newMessage(1, 0, nil))
	<-begun
	gone.Close()

	next, request := b.client(), newMessage(2, 0, nil)
	send(t, next, request)
	close(end)
	receive(t, next, request)
}

func TestAHungBackendLosesTheTurn(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	b := newBench(t, func(m message) message {
		if m.number() == 1 {
			<-forever
		}
		return m.reply(nil)
	})
	b.timeout = 50 * time.Millisecond
	b.open()

	hung := b.client()
	send(t, hung, newMessage(1, 0, nil))
	isClosed(t, hung)
	ask(t, b.client(), newMessage(2, 0, nil))
	if b.warned() != 1 {
		t.Errorf("%d warnings, want 1", b.warned())
	}
}

func TestABackendThatGoesAwayTakesTheClientAlong(t *testing.T) {
	b := newBench(t, func(m message) message {
		if m.number() == 1 {
			return nil
		}
		return m.reply(nil)
	}).open()
	conn := b.client()
	send(t, conn, newMessage(1, 0, nil))
	isClosed(t, conn)
	ask(t, b.client(), newMessage(2, 0, nil))
}

func TestAClientIsTurnedAwayWithoutABackend(t *testing.T) {
	b := newBench(t, echo)
	b.dial = func() (net.Conn, error) { return nil, errors.New("nobody there") }
	b.open()
	isClosed(t, b.client())
	if b.warned() != 1 {
		t.Errorf("%d warnings, want 1", b.warned())
	}
}

// FerretDB replies to everything, so the fake does too.
func TestARequestThatWantsNoReplyGetsNone(t *testing.T) {
	b := newBench(t, echo).open()
	conn := b.client()
	send(t, conn, newMessage(1, moreToCome, nil))
	send(t, conn, newMessage(2, moreToCome, nil))
	ask(t, conn, newMessage(3, 0, nil))
}

func TestWhatIsNoMessageClosesTheConnection(t *testing.T) {
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
			b := newBench(t, func(m message) message {
				t.Error("it reached the backend")
				return nil
			}).open()
			conn := b.client()
			send(t, conn, sent)
			isClosed(t, conn)
			if b.warned() != 1 {
				t.Errorf("%d warnings, want 1", b.warned())
			}
		})
	}
}

func TestTheLongestMessageIsRead(t *testing.T) {
	longest := newMessage(1, 0, make([]byte, maxMessageLength-headerLength-4))
	got, err := readMessage(bytes.NewReader(longest))
	if err != nil || len(got) != maxMessageLength {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestReadMessage(t *testing.T) {
	whole := newMessage(7, 0, []byte("body"))
	for name, c := range map[string]struct {
		sent []byte
		want error
	}{
		"nothing":                                {nil, io.EOF},
		"half a header":                          {whole[:8], io.ErrUnexpectedEOF},
		"a header alone":                         {whole[:headerLength], io.ErrUnexpectedEOF},
		"all but one byte":                       {whole[:len(whole)-1], io.ErrUnexpectedEOF},
		"a whole message":                        {whole, nil},
		"a message and the next one's beginning": {append(bytes.Clone(whole), 1, 2, 3), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readMessage(bytes.NewReader(c.sent))
			if err != c.want {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err == nil && !bytes.Equal(got, whole) {
				t.Errorf("read %x, want %x", got, whole)
			}
		})
	}
}

func TestAStopLetsTheCommandInFlightFinishAndNoOtherBegin(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	b := newBench(t, func(m message) message {
		if m.number() != 1 {
			t.Error("a command began after the stop")
		}
		close(begun)
		<-end
		return m.reply(nil)
	}).open()

	first, request := b.client(), newMessage(1, 0, nil)
	send(t, first, request)
	<-begun
	second := b.client()
	send(t, second, newMessage(2, 0, nil)) // it waits for its turn, or not yet

	b.listener.Close()
	stopped := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		b.stop(ctx)
		close(stopped)
	}()
	isClosed(t, second)
	select {
	case <-stopped:
		t.Fatal("it stopped before the command had ended")
	default:
	}

	close(end)
	<-stopped
	receive(t, first, request) // the reply was written before stop returned
	if err := <-b.served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestAStopDoesNotWaitForEverForASlowReader(t *testing.T) {
	answered := make(chan struct{})
	b := newBench(t, func(m message) message {
		close(answered)
		return m.reply(make([]byte, 20_000_000))
	}).open()
	send(t, b.client(), newMessage(1, 0, nil)) // and never reads
	<-answered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	b.stop(ctx)
	if ctx.Err() == nil {
		t.Error("stop returned though the reply could not have been written")
	}
}

func TestTheErrorOfAFullDiskHasMongoDBsCode(t *testing.T) {
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
		m.nameFullDisk()
		if got := bson.Raw(m[headerLength+5:]).Lookup("code").Int32(); got != c.want {
			t.Errorf("%s: code %d, want %d", name, got, c.want)
		}
	}
	for _, m := range []message{nil, newMessage(1, 0, nil), newMessage(1, 0, []byte("\x00database or disk is full (13)"))} {
		m.nameFullDisk() // does not panic
	}
}
