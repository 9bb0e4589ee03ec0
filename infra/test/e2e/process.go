// Package e2e tests the system from outside. It starts the binaries as processes with settings
// from the environment, calls them over HTTP, and stops and kills them by signals.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "ticketing.com/auth/infra/catalog" // a changed function invalidates the test cache
	"ticketing.com/auth/shared/telemetry"
	"ticketing.com/auth/shared/testing/gobuild"
)

// Commands returns the folders of all commands, relative to the root of the repository, except
// the examples. A command is a folder with Go files of package main. A command outside the
// workspace has a go.mod of its own.
func Commands() (workspace, outside []string, err error) {
	root, err := gobuild.Repository()
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	visit := func(path string, d fs.DirEntry, err error) error {
		folder := filepath.Dir(path)
		if err == nil && d.IsDir() && path == filepath.Join(root, "infra", "examples") {
			return fs.SkipDir
		}
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

// built has the commands of the workspace that were built for the tests of this process.
var built struct {
	sync.Mutex
	folder string // empty before the first build
	paths  map[string]string
}

// Build builds commands of the workspace that the tests of this process have not built yet. One call
// for several commands takes less time than a call for each. The binaries are static, as in a
// deployment.
func Build(t testing.TB, names ...string) {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.folder == "" {
		commands, _, err := Commands()
		if err != nil {
			t.Fatal(err)
		}
		built.paths = map[string]string{}
		for _, folder := range commands {
			built.paths[filepath.Base(folder)] = "ticketing.com/auth/" + folder
		}
		if built.folder, err = os.MkdirTemp("", "ticketing-e2e-"); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", built.folder + string(filepath.Separator)}
	missing := len(args)
	for _, name := range names {
		if built.paths[name] == "" {
			t.Fatalf("the workspace has no command %s", name)
		}
		if _, err := os.Stat(filepath.Join(built.folder, name)); err != nil {
			args = append(args, built.paths[name])
		}
	}
	if len(args) == missing {
		return
	}
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Main runs the tests of a package and removes the binaries that were built for them.
func Main(m *testing.M) {
	code := m.Run()
	if built.folder != "" {
		os.RemoveAll(built.folder)
	}
	os.Exit(code)
}

// Binary returns the path of a command of the workspace, and builds it if necessary.
func Binary(t testing.TB, name string) string {
	t.Helper()
	Build(t, name)
	return filepath.Join(built.folder, name)
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

// Start starts a function with only the given settings and waits until it listens.
func Start(t testing.TB, name string, settings ...string) *Process {
	t.Helper()
	p := Launch(t, name, append(settings, "PORT=0")...)
	select {
	case n := <-p.port:
		p.URL = "http://127.0.0.1:" + n
	case <-p.done:
		t.Fatalf("%s exited before it listened: %s", name, p.stderr)
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not listen after 30 s: %s", name, p.stderr)
	}
	return p
}

// Launch starts a function as Start does, without waiting.
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
	t.Cleanup(func() {
		p.Signal(os.Kill)
		checkLog(t, name, p.Logs())
	})
	return p
}

// checkLog compares each log line with the schema in infra/docs/telemetry.md. A process that cannot
// start prints a message before its first log line.
func checkLog(t testing.TB, name, log string) {
	started := false
	for line := range strings.Lines(log) {
		started = started || strings.HasPrefix(line, "{")
		if !started {
			continue
		}
		if err := CheckLogLine(line); err != nil {
			t.Errorf("%s: %v: %s", name, err, line)
		}
	}
}

// documented returns the attributes in the tables of infra/docs/telemetry.md, and for level and
// outcome their values.
var documented = sync.OnceValues(func() (map[string]bool, error) {
	page, err := os.ReadFile("../../../infra/docs/telemetry.md") // from the folder of each test that starts processes
	if err != nil {
		return nil, err
	}
	_, section, _ := strings.Cut(string(page), "## Log schema")
	all := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(section, -1) {
		for _, attribute := range quoted.FindAllStringSubmatch(row[1], -1) {
			all[attribute[1]] = true
		}
	}
	for _, name := range []string{"level", "outcome"} {
		_, values, found := strings.Cut(section, "| `"+name+"` | ")
		values, _, _ = strings.Cut(values, "\n")
		if !found {
			return nil, fmt.Errorf("infra/docs/telemetry.md has no row for %s", name)
		}
		for _, value := range quoted.FindAllStringSubmatch(values, -1) {
			all[name+"="+value[1]] = true
		}
	}
	return all, nil
})

// CheckLogLine returns an error if a log line does not fit the schema in infra/docs/telemetry.md.
func CheckLogLine(line string) error {
	attributes, err := documented()
	if err != nil {
		return err
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		return err
	}
	required := []string{"time", "level", "msg", "function", "outcome"}
	if got["msg"] == "request" {
		required = append(required, "method", "path", "status", "ms", "trace", "span")
	}
	if got["security"] != nil {
		required = append(required, "network")
	}
	for _, name := range required {
		if got[name] == nil {
			return fmt.Errorf("the log line has no %s", name)
		}
	}
	for name := range got {
		if !attributes[name] {
			return fmt.Errorf("the attribute %s is not in infra/docs/telemetry.md", name)
		}
	}
	for _, name := range []string{"level", "outcome"} {
		if pair := fmt.Sprint(name, "=", got[name]); !attributes[pair] {
			return fmt.Errorf("%s is not in infra/docs/telemetry.md", pair)
		}
	}
	if event := got["security"]; event != nil && !slices.Contains(telemetry.SecurityEvents(), telemetry.SecurityEvent(fmt.Sprint(event))) {
		return fmt.Errorf("%v is no security event", event)
	}
	return nil
}

// Send sends a signal.
func (p *Process) Send(s os.Signal) { p.cmd.Process.Signal(s) }

// Done returns a channel that is closed when the process has exited.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal, waits for the process to exit and returns the exit code.
func (p *Process) Signal(s os.Signal) int {
	p.Send(s)
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Logs returns the standard error of the process so far.
func (p *Process) Logs() string { return p.stderr.String() }

// PeakMemory returns the peak resident memory in bytes.
func (p *Process) PeakMemory(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	m := peakResident.FindSubmatch(status)
	if err != nil || m == nil {
		t.Fatalf("read the peak memory of a process (Linux only): %v", err)
	}
	kib, _ := strconv.Atoi(string(m[1]))
	return kib << 10
}

// CPU returns the CPU time of the process, in steps of 10 ms.
func (p *Process) CPU(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	_, after, _ := strings.Cut(string(stat), ") ") // the name of the process precedes it
	fields := strings.Fields(after)
	if err != nil || len(fields) < 13 {
		t.Fatalf("read the CPU time of a process (Linux only): %v", err)
	}
	user, _ := strconv.Atoi(fields[11]) // utime and stime of proc_pid_stat(5), in 1/100 s
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

var quoted = regexp.MustCompile("`([a-zA-Z]+)`")

var peakResident = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// Call sends a request and returns status, headers and body. A response that takes more than
// five seconds is an error, because clients may rely on that limit.
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

// MustFail runs a command that must exit with an error. It returns the exit code and the
// standard error.
func MustFail(t testing.TB, settings []string, name string, args ...string) (int, string) {
	t.Helper()
	code, stderr := Run(t, settings, name, args...)
	if code == 0 {
		t.Fatalf("%s %v: got exit code 0, want an error: %s", name, args, stderr)
	}
	return code, stderr
}

// Run runs a command and returns its exit code and standard error. It kills a command after
// thirty seconds; the exit code is then -1.
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
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// A Transcript stores the output of a process. Tests may read it while the process writes.
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

// String returns the output so far.
func (t *Transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}
