package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/test/e2e"
)

func TestLocalRunner_RestartPreservesData(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	url, interrupt := e2e.StartLocal(t, data)
	status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signup", "", credentials("ann@example.com"))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("signup: got %d %s %v, want 201", status, body, err)
	}
	g := parseTokens(t, body)
	interrupt()
	url, interrupt = e2e.StartLocal(t, data)
	defer interrupt()
	status, _, body, err = e2e.Call(t.Context(), http.MethodGet, url+"/api/users/currentuser", g.Token, "")
	if err != nil || status != http.StatusOK || !strings.Contains(body, "ann@example.com") {
		t.Fatalf("currentuser after a restart: got %d %s %v, want 200 with the email", status, body, err)
	}
}

// The local runner reports a failed start in one line.
func TestLocalRunner_StartFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := filepath.Join(t.TempDir(), "data")
	_, interrupt := e2e.StartLocal(t, inUse)
	defer interrupt()
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"a port that is in use", []string{"-addr", listener.Addr().String(), "-data", t.TempDir()}, " is in use: choose another address with -addr"},
		{"a file in place of the folder", []string{"-addr", "127.0.0.1:0", "-data", file}, "not a directory"},
		{"a second start on one folder", []string{"-addr", "127.0.0.1:0", "-data", inUse}, "another server is using it"},
	} {
		code, stderr := e2e.MustFail(t, e2e.Environment(), "local", c.args...)
		if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: got exit code %d, stderr %q; want 1 and one line with %q", c.name, code, stderr, c.want)
		}
	}
}

func TestLocalRunner_FolderPermissionDenied(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // another user runs the binary
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "local")
	if err := copyFile(e2e.Binary(t, "local"), binary); err != nil {
		t.Fatal(err)
	}
	unprivileged := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Env, cmd.Dir = e2e.Environment(), dir
		if os.Getuid() == 0 { // permissions do not restrict root
			const other = 65534 // the user and group "nobody"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
		}
		return cmd
	}
	if out, err := unprivileged("-h").CombinedOutput(); err != nil {
		t.Skipf("cannot run the local runner as an unprivileged user: %v %s", err, out)
	}
	for i, c := range []struct {
		name string
		mode os.FileMode
		used bool // an earlier run has created the keys
	}{
		{"a new folder without write permission", 0o555, false},
		{"a folder without any permission", 0o000, true},
		{"a folder with only the permission to list it", 0o444, true},
	} {
		data := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(data, 0o755); err != nil {
			t.Fatal(err)
		}
		if c.used {
			if _, err := keyring.Ensure(filepath.Join(data, "keys"), time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(data, c.mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(data, 0o755) })
		var stderr bytes.Buffer
		cmd := unprivileged("-addr", "127.0.0.1:0", "-data", data)
		cmd.Stderr = &stderr
		err := cmd.Run()
		got := stderr.String()
		if cmd.ProcessState.ExitCode() != 1 || strings.Count(got, "\n") != 1 || !strings.Contains(got, data) || !strings.Contains(got, "permission denied") {
			t.Errorf("%s: got %v, stderr %q; want exit status 1 and one line with the folder and %q", c.name, err, got, "permission denied")
		}
	}
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

func TestLocalRunner_InvalidSettings(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings []string
		want     []string
	}{
		{"a connection string of another database", []string{"MONGODB_URI=postgres://admin:hunter2@127.0.0.1/users"},
			[]string{"MONGODB_URI is not a connection string (mongodb://host[:port]/database)"}},
		{"a number out of range", []string{"HASH_TIME=17"}, []string{"HASH_TIME must be a whole number from 1 to 16"}},
		{"keys in a file that does not exist", []string{"SIGNING_KEYS_FILE=/nowhere", "VERIFYING_KEYS_FILE=/nowhere"},
			[]string{"SIGNING_KEYS_FILE names a file that cannot be read", "VERIFYING_KEYS_FILE names a file that cannot be read"}},
		{"several settings", []string{"MONGODB_URI=mongodb://", "HASH_TIME=two", "LOG_LEVEL=loud", "EVENTS=maybe", "K_SINK=nowhere"},
			[]string{
				"MONGODB_URI is not a connection string (mongodb://host[:port]/database)",
				"HASH_TIME must be a whole number from 1 to 16",
				"LOG_LEVEL must be debug, info, warn or error",
				"EVENTS must be on, insecure or off",
				"K_SINK must be an absolute http or https URL",
			}},
	} {
		code, stderr := e2e.MustFail(t, e2e.Environment(c.settings...), "local", "-addr", "127.0.0.1:0", "-data", t.TempDir())
		first, rest, _ := strings.Cut(stderr, "\n")
		got := strings.Split(strings.TrimSuffix(rest, "\n"), "\n")
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "  ")
		}
		slices.Sort(got)
		if code != 2 || first != "local cannot start:" || !slices.Equal(got, slices.Sorted(slices.Values(c.want))) {
			t.Errorf("%s: got exit code %d, stderr %q; want 2 and the problems %q", c.name, code, stderr, c.want)
		}
	}
}

