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

// root is that of the repository.
var root = filepath.Join("..", "..", "..")

// runner builds the local runner as the workspace has it, once for all tests.
var runner = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ticketing-openapi-")
	if err != nil {
		return "", err
	}
	built = dir
	binary := filepath.Join(dir, "local")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "./infra/local")
	build.Dir, build.Env = root, environment()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

var built string // the folder that runner made, if it did

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// environment is that of the tests, in the workspace, and with no database but the
// runner's own.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "GOWORK=") || strings.HasPrefix(s, "MONGODB_URI=")
	})
}

// start starts the local runner on a new folder with a setting, and stops it at the end
// as Ctrl-C does.
func start(t *testing.T, setting string) (url string) {
	t.Helper()
	binary, err := runner()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-addr", "127.0.0.1:0", "-data", t.TempDir())
	cmd.Dir, cmd.Env = root, append(environment(), setting)
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
		t.Fatalf("%q %v", line, err)
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
		t.Fatal(r.StatusCode, err)
	}
	return string(body)
}
