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

// commandTimeout limits one command. It is long because a command may read a whole
// collection. It is needed because FerretDB can fail to reply. An open cursor holds one
// of the hundred SQLite connections of its database. With a hundred open cursors, the
// next command would wait for a connection forever.
const commandTimeout = 30 * time.Second

// A proxy forwards one command at a time to FerretDB, over all connections. Only reads
// run concurrently.
//
// FerretDB's updates on SQLite read the document, change it and write it back, without a
// transaction. Two concurrent updates both read the old document, so one of two
// acknowledged writes is lost. Of 100 parallel $inc, as few as one remained, and a
// compare-and-set had up to fifty winners. This project relies on the database to decide
// races. One command at a time makes each command atomic, and the project needs no more.
//
// The proxy also adds three features that FerretDB lacks. It makes filters use an index
// (see narrow), reports the errors of several statements (see run) and makes writes
// retryable (see retries).
//
// A command holds its slots from the last byte of its request to the last byte of
// FerretDB's reply. A client that is slow or disconnects therefore does not delay
// others.
type proxy struct {
	dial    func() (net.Conn, error)
	timeout time.Duration // of one command
	warn    func(format string, args ...any)
	catalog *catalog // changed only while all slots are held
	retries retries  // used only while all slots are held

	slots    *semaphore.Weighted // a read takes one slot, any other command takes all
	stopping context.Context     // done when no further command may start
	cancel   context.CancelFunc
	replies  sync.WaitGroup // replies that are being written to clients
}

// newProxy returns a proxy to the backend that dial connects to. Each client has its own
// backend connection. When that connection ends, FerretDB closes the client's cursors.
func newProxy(dial func() (net.Conn, error), catalog *catalog, warn func(string, ...any)) *proxy {
	p := &proxy{
		dial:    dial,
		timeout: commandTimeout,
		warn:    warn,
		catalog: catalog,
		slots:   semaphore.NewWeighted(maxReads),
	}
	p.stopping, p.cancel = context.WithCancel(context.Background())
	return p
}

// maxReads is the number of slots: how many reads run at the same time.
const maxReads = 8

// reads are the commands that change nothing, in FerretDB and here.
var reads = []string{"find", "count", "aggregate", "hello", "isMaster", "ismaster", "ping"}

// serve accepts clients until the listener is closed. It returns nil if the listener was
// closed, and the accept error otherwise.
func (p *proxy) serve(listener net.Listener) error {
	for {
		client, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && isTemporary(err):
			// For example, the process is out of file descriptors until a client
			// disconnects.
			time.Sleep(10 * time.Millisecond)
		case err != nil:
			return err
		default:
			go p.handle(client)
		}
	}
}

func isTemporary(err error) bool {
	var temporary interface{ Temporary() bool }
	return errors.As(err, &temporary) && temporary.Temporary()
}

// stop prevents further commands from starting. It returns when the command in flight
// has ended and the replies are written, or when ctx ends. Close the listener before
// this call.
func (p *proxy) stop(ctx context.Context) {
	p.cancel()
	done := make(chan struct{})
	go func() {
		// All slots are acquired and never released. Only a command that holds slots
		// adds to replies, so the counter cannot grow after this.
		if p.slots.Acquire(ctx, maxReads) == nil {
			p.replies.Wait()
			close(done)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// handle forwards the commands of one client until either side disconnects or the proxy
// stops.
func (p *proxy) handle(client net.Conn) {
	defer client.Close()
	backend, err := p.dial()
	if err != nil {
		p.warn("closed a client connection: %v", err)
		return
	}
	defer backend.Close()

	requests, replies := bufio.NewReader(client), bufio.NewReader(backend)
	for {
		request, err := readMessage(requests)
		if bad := malformedError(""); errors.As(err, &bad) {
			p.warn("closed a client connection: %v", bad)
		}
		if err != nil {
			return
		}
		if err := p.forward(request, client, backend, replies); err != nil {
			return
		}
	}
}

var errStopping = errors.New("the proxy is stopping")

// forward sends one command to the backend while it holds slots. It writes the reply to
// the client after it has released them.
//
// FerretDB also replies to requests for which the client expects no reply (w:0). Such a
// reply must be read, or it would be taken for the reply to the next command. It must
// not be sent to the client.
func (p *proxy) forward(request message, client, backend net.Conn, replies *bufio.Reader) error {
	c, parsed := request.command()
	n := int64(maxReads)
	if parsed == nil && slices.Contains(reads, c.name) || isHello(request) {
		n = 1
	}
	if !p.acquire(n) {
		return errStopping
	}
	send := func(m message) (message, error) { return p.roundTrip(m, backend, replies) }
	var reply message
	var err error
	if parsed == nil {
		reply, err = p.execute(request, c, send)
	} else if reply, err = send(request); err == nil && isHello(request) { // FerretDB replies to anything else itself
		reply = reply.withMember("msg", "isdbgrid")
	}
	p.replies.Add(1) // before the release: see stop
	p.slots.Release(n)
	defer p.replies.Done()

	if err != nil || !request.wantsReply() {
		return err
	}
	_, err = client.Write(reply)
	return err
}

// execute returns the reply to a command. The caller holds the slots; send sends a
// message to FerretDB.
func (p *proxy) execute(request message, c command, send func(message) (message, error)) (message, error) {
	session, number, retryable := c.retryable()
	retryable = retryable && !slices.Contains(reads, c.name)
	if retryable {
		if reply := p.retries.reply(session, number); reply != nil {
			return reply.asReplyTo(request), nil
		}
	}
	db, collection := c.namespace()
	if c.name == "dropDatabase" {
		p.catalog.close(db)
	}
	reply, err := p.run(request, c, send)
	if err != nil {
		return nil, err
	}
	reply.setDiskFullCode()
	switch c.name {
	case "hello", "isMaster", "ismaster":
		reply = reply.withMember("msg", "isdbgrid")
	case "insert", "update", "findAndModify":
		if !p.catalog.has(db, collection) {
			p.load(db)
		}
	case "create", "createIndexes", "drop", "dropIndexes":
		p.load(db)
	case "renameCollection":
		db, _, _ := strings.Cut(collection, ".")
		p.load(db)
	}
	if retryable {
		p.retries.store(session, number, reply)
	}
	return reply, nil
}

// load updates the catalog after a change. If it fails, commands are slow but correct.
func (p *proxy) load(db string) {
	if err := p.catalog.load(db); err != nil {
		p.warn("no index on the collections of %s: %v", db, err)
	}
}

// acquire waits for n slots. It reports false if the proxy stops first.
func (p *proxy) acquire(n int64) bool {
	if p.slots.Acquire(p.stopping, n) != nil {
		return false
	}
	if p.stopping.Err() != nil { // both were ready, and select chose the slots
		p.slots.Release(n)
		return false
	}
	return true
}

// roundTrip sends a request to the backend and returns the reply. After the timeout it
// returns an error, so that one hung command does not block the server. The backend may
// still execute that command, concurrently with later ones. The warning names this risk.
func (p *proxy) roundTrip(request message, backend net.Conn, replies *bufio.Reader) (message, error) {
	if err := backend.SetDeadline(time.Now().Add(p.timeout)); err != nil {
		return nil, err
	}
	if _, err := backend.Write(request); err != nil {
		return nil, fmt.Errorf("forward the command: %w", err)
	}
	reply, err := readMessage(replies)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.warn("a command had no reply after %v: its connection is closed; if the command still runs, later ones race with it", p.timeout)
	}
	return reply, err
}
