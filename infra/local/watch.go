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
	// look is how often the sources are looked at. It is done by hand, because what
	// the system tells of changes differs from one to the next, and a folder of some
	// hundred files is read in milliseconds.
	look = 300 * time.Millisecond
	// begin is how long a new process has to say that it serves.
	begin = 30 * time.Second
	// A process that ends by itself is followed by another at once. Where that ends soon
	// too the next ones wait longer and longer, so that what always dies does not keep the
	// machine busy, and can still be read about.
	firstPause, longestPause = time.Second, 30 * time.Second
	// steady is how long a process must have served for its end to be a new matter.
	steady = time.Minute
)

// watch runs the system with the functions in a process of their own, which is built
// and started anew when a source is saved. The database, the keys and the socket are
// this process's, so users stay, and callers in between wait instead of being
// refused: the old process finishes what it has begun once the new one serves. What
// does not compile or does not start is shown, and the old one goes on. One that ends by
// itself is shown as well, and started again.
func watch(ctx context.Context, addr, data string) error {
	files, err := keys(filepath.Join(data, "keys"))
	if err != nil {
		return err
	}
	listener, err := listen(addr, 0)
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
	ctx, uri, stop, err := database(ctx, filepath.Join(data, "mongod"))
	if err != nil {
		return err
	}
	defer stop()
	s := served{root: root, folder: folder, data: data, socket: socket, env: os.Environ()}
	for _, settings := range []map[string]string{files, uri} {
		for name, value := range settings {
			s.env = append(s.env, name+"="+value)
		}
	}
	defer func() { s.now.end() }()
	for seen, last := "", ""; ; {
		now := sources(root)
		if now != seen && now == last { // it has not changed for a moment: a save is often more than one write
			s.renew(ctx, seen == "")
			seen = now
		}
		last = now
		s.revive(ctx)
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// workspace is the folder of go.work.
func workspace(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	file := strings.TrimSpace(string(out))
	if err != nil || !filepath.IsAbs(file) {
		return "", errors.New("-watch builds from the sources: run it in the repository")
	}
	return filepath.Dir(file), nil
}

// sources names every file that the system is made of, with its time and size.
func sources(root string) string {
	var all strings.Builder
	for _, top := range []string{"functions", "shared", "infra", "go.work"} {
		filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return nil // a file that is gone while it is looked at is seen the next time
			}
			if info, err := d.Info(); err == nil {
				fmt.Fprintln(&all, path, info.ModTime().UnixNano(), info.Size())
			}
			return nil
		})
	}
	return all.String()
}

// served is what is served now, and what the next is made of.
type served struct {
	root, folder, data string
	socket             *os.File
	env                []string
	count              int // of builds, so that no file is written while it runs
	now                *process

	due   time.Time     // when what ended by itself is started again; zero where nothing has
	pause time.Duration // until then, the next time
}

// renew builds what the sources say and puts it in the place of what is served.
func (s *served) renew(ctx context.Context, first bool) {
	began := time.Now()
	s.count++
	binary := filepath.Join(s.folder, fmt.Sprintf("local-%d", s.count))
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, "./infra/local")
	build.Dir = s.root
	if out, err := build.CombinedOutput(); err != nil {
		if ctx.Err() == nil {
			s.keep("It does not compile", out)
		}
		return
	}
	greeting := io.Discard
	if first || s.now == nil { // nothing has served yet
		greeting = os.Stdout
	}
	next, err := start(ctx, binary, s.data, s.socket, s.env, greeting)
	if err != nil {
		os.Remove(binary)
		if ctx.Err() == nil {
			s.keep("It does not start: "+err.Error(), nil)
		}
		return
	}
	if s.now.end(); s.now != nil {
		os.Remove(s.now.cmd.Path)
	}
	s.pause, s.due = 0, time.Time{}
	if s.now = next; !first {
		fmt.Fprintf(os.Stderr, "Restarted after a change, in %.1f s.\n", time.Since(began).Seconds())
	}
}

// revive starts the process again if it has ended by itself: callers would wait for it
// for ever, since the socket is still there.
func (s *served) revive(ctx context.Context) {
	if s.now == nil || s.now.alive() || ctx.Err() != nil {
		return
	}
	if s.due.IsZero() {
		if time.Since(s.now.began) > steady {
			s.pause = 0
		}
		s.fell("The functions have stopped by themselves: " + s.now.cmd.ProcessState.String())
	}
	if time.Now().Before(s.due) {
		return
	}
	again, err := start(ctx, s.now.cmd.Path, s.data, s.socket, s.env, io.Discard)
	if err != nil {
		if ctx.Err() == nil {
			s.fell("They do not start again: " + err.Error())
		}
		return
	}
	s.now, s.due = again, time.Time{}
	fmt.Fprintln(os.Stderr, "They are there again.")
}

// fell says why nothing is served, and when that is to change.
func (s *served) fell(why string) {
	when := "at once"
	if s.pause > 0 {
		when = "in " + s.pause.String() + ", or after a change"
	}
	fmt.Fprintf(os.Stderr, "%s. They start again %s.\n", why, when)
	s.due = time.Now().Add(s.pause)
	s.pause = min(max(2*s.pause, firstPause), longestPause)
}

func (s *served) keep(why string, output []byte) {
	goes := "What was there before goes on."
	if s.now == nil {
		goes = "Nothing is served until that is mended."
	} else if !s.now.alive() {
		goes = "What was there before is started again."
	}
	fmt.Fprintf(os.Stderr, "%s%s. %s\n", output, why, goes)
}

// A process serves the functions on a socket that it was given, until its standard
// input closes: so it ends with the one that watches, however that ends, and a Ctrl-C
// of the terminal, which reaches both, does not cut it short.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}
	began time.Time
}

// untilStdinCloses is how long such a process goes on.
func untilStdinCloses() context.Context {
	signal.Ignore(os.Interrupt)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return ctx
}

// start returns when the process serves.
func start(ctx context.Context, binary, data string, socket *os.File, env []string, greeting io.Writer) (*process, error) {
	cmd := exec.Command(binary, "-socket", "3", "-data", data)
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
		io.Copy(greeting, io.MultiReader(bytes.NewReader(line), lines))
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
	case <-time.After(begin):
	case <-ctx.Done():
	}
	p.end()
	return nil, errors.New("it did not begin to serve")
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end lets the process finish what it has begun. There may be none.
func (p *process) end() {
	if p == nil {
		return
	}
	p.stdin.Close()
	<-p.done
}
