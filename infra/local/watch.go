package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

const (
	// pollInterval is the time between two scans of the sources. Polling works the same on all
	// operating systems, unlike change notifications. A scan of some hundred files takes
	// milliseconds.
	pollInterval = 300 * time.Millisecond
	// startTimeout is the time within which a new process must start to serve.
	startTimeout = 30 * time.Second
	// minBackoff and maxBackoff bound the wait before a restart. The first restart after an exit
	// is immediate. After each further exit the wait doubles, so that a process that always
	// fails does not use all of the CPU and does not flood the terminal.
	minBackoff, maxBackoff = time.Second, 30 * time.Second
	// stableAfter is the run time after which the backoff starts again.
	stableAfter = time.Minute
)

// watch runs the functions in a child process. It builds and replaces the child when a source file
// is saved. The database, the keys and the socket belong to this process: stored data stays, and
// a client that connects during a restart waits and gets no error.
//
// The old child drains its in-flight requests after the new one has started to serve. If a build
// or a start fails, watch prints the error and keeps the old child. If a child exits by itself,
// watch prints its status and restarts it.
func watch(ctx context.Context, o options) error {
	files, err := keys(filepath.Join(o.data, "keys"))
	if err != nil {
		return err
	}
	listener, err := listen(o.addr, 0)
	if err != nil {
		return err
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer socket.Close()
	root, err := workspace(ctx)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "ticketing-local-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	ctx, uri, stop, err := database(ctx, filepath.Join(o.data, "mongod"))
	if err != nil {
		return err
	}
	defer stop()
	s := supervisor{root: root, folder: folder, options: o, socket: socket, env: os.Environ()}
	for _, settings := range []map[string]string{files, uri} {
		for name, value := range settings {
			s.env = append(s.env, name+"="+value)
		}
	}
	defer func() { s.current.stop() }()
	for built, last := "", ""; ; {
		now := sources(root)
		if now != built && now == last { // unchanged for one interval: a save is often more than one write
			s.rebuild(ctx, built == "")
			built = now
		}
		last = now
		s.restart(ctx)
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// workspace returns the folder of go.work.
func workspace(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	file := strings.TrimSpace(string(out))
	if err != nil || !filepath.IsAbs(file) {
		return "", errors.New("-watch builds from the sources: run the command in the repository")
	}
	return filepath.Dir(file), nil
}

// sources returns a fingerprint of the source files: their paths, times and sizes.
func sources(root string) string {
	var all strings.Builder
	for _, top := range []string{"functions", "shared", "infra", "go.work"} {
		filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return nil // the next scan sees a file that disappears during this one
			}
			if info, err := d.Info(); err == nil {
				fmt.Fprintln(&all, path, info.ModTime().UnixNano(), info.Size())
			}
			return nil
		})
	}
	return all.String()
}

// A supervisor builds, starts and replaces the child process.
type supervisor struct {
	options      options
	root, folder string
	socket       *os.File
	env          []string
	builds       int // numbers the binaries, because a running one cannot be overwritten
	current      *process

	due     time.Time     // time of the restart after an exit; zero if the child runs
	backoff time.Duration // wait before the next restart
}

// rebuild builds the sources and replaces the child process.
func (s *supervisor) rebuild(ctx context.Context, first bool) {
	began := time.Now()
	s.builds++
	binary := filepath.Join(s.folder, fmt.Sprintf("local-%d", s.builds))
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, "./infra/local")
	build.Dir = s.root
	if out, err := build.CombinedOutput(); err != nil {
		if ctx.Err() == nil {
			s.reportFailure("The build failed", out)
		}
		return
	}
	output := io.Discard
	if first || s.current == nil { // the first process prints the routes
		output = os.Stdout
	}
	next, err := start(ctx, binary, s.options, s.socket, s.env, output)
	if err != nil {
		os.Remove(binary)
		if ctx.Err() == nil {
			s.reportFailure("The new build does not start: "+err.Error(), nil)
		}
		return
	}
	if s.current.stop(); s.current != nil {
		os.Remove(s.current.cmd.Path)
	}
	s.backoff, s.due = 0, time.Time{}
	if s.current = next; !first {
		fmt.Fprintf(os.Stderr, "Restarted after a change, in %.1f s.\n", time.Since(began).Seconds())
	}
}

// restart starts the child again if it has exited by itself. Otherwise clients would wait without
// end, because the socket stays open.
func (s *supervisor) restart(ctx context.Context) {
	if s.current == nil || s.current.alive() || ctx.Err() != nil {
		return
	}
	if s.due.IsZero() {
		if time.Since(s.current.began) > stableAfter {
			s.backoff = 0
		}
		s.scheduleRestart("The functions stopped: " + s.current.cmd.ProcessState.String())
	}
	if time.Now().Before(s.due) {
		return
	}
	next, err := start(ctx, s.current.cmd.Path, s.options, s.socket, s.env, io.Discard)
	if err != nil {
		if ctx.Err() == nil {
			s.scheduleRestart("The restart failed: " + err.Error())
		}
		return
	}
	s.current, s.due = next, time.Time{}
	fmt.Fprintln(os.Stderr, "The functions run again.")
}

// scheduleRestart sets the time of the next restart, and prints it with the reason.
func (s *supervisor) scheduleRestart(reason string) {
	when := "at once"
	if s.backoff > 0 {
		when = "in " + s.backoff.String() + ", or after a change"
	}
	fmt.Fprintf(os.Stderr, "%s. Restarting %s.\n", reason, when)
	s.due = time.Now().Add(s.backoff)
	s.backoff = min(max(2*s.backoff, minBackoff), maxBackoff)
}

// reportFailure prints the reason why a build does not run, and the state of the current child.
func (s *supervisor) reportFailure(reason string, output []byte) {
	state := "The previous build continues to run."
	if s.current == nil {
		state = "Nothing is served until you fix the error."
	} else if !s.current.alive() {
		state = "The previous build restarts."
	}
	fmt.Fprintf(os.Stderr, "%s%s. %s\n", output, reason, state)
}

// A process is a child that serves the functions on a socket of its parent, until its standard
// input closes. So it always stops together with its parent. A Ctrl-C of the terminal reaches
// both processes; the child ignores it, and drains its requests.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}
	began time.Time
}

// untilStdinCloses returns the context of a child process.
func untilStdinCloses() context.Context {
	signal.Ignore(os.Interrupt)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return ctx
}

// start starts a child process and returns as soon as it serves.
func start(ctx context.Context, binary string, o options, socket *os.File, env []string, output io.Writer) (*process, error) {
	cmd := exec.Command(binary, "-socket", "3", "-data", o.data, fmt.Sprintf("-observe=%t", o.observe))
	cmd.Env, cmd.Stderr, cmd.ExtraFiles = env, os.Stderr, []*os.File{socket}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, stdin, make(chan struct{}), time.Now()}
	serves := make(chan bool, 1)
	go func() {
		lines := bufio.NewReader(stdout)
		line, err := lines.ReadBytes('\n')
		serves <- err == nil
		io.Copy(output, io.MultiReader(bytes.NewReader(line), lines))
		cmd.Wait()
		close(p.done)
	}()
	select {
	case ok := <-serves:
		if ok {
			return p, nil
		}
		<-p.done
		return nil, errors.New(cmd.ProcessState.String())
	case <-time.After(startTimeout):
	case <-ctx.Done():
	}
	p.stop()
	return nil, errors.New("it did not start to serve in time")
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop drains the in-flight requests of the process and waits for its exit. p may be nil.
func (p *process) stop() {
	if p == nil {
		return
	}
	p.stdin.Close()
	<-p.done
}
