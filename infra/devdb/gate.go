package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// commandTimeout bounds one command. It is long because a command may read a whole
// collection. It exists because FerretDB can fail to answer: an open cursor holds one of
// the hundred SQLite connections of its database, and with a hundred open cursors the next
// command waits for a connection without end.
const commandTimeout = 30 * time.Second

// A gate stands before FerretDB and lets one command and its reply through at
// a time, over all connections. Only reads share a turn.
//
// The reason: FerretDB's updates on SQLite read the document, change it and
// write it back, without a transaction. Two at once both read the old one, and
// one of two acknowledged writes is gone: of 100 parallel $inc as few as one
// remained, and a compare-and-set had up to fifty winners. This project leaves
// its races to the database, so the database must decide them. One command at
// a time makes each command atomic, which is all that is asked for.
//
// In its turn the gate also does what FerretDB does not: it makes filters use an
// index (see narrow), reports the errors of several statements (see run) and makes writes
// retryable (see retries).
//
// The turn is held only between a request read whole and a reply read whole,
// so a client that is slow or disconnects does not delay others.
type gate struct {
	dial    func() (net.Conn, error)
	timeout time.Duration // of a command
	warn    func(format string, args ...any)
	catalog *catalog // changed in a whole turn
	retries retries  // used in a whole turn

	turn     *semaphore.Weighted // a read takes one of its parts, all else takes whole
	stopping context.Context     // done when no further command may begin
	stopNow  context.CancelFunc
	replies  sync.WaitGroup // replies on their way to clients
}

// newGate returns a gate to the backend that dial connects to. Each client has its own
// connection there: when it ends, FerretDB closes the cursors of that client.
func newGate(dial func() (net.Conn, error), catalog *catalog, warn func(string, ...any)) *gate {
	g := &gate{
		dial:    dial,
		timeout: commandTimeout,
		warn:    warn,
		catalog: catalog,
		turn:    semaphore.NewWeighted(whole),
	}
	g.stopping, g.stopNow = context.WithCancel(context.Background())
	return g
}

// whole is the number of parts of a turn: how many reads run at the same time.
const whole = 8

// reads are the commands that change nothing, in FerretDB and here.
var reads = []string{"find", "count", "aggregate", "hello", "isMaster", "ismaster", "ping"}

// serve lets clients in until the listener is closed. It answers what broke
// the listener, or nil if it was closed.
func (g *gate) serve(listener net.Listener) error {
	for {
		client, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && isTemporary(err):
			// Out of file descriptors, say: some client will go.
			time.Sleep(10 * time.Millisecond)
		case err != nil:
			return err
		default:
			go g.admit(client)
		}
	}
}

func isTemporary(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

// stop lets no further command begin, and returns when the one under way has
// ended and the replies are written, or when ctx ends. The caller closes the
// listener before and the process after.
func (g *gate) stop(ctx context.Context) {
	g.stopNow()
	done := make(chan struct{})
	go func() {
		// The turn is taken and never given back. Replies are counted by
		// holders of the turn, so from here on there can be no new one.
		if g.turn.Acquire(ctx, whole) == nil {
			g.replies.Wait()
			close(done)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// admit carries one client's commands until either side goes or the gate
// stops.
func (g *gate) admit(client net.Conn) {
	defer client.Close()
	backend, err := g.dial()
	if err != nil {
		g.warn("a client was turned away: %v", err)
		return
	}
	defer backend.Close()

	requests, replies := bufio.NewReader(client), bufio.NewReader(backend)
	for {
		request, err := readMessage(requests)
		if bad := malformed(""); errors.As(err, &bad) {
			g.warn("a client was cut off: %v", bad)
		}
		if err != nil {
			return
		}
		if err := g.pass(request, client, backend, replies); err != nil {
			return
		}
	}
}

var errStopping = errors.New("the gate is stopping")

// pass carries one command to the backend in turn, and its reply to the client
// out of turn.
//
// FerretDB also replies where the client wants no reply. That reply must be
// read, or it would be taken for the next command's, and must not be passed
// on: dropping it is what makes w:0 work.
func (g *gate) pass(request message, client, backend net.Conn, replies *bufio.Reader) error {
	c, parsed := request.command()
	parts := int64(whole)
	if parsed == nil && slices.Contains(reads, c.name) || isHello(request) {
		parts = 1
	}
	if !g.enter(parts) {
		return errStopping
	}
	ask := func(m message) (message, error) { return g.exchange(m, backend, replies) }
	var reply message
	var err error
	if parsed == nil {
		reply, err = g.execute(request, c, ask)
	} else if reply, err = ask(request); err == nil && isHello(request) { // FerretDB answers all else
		reply = reply.withMember("msg", "isdbgrid")
	}
	g.replies.Add(1) // while in turn: see stop
	g.turn.Release(parts)
	defer g.replies.Done()

	if err != nil || !request.wantsReply() {
		return err
	}
	_, err = client.Write(reply)
	return err
}

// execute returns the reply to a command. It is called in turn; ask asks FerretDB.
func (g *gate) execute(request message, c command, ask func(message) (message, error)) (message, error) {
	session, number, retryable := c.retryable()
	retryable = retryable && !slices.Contains(reads, c.name)
	if retryable {
		if reply := g.retries.reply(session, number); reply != nil {
			return reply.answering(request), nil
		}
	}
	db, collection := c.namespace()
	if c.name == "dropDatabase" {
		g.catalog.forget(db)
	}
	reply, err := g.run(request, c, ask)
	if err != nil {
		return nil, err
	}
	reply.nameFullDisk()
	switch c.name {
	case "hello", "isMaster", "ismaster":
		reply = reply.withMember("msg", "isdbgrid")
	case "insert", "update", "findAndModify":
		if !g.catalog.has(db, collection) {
			g.load(db)
		}
	case "create", "createIndexes", "drop", "dropIndexes":
		g.load(db)
	case "renameCollection":
		db, _, _ := strings.Cut(collection, ".")
		g.load(db)
	}
	if retryable {
		g.retries.remember(session, number, reply)
	}
	return reply, nil
}

// load has the catalog learn of a change. Without it commands are slow, not wrong.
func (g *gate) load(db string) {
	if err := g.catalog.load(db); err != nil {
		g.warn("no index on the collections of %s: %v", db, err)
	}
}

// enter waits for parts of the turn. It answers false when the gate stops first.
func (g *gate) enter(parts int64) bool {
	if g.turn.Acquire(g.stopping, parts) != nil {
		return false
	}
	if g.stopping.Err() != nil { // both were ready, and the turn was chosen
		g.turn.Release(parts)
		return false
	}
	return true
}

// exchange sends a request to the backend and returns the reply. After the timeout it
// returns an error, so that one hung command does not end the service. The backend may
// still execute that command, beside the next ones; the warning names this risk.
func (g *gate) exchange(request message, backend net.Conn, replies *bufio.Reader) (message, error) {
	if err := backend.SetDeadline(time.Now().Add(g.timeout)); err != nil {
		return nil, err
	}
	if _, err := backend.Write(request); err != nil {
		return nil, fmt.Errorf("forward the command: %w", err)
	}
	reply, err := readMessage(replies)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		g.warn("a command had no reply after %v and was given up; if it still runs, the next ones race with it", g.timeout)
	}
	return reply, err
}
