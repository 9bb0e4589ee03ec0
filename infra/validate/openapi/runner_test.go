package validate

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// root is the root of the repository.
var root = filepath.Join("..", "..", "..")

// runner builds the local runner from the workspace, once for all tests.
var runner = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ticketing-openapi-")
	if err != nil {
		return "", err
	}
	runnerDir = dir
	binary := filepath.Join(dir, "local")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./infra/local")
	build.Dir, build.Env = root, environment()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

var runnerDir string // the folder of the binary, if it is built

func TestMain(m *testing.M) {
	code := m.Run()
	if runnerDir != "" {
		os.RemoveAll(runnerDir)
	}
	os.Exit(code)
}

// environment returns the environment of the tests, with the workspace and without a database
// URI, so that the runner uses its own database.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "GOWORK=") || strings.HasPrefix(s, "MONGODB_URI=") || strings.HasPrefix(s, "SMTP_URL")
	})
}

// start starts the local runner in a new folder with a setting and those of the examples. It stops the runner at the end of
// the test as Ctrl-C does.
func start(t *testing.T, setting string) (url string) {
	t.Helper()
	binary, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-addr", "127.0.0.1:0", "-data", t.TempDir())
	cmd.Dir, cmd.Env = root, append(environment(), setting, "TOKEN_ISSUER=https://api.ticketing.example", "INTROSPECTION_CLIENTS=tickets:not-a-secret-0000000000", "TRUSTED_PROXIES=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		cmd.Wait()
	})
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	_, url, found := strings.Cut(strings.TrimSpace(line), " is at ")
	if err != nil || !found {
		t.Fatalf("got the output %q and the error %v, want the address", line, err)
	}
	return url
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("got %d and the error %v, want 200", r.StatusCode, err)
	}
	return string(body)
}
