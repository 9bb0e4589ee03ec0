// Package e2e proves the system from outside: its binaries as processes, started
// from the environment alone, stopped and killed by signals, called over HTTP.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "ticketing.com/auth/infra/catalog" // so that go test does not reuse a result when a function has changed
	"ticketing.com/auth/shared/testing/gobuild"
)

// Commands returns the folders of all commands, from the root of the repository: those
// with Go files of package main. A command outside the workspace is a module of its own.
func Commands() (workspace, outside []string, err error) {
	root, err := gobuild.Repository()
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	visit := func(path string, d fs.DirEntry, err error) error {
		folder := filepath.Dir(path)
		if err != nil || seen[folder] || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil || !isMain.Match(source) {
			return err
		}
		seen[folder] = true
		name, err := filepath.Rel(root, folder)
		if _, none := os.Stat(filepath.Join(folder, "go.mod")); none != nil {
			workspace = append(workspace, filepath.ToSlash(name))
		} else {
			outside = append(outside, filepath.ToSlash(name))
		}
		return err
	}
	err = errors.Join(filepath.WalkDir(filepath.Join(root, "functions"), visit), filepath.WalkDir(filepath.Join(root, "infra"), visit))
	return workspace, outside, err
}

var isMain = regexp.MustCompile(`(?m)^package main$`)

// binaries builds every command of the workspace, once for all tests, as a deployment
// would: static.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ticketing-e2e-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	commands, _, err := Commands()
	if err != nil {
		return "", err
	}
	args := []string{"build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}
	for _, folder := range commands {
		args = append(args, "ticketing.com/auth/"+folder)
	}
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

var builtIn string // the folder that binaries made, if it did

// Main runs the tests of a package and removes what was built for them.
func Main(m *testing.M) {
	code := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

// Binary returns the path of a built command.
func Binary(t testing.TB, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// A Process is a running function.
type Process struct {
	URL string

	cmd    *exec.Cmd
	stderr *Transcript
	port   chan string
	done   chan struct{}
}

var listening = regexp.MustCompile(`"msg":"listening".*"port":(\d+)`)

// Start starts a function with the settings given and no others, and waits until
// it listens.
func Start(t testing.TB, name string, settings ...string) *Process {
	t.Helper()
	p := Launch(t, name, append(settings, "PORT=0")...)
	select {
	case n := <-p.port:
		p.URL = "http://127.0.0.1:" + n
	case <-p.done:
		t.Fatalf("%s ended: %s", name, p.stderr)
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not listen: %s", name, p.stderr)
	}
	return p
}

// Launch starts a function as Start does, and does not wait.
func Launch(t testing.TB, name string, settings ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(Binary(t, name)), stderr: &Transcript{}, port: make(chan string, 1), done: make(chan struct{})}
	p.cmd.Env = settings
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				p.port <- m[1]
			}
			fmt.Fprintln(p.stderr, lines.Text())
		}
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { p.Signal(os.Kill) })
	return p
}

// Send sends a signal.
func (p *Process) Send(s os.Signal) { p.cmd.Process.Signal(s) }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal and waits for the end; it returns the exit code.
func (p *Process) Signal(s os.Signal) int {
	p.Send(s)
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Logs returns what the process wrote to standard error.
func (p *Process) Logs() string { return p.stderr.String() }

// PeakMemory returns the most memory that was resident, in bytes.
func (p *Process) PeakMemory(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	m := resident.FindSubmatch(status)
	if err != nil || m == nil {
		t.Fatalf("how much memory a process has, only Linux says here: %v", err)
	}
	kib, _ := strconv.Atoi(string(m[1]))
	return kib << 10
}

var resident = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// Call sends a request and returns status, headers and body. An answer that
// takes over five seconds is an error: that is what callers are promised.
func Call(ctx context.Context, method, url, bearer, body string) (int, http.Header, string, error) {
	var sent io.Reader
	if body != "" {
		sent = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, url, sent)
	if err != nil {
		return 0, nil, "", err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(read), err
}

// MustFail runs a command that must not start, and returns its exit code and what
// it wrote to standard error.
func MustFail(t testing.TB, settings []string, name string, args ...string) (int, string) {
	t.Helper()
	code, stderr := Run(t, settings, name, args...)
	if code == 0 {
		t.Fatalf("%s %v is not refused: %s", name, args, stderr)
	}
	return code, stderr
}

// Run runs a command to its end, and returns its exit code and what it wrote to
// standard error. One that takes over thirty seconds is killed; its code is -1.
func Run(t testing.TB, settings []string, name string, args ...string) (int, string) {
	t.Helper()
	binary := Binary(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = settings
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// A Transcript keeps what a process writes, while it writes.
type Transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (t *Transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

// String returns what was written so far.
func (t *Transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
