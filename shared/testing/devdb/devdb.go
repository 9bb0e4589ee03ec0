// Package embedded starts the project's embedded database, infra/devdb, as a
// child process: it builds the server if need be, starts it, says where it
// listens, and stops it.
//
// It is for the local runner and, through mongotest, for tests. It is not for
// production, and no function imports it.
//
// The server is a program of its own rather than a library because of what it
// is made of: its dependencies would choose the versions of ours, and it would
// be linked into every test. As a child it can also be killed and started
// again, which is what fault tests do.
//
// The child never outlives the parent. It watches the pipe that is its
// standard input, and the kernel closes that pipe however the parent ends. It
// ignores Ctrl-C, which a terminal sends to both, so the parent can still use
// the database on its own way out.
//
// It needs the go command, which finds in half a second that the server is built.
package devdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ticketing.com/auth/shared/testing/gobuild"
)

// readiness bounds a start, without the build. It takes some ten milliseconds,
// and longer the more databases the folder holds.
const readiness = 30 * time.Second

// goodbye bounds a stop. The server itself gives up waiting after five seconds.
const goodbye = 10 * time.Second

// ErrRefused is what a server's refusal to start is: an address in use, a
// folder it may not write, anything that another setting would mend. The error
// around it says in one sentence what it is.
var ErrRefused = errors.New("the embedded database refused to start")

// Options say where a server keeps its data and listens.
type Options struct {
	// Data is the folder of the data, made if it is missing. If empty, the
	// server keeps its data in a temporary folder, which it deletes when it
	// stops.
	Data string

	// Addr is the loopback address to listen on. If empty, it is a free port
	// of 127.0.0.1.
	Addr string

	// Progress, if set, is told in a sentence what takes long: a build.
	Progress func(string)
}

// A Server is a running embedded database.
type Server struct {
	uri    string
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr *opening

	asked  chan struct{} // closed once an end is asked for
	ask    func()        // closes asked
	exited chan struct{} // closed once the process is gone
	err    error         // how it went; read it after exited
	died   chan error
}

// Start builds the server unless it is built, starts it and waits until it
// answers. The context bounds the start, not the server's life.
//
// It returns ErrRefused for settings the server does not accept. The go
// command missing, a build that fails and a folder outside the repository are
// errors of their own.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	binary, err := Binary(ctx, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("embedded database: %w", err)
	}
	args, err := o.args()
	if err != nil {
		return nil, fmt.Errorf("embedded database: %w", err)
	}
	s, err := launch(ctx, binary, args)
	if err != nil {
		return nil, fmt.Errorf("embedded database: %w", err)
	}
	return s, nil
}

// Binary builds the server unless it is built, and returns the path of the program. It
// reports a build that takes long to progress.
func Binary(ctx context.Context, progress func(string)) (string, error) {
	folder, err := gobuild.Module{
		Name: "devdb", Title: "the embedded database", Dir: "infra/devdb", Duration: "a minute or two",
		Flags: []string{"-tags=ferretdb_no_postgresql", "-ldflags=-s -w"},
	}.Build(ctx, progress)
	return filepath.Join(folder, "devdb"), err
}

func (o Options) args() ([]string, error) {
	args := []string{"-until-stdin-closes"}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	args = append(args, "-addr", o.Addr)
	if o.Data == "" {
		return append(args, "-scratch"), nil
	}
	data, err := filepath.Abs(o.Data)
	return append(args, "-data", data), err
}

// URI is where the server listens, as mongodb://host:port.
func (s *Server) URI() string { return s.uri }

// Died delivers one error if the server ends without Stop or Kill, and nothing
// ever otherwise.
func (s *Server) UnexpectedExit() <-chan error { return s.died }

// Stop ends the server: the command in flight finishes, and the process is
// gone when Stop returns. It returns an error if the server did not end well,
// also when it had died before. Stopping twice is harmless.
func (s *Server) Stop() error {
	s.ask()
	s.stdin.Close()
	late := time.AfterFunc(goodbye, func() { s.cmd.Process.Kill() })
	defer late.Stop()
	<-s.exited
	return s.err
}

// Kill ends the server with SIGKILL, as a crash would. Scratch data stays
// behind in the temporary folder.
func (s *Server) Kill() {
	s.ask()
	s.cmd.Process.Kill()
	<-s.exited
	s.stdin.Close()
}

// launch starts the built server and waits until it is ready.
func launch(ctx context.Context, binary string, args []string) (*Server, error) {
	s := &Server{
		cmd:    exec.Command(binary, args...),
		stderr: new(opening),
		asked:  make(chan struct{}),
		exited: make(chan struct{}),
		died:   make(chan error, 1),
	}
	s.ask = sync.OnceFunc(func() { close(s.asked) })
	s.cmd.Stderr = s.stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	s.stdin = stdin
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go s.attend(stdout, ready)
	if err := s.await(ctx, ready); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// attend reads the ready line, and then stays with the process to its end.
func (s *Server) attend(stdout io.Reader, ready chan<- string) {
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); err == nil {
		ready <- strings.TrimSuffix(line, "\n")
	}
	io.Copy(io.Discard, lines) // Wait may be called only when all is read
	err := s.outcome(s.cmd.Wait())
	select {
	case <-s.asked:
	default:
		if err == nil {
			err = errors.New("it ended by itself")
		}
		s.died <- fmt.Errorf("embedded database: %w", err)
	}
	s.err = err
	close(s.exited)
}

func (s *Server) await(ctx context.Context, ready <-chan string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readiness, fmt.Errorf("not ready after %v", readiness))
	defer cancel()
	select {
	case s.uri = <-ready:
		return nil
	case <-s.exited:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// outcome turns the end of the process into an error that says what it said.
// A refusal is one sentence of the server's own: code 2 alone does not tell,
// since Go programs that panic end with it too.
func (s *Server) outcome(err error) error {
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(s.stderr.String())
	sentence, own := strings.CutPrefix(said, "devdb: ")
	switch {
	case own && !strings.Contains(sentence, "\n") && s.cmd.ProcessState.ExitCode() == 2:
		return refusal(sentence)
	case said != "":
		return fmt.Errorf("%w: %s", err, said)
	default:
		return err
	}
}

// A refusal is the server's own sentence, and an ErrRefused.
type refusal string

func (r refusal) Error() string        { return string(r) }
func (r refusal) Is(target error) bool { return target == ErrRefused }

// An opening keeps the first bytes written to it. The server says one line
// when it cannot start; if it crashes, the reason comes before the stacks.
type opening struct {
	mu   sync.Mutex
	kept []byte
}

func (o *opening) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const enough = 4 << 10
	o.kept = append(o.kept, p[:min(len(p), enough-len(o.kept))]...)
	return len(p), nil
}

func (o *opening) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.kept)
}