// By default the runner accepts events from any client on its loopback address, and prints a
// notice. With EVENTS=off it accepts none.
func TestLocalRunner_EventsAreInsecureUnlessOff(t *testing.T) {
	const notice = "(EVENTS=insecure)"
	for _, c := range []struct {
		name     string
		settings []string
		noticed  bool
		status   int
	}{
		{"not set", []string{"EVENTS="}, true, http.StatusOK},
		{"insecure", []string{"EVENTS=insecure"}, true, http.StatusOK},
		{"off", []string{"EVENTS=off"}, false, http.StatusNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := e2e.LocalCommand(t, filepath.Join(t.TempDir(), "data"), c.settings...)
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = write
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
			write.Close()
			var printed strings.Builder
			lines := bufio.NewScanner(read)
			for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C") {
				fmt.Fprintln(&printed, lines.Text())
			}
			url := regexp.MustCompile(`http://\S+`).FindString(printed.String())
			if strings.Contains(printed.String(), notice) != c.noticed || strings.Contains(printed.String(), "signout.requested") != c.noticed {
				t.Errorf("got the output %q, want a notice about events: %v", printed.String(), c.noticed)
			}
			status, _, body, err := deliver(t.Context(), url+"/", "1", "com.ticketing.user.signout.requested.v1", `{"userId":"unknown"}`)
			if err != nil || status != c.status {
				t.Errorf("an event: got %d %s %v, want %d", status, body, err, c.status)
			}
			syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The local runner logs JSON, and readable text if standard error is a terminal.
func TestLocalRunner_LogFormat(t *testing.T) {
	signUp := func(t *testing.T, stderr *os.File) {
		t.Helper()
		cmd := e2e.LocalCommand(t, filepath.Join(t.TempDir(), "data"))
		cmd.Stderr = stderr
		url, interrupt := e2e.StartCommand(t, cmd)
		stderr.Close() // the runner has its own copy
		status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signup", "", credentials("ann@example.com"))
		if err != nil || status != http.StatusCreated {
			t.Errorf("signup: got %d %s %v, want 201", status, body, err)
		}
		interrupt()
	}
	t.Run("a pipe", func(t *testing.T) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		output := readAll(read)
		signUp(t, write)
		requests := 0
		for line := range strings.Lines(<-output) {
			var entry struct {
				Time             time.Time
				Msg, Level, Path string
				Status           int
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time.IsZero() || entry.Level == "" {
				t.Errorf("got the line %q, want JSON with time and level", line)
			}
			if entry.Msg == "request" && entry.Level == "INFO" && entry.Path == "/api/users/signup" && entry.Status == http.StatusCreated {
				requests++
			}
		}
		if requests != 1 {
			t.Errorf("got %d log lines for the request, want 1", requests)
		}
	})
	t.Run("a terminal", func(t *testing.T) {
		read, write := terminal(t)
		output := readAll(read)
		signUp(t, write)
		requests := 0
		for line := range strings.Lines(<-output) {
			if json.Valid([]byte(line)) {
				t.Errorf("got the JSON line %s, want text", line)
			}
			if strings.Contains(line, "path=/api/users/signup status=201 ") {
				requests++
			}
		}
		if requests != 1 {
			t.Errorf("got %d log lines for the request, want 1", requests)
		}
	})
}

// readAll reads until all writers have closed the file.
func readAll(from *os.File) <-chan string {
	all := make(chan string, 1)
	go func() {
		defer from.Close()
		read, _ := io.ReadAll(from) // a terminal ends with the error EIO
		all <- string(read)
	}()
	return all
}

// terminal returns the two ends of a pseudo-terminal. The test reads from screen the output
// that a program writes to programs. See pts(4). The numbers are those of
// <asm-generic/ioctls.h>.
func terminal(t *testing.T) (screen, programs *os.File) {
	t.Helper()
	const (
		noControl = syscall.O_NOCTTY // must not become the terminal of the tests
		unlock    = 0x40045431       // TIOCSPTLCK
		number    = 0x80045430       // TIOCGPTN
	)
	if runtime.GOOS != "linux" {
		t.Skip("opens a terminal on Linux only")
	}
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|noControl, 0)
	if err != nil {
		t.Skipf("cannot open a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	ioctl := func(request uintptr) (n int32) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), request, uintptr(unsafe.Pointer(&n))); errno != 0 {
			t.Skipf("cannot open a pseudo-terminal: %v", errno)
		}
		return n
	}
	ioctl(unlock) // the argument 0 unlocks
	programs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", ioctl(number)), os.O_RDWR|noControl, 0)
	if err != nil {
		t.Skipf("cannot open a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { programs.Close() })
	return screen, programs
}

// SIGKILL of the runner also ends its database, so a later start finds the folder unused.
func TestLocalRunner_SIGKILLStopsDatabase(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	cmd := e2e.LocalCommand(t, data)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for syscall.Kill(-cmd.Process.Pid, 0) != syscall.ESRCH {
		select {
		case <-ctx.Done():
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Fatal("the database still runs 10 s after its runner was killed")
		case <-time.After(10 * time.Millisecond):
		}
	}
	_, interrupt := e2e.StartLocal(t, data)
	interrupt()
}
