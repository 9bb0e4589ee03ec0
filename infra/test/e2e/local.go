package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// LocalCommand returns a command that runs the local runner on a folder. The command gets a
// process group of its own, as a foreground job of a terminal does.
func LocalCommand(t testing.TB, data string, settings ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(Binary(t, "local"), "-addr", "127.0.0.1:0", "-data", data)
	cmd.Env = Environment(settings...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Environment returns the environment of the tests with settings, and without MONGODB_URI. The
// local runner then starts its own database.
func Environment(settings ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "MONGODB_URI=") })
	return append(env, settings...)
}

// StartLocal starts the local runner on a folder and returns its URL. The function interrupt
// stops it as Ctrl-C does, by a signal to every process of the group.
func StartLocal(t testing.TB, data string, settings ...string) (url string, interrupt func()) {
	t.Helper()
	return StartCommand(t, LocalCommand(t, data, settings...))
}

// StartCommand starts a local runner and waits until it prints its URL.
func StartCommand(t testing.TB, cmd *exec.Cmd) (url string, interrupt func()) {
	t.Helper()
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
		t.Fatalf("got the first line %q (%v), want the URL behind \" is at \"", line, err)
	}
	return url, func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Errorf("stop the local runner: %v", err)
		}
		if err := syscall.Kill(-cmd.Process.Pid, 0); err != syscall.ESRCH {
			t.Errorf("a process of the local runner is still running: %v", err)
		}
	}
}
