// Package devdb runs the project's embedded database, infra/devdb, as a child process. It
// builds the server if necessary, starts it, returns its address, and stops it.
//
// The local runner uses it and, through mongotest, so do tests. It is not for production, and
// no function imports it.
//
// The server is a separate program and not a library. As a library, its dependencies would
// decide the versions of the functions' dependencies, and every test would link it. Tests of
// failures also need to kill and restart the server.
//
// The server exits when its parent exits. Its standard input is a pipe from the parent, and the
// kernel closes that pipe at any exit of the parent. A terminal sends Ctrl-C to both processes,
// but the server ignores it. So the parent can use the database during its shutdown.
//
// The package needs the go command, which takes 0.5 s if the server is built.
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

// startTimeout bounds a start, without the build. A start takes about ten milliseconds, and
// longer for a folder with many databases.
const startTimeout = 30 * time.Second

// stopTimeout bounds a stop. The server itself waits at most five seconds for commands in
// flight.
const stopTimeout = 10 * time.Second

// ErrRefused is the error of a server that rejects a setting and does not start. Examples are
// an address in use and a folder without write permission. The error that wraps it has one
// sentence with the reason.
var ErrRefused = errors.New("the embedded database did not start because of a setting")

// Options are the settings of a server.
type Options struct {
	// Data is the folder of the data. The server creates it if it does not exist. If Data is
	// empty, the server uses a temporary folder and deletes it at its exit.
	Data string

	// Addr is the loopback address to listen on. If it is empty, the server listens on a free
	// port of 127.0.0.1.
	Addr string

	// Progress, if set, receives a sentence about a slow build.
	Progress func(string)
}

// A Server is a running embedded database.
type Server struct {
	uri    string
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr *prefixBuffer

	stopping       chan struct{} // closed by Stop and Kill
	markStopping   func()        // closes stopping
	exited         chan struct{} // closed after the process has exited
	err            error         // of the process; valid after exited
	unexpectedExit chan error
}

// Start builds the server unless it is built, starts it and waits until it is ready. The
// context bounds the start, not the run time of the server.
//
// Start returns an error that wraps ErrRefused if the server rejects a setting. It returns
// other errors for a missing go command, a failed build, and a working directory outside the
// repository.
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
// reports a slow build to progress. A process builds the server once, because the go command
// takes a second to find that nothing has changed.
func Binary(ctx context.Context, progress func(string)) (string, error) {
	built.Lock()
	defer built.Unlock()
	if built.path != "" {
		return built.path, nil
	}
	folder, err := gobuild.Module{
		Name: "devdb", Title: "the embedded database", Dir: "infra/devdb", Duration: "a minute or two",
		Flags: []string{"-tags=ferretdb_no_postgresql", "-ldflags=-s -w"},
	}.Build(ctx, progress)
	if err != nil {
		return "", err
	}
	built.path = filepath.Join(folder, "devdb")
	return built.path, nil
}

var built struct {
	sync.Mutex
	path string
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

// URI returns the server's URI, mongodb://host:port.
func (s *Server) URI() string { return s.uri }

// UnexpectedExit returns a channel that receives one error if the server exits without Stop or
// Kill.
func (s *Server) UnexpectedExit() <-chan error { return s.unexpectedExit }

// Stop stops the server and waits for its exit. The command in flight completes. Stop returns
// an error if the server failed, also before the call. A second call returns the same error.
func (s *Server) Stop() error {
	s.markStopping()
	s.stdin.Close()
	timeout := time.AfterFunc(stopTimeout, func() { s.cmd.Process.Kill() })
	defer timeout.Stop()
	<-s.exited
	return s.err
}

// Kill kills the server with SIGKILL, to simulate a crash. A temporary data folder remains.
func (s *Server) Kill() {
	s.markStopping()
	s.cmd.Process.Kill()
	<-s.exited
	s.stdin.Close()
}

// launch starts the built server and waits until it is ready.
func launch(ctx context.Context, binary string, args []string) (*Server, error) {
	s := &Server{
		cmd:    exec.Command(binary, args...),
		stderr: new(prefixBuffer),

		stopping:       make(chan struct{}),
		exited:         make(chan struct{}),
		unexpectedExit: make(chan error, 1),
	}
	s.markStopping = sync.OnceFunc(func() { close(s.stopping) })
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
	go s.watch(stdout, ready)
	if err := s.await(ctx, ready); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// watch reads the line that the server prints when it is ready, and then waits for its exit.
func (s *Server) watch(stdout io.Reader, ready chan<- string) {
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); err == nil {
		ready <- strings.TrimSuffix(line, "\n")
	}
	io.Copy(io.Discard, lines) // Wait requires that all output is read
	err := s.outcome(s.cmd.Wait())
	select {
	case <-s.stopping:
	default:
		if err == nil {
			err = errors.New("the server exited by itself")
		}
		s.unexpectedExit <- fmt.Errorf("embedded database: %w", err)
	}
	s.err = err
	close(s.exited)
}

// await waits until the server is ready.
func (s *Server) await(ctx context.Context, ready <-chan string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not ready after %v", startTimeout))
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

// outcome returns the error of a process, with its standard error. The server reports a
// rejected setting with exit code 2 and one line that begins with "devdb: ". The code alone is
// ambiguous, since a Go program that panics has the same code.
func (s *Server) outcome(err error) error {
	if err == nil {
		return nil
	}
	output := strings.TrimSpace(s.stderr.String())
	message, own := strings.CutPrefix(output, "devdb: ")
	switch {
	case own && !strings.Contains(message, "\n") && s.cmd.ProcessState.ExitCode() == 2:
		return refusal(message)
	case output != "":
		return fmt.Errorf("%w: %s", err, output)
	default:
		return err
	}
}

// A refusal is the server's message about a rejected setting. It is an ErrRefused.
type refusal string

func (r refusal) Error() string        { return string(r) }
func (r refusal) Is(target error) bool { return target == ErrRefused }

// A prefixBuffer stores the first 4 KiB written to it. The server prints one line if it cannot
// start. If it crashes, it prints the reason before the stacks.
type prefixBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (p *prefixBuffer) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	const size = 4 << 10
	p.b = append(p.b, data[:min(len(data), size-len(p.b))]...)
	return len(data), nil
}

func (p *prefixBuffer) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.b)
}
