package e2e_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/e2e"
)

// local starts the local runner on a folder and returns its URL and what stops
// it as Ctrl-C does: a signal to every process of the terminal at once.
func local(t *testing.T, data string) (url string, interrupt func()) {
	t.Helper()
	cmd := exec.Command(e2e.Binary(t, "local"), "-addr", "127.0.0.1:0", "-data", data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	_, url, found := strings.Cut(strings.TrimSpace(line), " is at ")
	if err != nil || !found {
		t.Fatalf("%q %v", line, err)
	}
	return url, func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the end: %v", err)
		}
		if err := syscall.Kill(-cmd.Process.Pid, 0); err != syscall.ESRCH {
			t.Errorf("a process of the group is left: %v", err)
		}
	}
}

func TestTheLocalRunnerKeepsItsUsersAndKeysOverARestart(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	url, interrupt := local(t, data)
	status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signup", "", credentials("ann@example.com"))
	if err != nil || status != http.StatusCreated {
		t.Fatal(status, body, err)
	}
	g := grant(t, body)
	interrupt()
	url, interrupt = local(t, data)
	defer interrupt()
	status, _, body, err = e2e.Call(t.Context(), http.MethodGet, url+"/api/users/currentuser", g.Token, "")
	if err != nil || status != http.StatusOK || !strings.Contains(body, "ann@example.com") {
		t.Fatal(status, body, err)
	}
}

func TestALocalRunnerThatCannotStartSaysWhyInOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	busy := filepath.Join(t.TempDir(), "busy")
	_, interrupt := local(t, busy)
	defer interrupt()
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"a taken port", []string{"-addr", taken.Addr().String(), "-data", t.TempDir()}, "address already in use"},
		{"a file for a folder", []string{"-addr", "127.0.0.1:0", "-data", file}, "not a directory"},
		{"a second start on one folder", []string{"-addr", "127.0.0.1:0", "-data", busy}, "busy"},
	} {
		code, stderr := e2e.Refused(t, os.Environ(), "local", c.args...)
		if code == 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d: %s", c.name, code, stderr)
		}
	}
}

// The runner may be killed too: its database must not stay behind.
func TestAKilledRunnerLeavesNoDatabaseBehind(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	cmd := exec.Command(e2e.Binary(t, "local"), "-addr", "127.0.0.1:0", "-data", data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
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
	_, interrupt := local(t, data)
	interrupt()
}
