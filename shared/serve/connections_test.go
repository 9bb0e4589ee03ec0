package serve

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes are a listener without a network, so that a bubble of synctest holds all of
// it, clock included.
type pipes struct {
	calls  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A house is a server with room for some connections. It answers with the body that it
// got, after so long.
type house struct {
	pipes
	t       *testing.T
	stop    context.CancelFunc
	stopped chan error
}

func newHouse(t *testing.T, room int, takes time.Duration) *house {
	h := &house{pipes: pipes{calls: make(chan net.Conn), closed: make(chan struct{})}, t: t, stopped: make(chan error, 1)}
	ctx, stop := context.WithCancel(t.Context())
	h.stop = stop
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if len(r.Trailer) > 0 {
			t.Errorf("a trailer is kept: %v", r.Trailer)
		}
		time.Sleep(takes)
		w.Write(body)
	})
	go func() {
		h.stopped <- serveWith(ctx, newConnections(&h.pipes, room), echo, slog.New(slog.DiscardHandler))
	}()
	return h
}

// end stops the server and waits for it.
func (h *house) end() {
	h.stop()
	if err := <-h.stopped; err != nil {
		h.t.Error(err)
	}
}

// A guest is somebody who is connected.
type guest struct {
	net.Conn
	arrived chan struct{} // closed when the server has taken the connection
	left    chan struct{} // closed when it was closed by the server
	heard   *transcript
}

// A transcript is what somebody has heard so far.
type transcript struct {
	mu sync.Mutex
	b  strings.Builder
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// comes connects, says something and listens. It does not wait to be let in.
func (h *house) comes(format string, args ...any) *guest {
	near, far := net.Pipe()
	g := &guest{near, make(chan struct{}), make(chan struct{}), &transcript{}}
	go func() {
		h.calls <- far
		close(g.arrived)
		fmt.Fprintf(near, format, args...)
	}()
	go func() {
		io.Copy(g.heard, near)
		close(g.left)
	}()
	synctest.Wait()
	return g
}

func is(c chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// is200 tells whether the server's last words were an answer with a body.
func (g *guest) is200(body string) bool {
	synctest.Wait()
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(g.heard.String())), nil)
	if err != nil {
		return false
	}
	read, err := io.ReadAll(r.Body)
	return err == nil && r.StatusCode == http.StatusOK && string(read) == body
}

const (
	without   = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	trailed   = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"
	whole     = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
	headless  = "POST / HTTP/1.1\r\nHost: x\r\nContent-Le"
	bodiless  = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel"
	forTheEnd = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
)

func TestWhoSendsSlowlyIsCutOffInFiveSeconds(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		in   time.Duration
	}{
		"nothing at all":     {"", 5 * time.Second},
		"half of a header":   {headless, 5 * time.Second},
		"half of a body":     {bodiless, 5 * time.Second},
		"no further request": {whole, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, 10, 0)
				defer h.end()
				g := h.comes("%s", c.says)
				if time.Sleep(c.in - time.Millisecond); is(g.left) {
					t.Error("is cut off early")
				}
				if time.Sleep(600 * time.Millisecond); !is(g.left) { // the wait of one who was refused in the middle included
					t.Errorf("is there after %v", c.in)
				}
			})
		})
	}
}

// Who asks and asks, and reads no answer.
func TestWhoDoesNotReadIsCutOff(t *testing.T) {
	deaf := func(h *house) *guest {
		near, far := net.Pipe() // it has no buffer: nothing that is not read is sent
		g := &guest{Conn: near, left: make(chan struct{})}
		go func() {
			h.calls <- far
			io.WriteString(near, without)
			<-h.t.Context().Done()
		}()
		go func() { // whether the other end is closed, a write tells without reading
			for {
				time.Sleep(10 * time.Millisecond)
				near.SetWriteDeadline(time.Now().Add(time.Millisecond))
				if _, err := near.Write([]byte("G")); err == io.ErrClosedPipe {
					close(g.left)
					return
				}
			}
		}()
		synctest.Wait()
		return g
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 10, 0)
		defer h.end()
		g := deaf(h)
		if time.Sleep(inputTime - 20*time.Millisecond); is(g.left) {
			t.Error("is cut off early")
		}
		if time.Sleep(lingerTimeout + time.Second); !is(g.left) {
			t.Errorf("is there after %v", inputTime+lingerTimeout)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2, 0)
		first, second := deaf(h), deaf(h)
		defer func() {
			h.end()
			<-first.left
			<-second.left
		}()
		time.Sleep(patience)
		if honest := h.comes(whole); !honest.is200("hello") {
			t.Errorf("who comes hears %q", honest.heard)
		}
		if time.Sleep(20 * time.Millisecond); !is(first.left) && !is(second.left) {
			t.Error("nobody went")
		}
	})
}

