package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// patience is how long a command may take. It is generous because a command
// reads whole collections, and there because FerretDB can fail to answer: an
// open cursor holds one of the hundred SQLite connections of its database, and
// with a hundred left open the next command waits for one without end.
const patience = 30 * time.Second

// A gate stands before FerretDB and lets one command and its reply through at
// a time, over all connections.
//
// The reason: FerretDB's updates on SQLite read the document, change it and
// write it back, without a transaction. Two at once both read the old one, and
// one of two acknowledged writes is gone: of 100 parallel $inc as few as one
// remained, and a compare-and-set had up to fifty winners. This project leaves
// its races to the database, so the database must decide them. One command at
// a time makes each command atomic, which is all that is asked for.
//
// In its turn the gate also does what FerretDB does not: it makes filters use an
// index (see narrow) and writes retryable (see retries).
//
// The turn is held only between a request read whole and a reply read whole,
// so a client that is slow, or goes away, holds up nobody.
type gate struct {
	dial     func() (net.Conn, error)
	patience time.Duration
	warn     func(format string, args ...any)
	catalog  *catalog // used in turn
	retries  retries  // used in turn

	turn     chan struct{}  // filled by the one whose command is under way
	stopping chan struct{}  // closed when no further command may begin
	replies  sync.WaitGroup // replies on their way to clients
}

// newGate makes a gate to the backend that dial connects to. Each client gets
// a connection of its own there: it is by its end that FerretDB knows which
// cursors nobody wants any more.
func newGate(dial func() (net.Conn, error), catalog *catalog, warn func(string, ...any)) *gate {
	return &gate{
		dial:     dial,
		patience: patience,
		warn:     warn,
		catalog:  catalog,
		turn:     make(chan struct{}, 1),
		stopping: make(chan struct{}),
	}
}

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
	close(g.stopping)
	done := make(chan struct{})
	go func() {
		// The turn is taken and never given back. Replies are counted by
		// holders of the turn, so from here on there can be no new one.
		g.turn <- struct{}{}
		g.replies.Wait()
		close(done)
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
	if !g.enter() {
		return errStopping
	}
	reply, err := g.execute(request, func(m message) (message, error) { return g.exchange(m, backend, replies) })
	g.replies.Add(1) // while in turn: see stop
	g.leave()
	defer g.replies.Done()

	if err != nil || !request.wantsReply() {
		return err
	}
	_, err = client.Write(reply)
	return err
}

// execute returns the reply to a request. It is called in turn; ask asks FerretDB.
func (g *gate) execute(request message, ask func(message) (message, error)) (message, error) {
	c, err := request.command()
	if err != nil { // FerretDB knows what to say to it
		reply, err := ask(request)
		if err == nil && isHello(request) {
			reply = reply.withMember("msg", "isdbgrid")
		}
		return reply, err
	}
	session, number, retryable := c.retryable()
	if retryable {
		if reply := g.retries.reply(session, number); reply != nil {
			return reply.answering(request), nil
		}
	}
	db, collection := c.namespace()
	if c.name == "dropDatabase" {
		g.catalog.forget(db)
	}
	narrowed, err := g.narrow(request, c, ask)
	if err != nil {
		return nil, err
	}
	reply, err := ask(narrowed)
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

// enter waits for the turn. It answers false when the gate stops first.
func (g *gate) enter() bool {
	select {
	case g.turn <- struct{}{}:
	case <-g.stopping:
		return false
	}
	select {
	case <-g.stopping: // both were ready, and chance chose the turn
		g.leave()
		return false
	default:
		return true
	}
}

func (g *gate) leave() { <-g.turn }

// exchange asks the backend. A backend that does not answer in time loses the
// turn, so that one hung command does not end the service; should it come back
// to life, that command is no longer alone, and the warning says so.
func (g *gate) exchange(request message, backend net.Conn, replies *bufio.Reader) (message, error) {
	if err := backend.SetDeadline(time.Now().Add(g.patience)); err != nil {
		return nil, err
	}
	if _, err := backend.Write(request); err != nil {
		return nil, fmt.Errorf("forward the command: %w", err)
	}
	reply, err := readMessage(replies)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		g.warn("a command had no reply after %v and was given up; if it still runs, the next ones race with it", g.patience)
	}
	return reply, err
}
