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
		t.Fatal(status, body, err)
	}
	g := grant(t, body)
	interrupt()
	url, interrupt = e2e.StartLocal(t, data)
	defer interrupt()
	status, _, body, err = e2e.Call(t.Context(), http.MethodGet, url+"/api/users/currentuser", g.Token, "")
	if err != nil || status != http.StatusOK || !strings.Contains(body, "ann@example.com") {
		t.Fatal(status, body, err)
	}
}

func TestLocalRunner_StartFailure(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
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
		{"a taken port", []string{"-addr", taken.Addr().String(), "-data", t.TempDir()}, " is in use: choose another address with -addr"},
		{"a file for a folder", []string{"-addr", "127.0.0.1:0", "-data", file}, "not a directory"},
		{"a second start on one folder", []string{"-addr", "127.0.0.1:0", "-data", inUse}, "another server is using it"},
	} {
		code, stderr := e2e.MustFail(t, e2e.Environment(), "local", c.args...)
		if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d: %s", c.name, code, stderr)
		}
	}
}

func TestLocalRunner_FolderPermissionDenied(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for another user, too
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "local")
	if err := copyFile(e2e.Binary(t, "local"), binary); err != nil {
		t.Fatal(err)
	}
	somebody := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Env, cmd.Dir = e2e.Environment(), dir
		if os.Getuid() == 0 { // who may do everything, so another does it
			const nobody = 65534
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		return cmd
	}
	if out, err := somebody("-h").CombinedOutput(); err != nil {
		t.Skipf("no other user can be had to run it: %v %s", err, out)
	}
	for i, c := range []struct {
		name string
		mode os.FileMode
		kept bool // the folder was used before
	}{
		{"a new folder that may not be written", 0o555, false},
		{"a folder that may not be read", 0o000, true},
		{"a folder that may be listed and no more", 0o444, true},
	} {
		data := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(data, 0o755); err != nil {
			t.Fatal(err)
		}
		if c.kept {
			if _, err := keyring.Ensure(filepath.Join(data, "keys"), time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(data, c.mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(data, 0o755) })
		var stderr bytes.Buffer
		cmd := somebody("-addr", "127.0.0.1:0", "-data", data)
		cmd.Stderr = &stderr
		err := cmd.Run()
		said := stderr.String()
		if cmd.ProcessState.ExitCode() != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, data) || !strings.Contains(said, "permission denied") {
			t.Errorf("%s: %v: %s", c.name, err, said)
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
		{"a wrong database", []string{"MONGODB_URI=postgres://admin:hunter2@127.0.0.1/users"},
			[]string{"MONGODB_URI is not a connection string (mongodb://host[:port]/database)"}},
		{"a wrong number", []string{"HASH_TIME=17"}, []string{"HASH_TIME must be a whole number from 1 to 16"}},
		{"keys in a file that is not there", []string{"SIGNING_KEYS_FILE=/nowhere", "VERIFYING_KEYS_FILE=/nowhere"},
			[]string{"SIGNING_KEYS_FILE names a file that cannot be read", "VERIFYING_KEYS_FILE names a file that cannot be read"}},
		{"all at once", []string{"MONGODB_URI=mongodb://", "HASH_TIME=two", "LOG_LEVEL=loud", "EVENTS=maybe", "K_SINK=nowhere"},
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
			t.Errorf("%s: exit code %d: %s", c.name, code, stderr)
		}
	}
}

// Without a setting the runner takes events from any client on its loopback address and
// says so; with EVENTS=off it takes none.
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
			var said strings.Builder
			lines := bufio.NewScanner(read)
			for lines.Scan() && !strings.Contains(lines.Text(), "Ctrl-C") {
				fmt.Fprintln(&said, lines.Text())
			}
			url := regexp.MustCompile(`http://\S+`).FindString(said.String())
			if strings.Contains(said.String(), notice) != c.noticed || strings.Contains(said.String(), "signout.requested") != c.noticed {
				t.Errorf("it says %s", said.String())
			}
			status, _, body, err := deliver(t.Context(), url+"/", "1", "com.ticketing.user.signout.requested.v1", `{"userId":"nobody"}`)
			if err != nil || status != c.status {
				t.Errorf("an event: %d %s %v", status, body, err)
			}
			syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLocalRunner_LogFormat(t *testing.T) {
	talk := func(t *testing.T, stderr *os.File) {
		t.Helper()
		cmd := e2e.LocalCommand(t, filepath.Join(t.TempDir(), "data"))
		cmd.Stderr = stderr
		url, interrupt := e2e.StartCommand(t, cmd)
		stderr.Close() // the runner has its own
		status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signup", "", credentials("ann@example.com"))
		if err != nil || status != http.StatusCreated {
			t.Error(status, body, err)
		}
		interrupt()
	}
	t.Run("in a pipe", func(t *testing.T) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		said := readAll(read)
		talk(t, write)
		requests := 0
		for line := range strings.Lines(<-said) {
			var entry struct {
				Time             time.Time
				Msg, Level, Path string
				Status           int
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time.IsZero() || entry.Level == "" {
				t.Errorf("no JSON line: %s", line)
			}
			if entry.Msg == "request" && entry.Level == "INFO" && entry.Path == "/api/users/signup" && entry.Status == http.StatusCreated {
				requests++
			}
		}
		if requests != 1 {
			t.Errorf("%d lines of one request", requests)
		}
	})
	t.Run("on a terminal", func(t *testing.T) {
		read, write := terminal(t)
		said := readAll(read)
		talk(t, write)
		requests := 0
		for line := range strings.Lines(<-said) {
			if json.Valid([]byte(line)) {
				t.Errorf("JSON: %s", line)
			}
			if strings.Contains(line, "path=/api/users/signup status=201 ") {
				requests++
			}
		}
		if requests != 1 {
			t.Errorf("%d lines of one request", requests)
		}
	})
}

// readAll returns all that comes until nobody is left who could write.
func readAll(from *os.File) <-chan string {
	all := make(chan string, 1)
	go func() {
		defer from.Close()
		read, _ := io.ReadAll(from) // of a terminal the end is an error (EIO)
		all <- string(read)
	}()
	return all
}

// terminal returns the two ends of a pseudo-terminal: what is written to the one
// that programs have can be read from the other. See pts(4); the numbers are of
// <asm-generic/ioctls.h>.
func terminal(t *testing.T) (screen, programs *os.File) {
	t.Helper()
	const (
		noControl = syscall.O_NOCTTY // it must not become the terminal of the tests
		unlock    = 0x40045431       // TIOCSPTLCK
		number    = 0x80045430       // TIOCGPTN
	)
	if runtime.GOOS != "linux" {
		t.Skip("how to open a terminal is known for Linux only")
	}
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|noControl, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	ask := func(what uintptr) (n int32) {
		if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), what, uintptr(unsafe.Pointer(&n))); failed != 0 {
			t.Skipf("there are no terminals here: %v", failed)
		}
		return n
	}
	ask(unlock) // with 0
	programs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", ask(number)), os.O_RDWR|noControl, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { programs.Close() })
	return screen, programs
}

// The runner may be killed too: its database must not stay behind.
func TestLocalRunner_SIGKILLStopsDatabase(t *testing.T) {
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
			t.Fatal("the database is still there")
		case <-time.After(10 * time.Millisecond):
		}
	}
	_, interrupt := e2e.StartLocal(t, data)
	interrupt()
}