func TestWhereThereIsNoRoomTheOneGoesThatWasWaitedForLongest(t *testing.T) {
	for name, says := range map[string]string{
		"who has said nothing": "", "who has not ended the headers": headless, "who holds the body back": bodiless, "who rests": whole,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, 3, 0)
				defer h.end()
				first := h.comes("%s", says)
				time.Sleep(time.Second)
				second, third := h.comes("%s", says), h.comes("%s", says)
				if is(first.left) {
					t.Fatal("somebody goes though there is room")
				}
				if time.Sleep(patience / 2); is(second.left) {
					t.Error("somebody goes while nobody is at the door")
				}
				if last := h.comes(whole); !last.is200("hello") {
					t.Errorf("the last one hears %q", last.heard)
				}
				if !is(first.left) || is(second.left) || is(third.left) {
					t.Errorf("of the three left: %v %v %v", is(first.left), is(second.left), is(third.left))
				}
			})
		})
	}
}

// Who is about to be waited for is not who has been.
func TestWhoBeginsARequestIsLastInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2, 0)
		defer h.end()
		rests := h.comes(whole)
		silent := h.comes("")
		io.WriteString(rests, bodiless)
		last := h.comes(whole)
		if is(rests.left) || is(silent.left) || last.is200("hello") {
			t.Error("somebody is cut off at once")
		}
		if time.Sleep(patience + time.Millisecond); is(rests.left) || !is(silent.left) || !last.is200("hello") {
			t.Error("who has begun last is cut off first")
		}
	})
}

func TestWhoseRequestIsWholeIsNeverCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2, 3*time.Second)
		defer h.end()
		one := h.comes(whole)
		time.Sleep(time.Second)
		two := h.comes(without)
		three := h.comes(trailed)
		if time.Sleep(time.Second); one.is200("hello") || is(one.left) || is(two.left) || three.is200("hello") {
			t.Error("there was room, or somebody made some")
		}
		time.Sleep(time.Second + patience + time.Millisecond)
		if !one.is200("hello") || !is(one.left) || is(two.left) { // it rests, and so it goes
			t.Errorf("the first hears %q", one.heard)
		}
		time.Sleep(3 * time.Second)
		if !two.is200("") || !three.is200("hello") {
			t.Errorf("the others hear %q and %q", two.heard, three.heard)
		}
	})
}

// Nobody who is just sending the next request is cut off for those at the door: it is
// answered, and told that this was the last.
func TestWhoIsAnsweredWhileOthersAreAtTheDoorGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1, 0)
		defer h.end()
		inside := h.comes(whole)
		outside := h.comes(whole)
		if time.Sleep(patience / 2); is(inside.left) || outside.is200("hello") {
			t.Error("there was room, or somebody made some")
		}
		io.WriteString(inside, whole)
		if !is(inside.left) || strings.Count(inside.heard.String(), "200 OK") != 2 || strings.Count(inside.heard.String(), "Connection: close") != 1 {
			t.Errorf("who was inside hears %q", inside.heard)
		}
		if !outside.is200("hello") {
			t.Errorf("who was outside hears %q", outside.heard)
		}
	})
}

// On a machine that has too much to do, requests lie there unread.
func TestWhoWasOnlyNotReadYetIsNotCutOff(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cs := newConnections(listener, 2)
	var far [2]net.Conn
	for i := range far {
		if far[i], err = net.Dial("tcp", listener.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer far[i].Close()
		if _, err := cs.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	line := func() (all []*connection) {
		for e := cs.waiting.Front(); e != nil; e = e.Next() {
			all = append(all, e.Value.(*connection))
		}
		return all
	}
	first, second := line()[0], line()[1]
	first.since, second.since = time.Time{}, time.Time{}
	if cs.showOut(); len(line()) != 2 {
		t.Error("one is shown out that nobody has begun to read")
	}
	first.since, second.since = time.Time{}, time.Time{}
	first.reads.Store(true)
	second.reads.Store(true)
	io.WriteString(far[0], "x")
	for deadline := time.Now().Add(10 * time.Second); !unread(first.Conn); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Skip("what has come and is not read cannot be told here")
		}
	}
	cs.showOut()
	if left := line(); len(left) != 1 || left[0] != first {
		t.Error("it is not the one who has sent nothing")
	}
	first.Close()
}

// A stop waits for who has begun to ask, and not for who is only there.
func TestAStopDoesNotWaitForWhoSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 10, 0)
		silent, asks, soon := h.comes(""), h.comes("%s", forTheEnd[:50]), h.comes("")
		began := time.Now()
		h.stop()
		time.Sleep(silence / 2)
		if io.WriteString(soon, forTheEnd); !soon.is200("hello") {
			t.Errorf("who was connected hears %q", soon.heard)
		}
		time.Sleep(silence)
		if !is(silent.left) || is(asks.left) {
			t.Errorf("left: the silent one %v, the one who asks %v", is(silent.left), is(asks.left))
		}
		if io.WriteString(asks, forTheEnd[50:]); !asks.is200("hello") {
			t.Errorf("who was asking hears %q", asks.heard)
		}
		if err := <-h.stopped; err != nil || time.Since(began) > 2*silence {
			t.Errorf("stopped after %v: %v", time.Since(began), err)
		}
	})
}

func TestAStopLetsInWhoWaitsAtTheDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 1, 4*time.Second)
		inside := h.comes(forTheEnd)
		outside := h.comes(forTheEnd)
		began := time.Now()
		h.stop()
		if err := <-h.stopped; err != nil || time.Since(began) >= 8*time.Second { // one after the other
			t.Errorf("stopped after %v: %v", time.Since(began), err)
		}
		if !inside.is200("hello") || !outside.is200("hello") {
			t.Errorf("they hear %q and %q", inside.heard, outside.heard)
		}
	})
}

func TestRoomFollowsTheMemory(t *testing.T) {
	for name, c := range map[string]struct {
		limit int64
		want  int
	}{
		"a small container": {57 << 20, 202},
		"twice that":        {115 << 20, 408},
		"next to nothing":   {1 << 20, 16},
		"no limit":          {math.MaxInt64, 4096},
	} {
		if got := Room(c.limit); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestLinesAreCountedOfEachHead(t *testing.T) {
	lines := strings.Repeat("a:\r\n", 200)
	for name, c := range map[string]struct {
		says string
		want bool
	}{
		"a head":                          {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
		"too many lines":                  {"GET / HTTP/1.1\r\n" + lines, true},
		"too many behind one empty line":  {"\r\nGET / HTTP/1.1\r\n" + lines, true},
		"too many behind two empty lines": {"\n\nGET / HTTP/1.1\r\n" + lines, true},
		"what comes behind the head":      {"GET / HTTP/1.1\r\n\r\n" + lines, false},
	} {
		for _, piece := range []int{1, 7, 4096} {
			var h head
			for rest := []byte(c.says); len(rest) > 0; rest = rest[min(piece, len(rest)):] {
				h.grows(rest[:min(piece, len(rest))])
			}
			if h.isTooLong() != c.want {
				t.Errorf("%s, in pieces of %d: %v", name, piece, h.isTooLong())
			}
		}
	}
}

// A head that came along with the request before it was not counted to its end, and the
// body behind it is no part of it.
func TestABodyBehindAnotherRequestIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 2, 0)
		defer h.end()
		body := strings.Repeat("x\n", 1500)
		g := h.comes("%sPOST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", without, len(body), body)
		if !is(g.left) {
			t.Fatal("the second is not answered")
		}
		if got := g.heard.String(); strings.Count(got, "200 OK") != 2 || !strings.Contains(got, "bb8\r\n"+body+"\r\n0\r\n") {
			t.Errorf("it hears %.300q", got)
		}
	})
}

// Once it stops, an answer is the last of its connection: net/http would drop the next
// request without one.
func TestAnAnswerDuringAStopIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, 10, 0)
		soon, silent := h.comes(""), h.comes("")
		h.stop()
		time.Sleep(silence / 2)
		io.WriteString(soon, whole)
		if !is(soon.left) || !soon.is200("hello") || !strings.Contains(soon.heard.String(), "Connection: close") {
			t.Errorf("it hears %q", soon.heard)
		}
		if <-h.stopped; !is(silent.left) {
			t.Error("the silent one is there")
		}
	})
}
