package e2e_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/test/e2e"
)

// With -watch the runner serves a saved change, preserves stored data and rejects no request
// meanwhile. It reports a change that does not compile or start, and the old version continues
// to serve. It reports a process that exits, and restarts it.
func TestLocalRunner_WatchRestartsAfterChange(t *testing.T) {
	t.Parallel()
	root := e2e.CopyRepository(t)
	cmd := exec.Command(e2e.Binary(t, "local"), "-watch", "-addr", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "data"))
	cmd.Dir = root
	temporary := t.TempDir()
	cmd.Env = e2e.Environment("LOG_LEVEL=error", "TMPDIR="+temporary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr := &e2e.Transcript{}
	cmd.Stderr = stderr
	url, interrupt := e2e.StartCommand(t, cmd)
	status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signup", "", credentials("ann@example.com"))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("signup: got %d %s %v, want 201", status, body, err)
	}
	g := parseTokens(t, body)

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for ctx.Err() == nil {
				status, _, body, err := e2e.Call(ctx, http.MethodGet, url+"/api/users/currentuser", g.Token, "")
				if ctx.Err() == nil && (err != nil || status != http.StatusOK || !strings.Contains(body, "ann@example.com")) {
					t.Errorf("currentuser during a restart: got %d %s %v, want 200 with the email", status, body, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	defer clients.Wait()
	defer cancel()

	notFound := func() string {
		_, _, body, err := e2e.Call(t.Context(), http.MethodGet, url+"/nothing", "", "")
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	source := filepath.Join(root, "shared/httpserver/http.go")
	original, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	save := func(old, new string) {
		t.Helper()
		changed := strings.Replace(string(original), old, new, 1)
		if changed == string(original) {
			t.Fatalf("%s does not contain %q", source, old)
		}
		if err := os.WriteFile(source, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	waitUntil := func(condition string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after two minutes the runner does not %s:\n%s", condition, stderr)
			}
		}
	}
	save("There is nothing here.", "Nothing at all.")
	waitUntil("serve the change", func() bool { return strings.Contains(notFound(), "Nothing at all.") })
	binaries := func() []string {
		found, _ := filepath.Glob(filepath.Join(temporary, "ticketing-local-*", "local-*"))
		return found
	}
	oneBinary := func() bool { return len(binaries()) == 1 }
	waitUntil("remove the old binary", oneBinary)
	save(`"There is nothing here."`, `"There is nothing`)
	waitUntil("report that the change does not compile", func() bool {
		return strings.Contains(stderr.String(), "The build failed. The previous build continues to run.")
	})
	if !strings.Contains(stderr.String(), "shared/httpserver/http.go:") || !strings.Contains(notFound(), "Nothing at all.") {
		t.Errorf("got the response %s and this output, want the old response and the file that does not compile:\n%s", notFound(), stderr)
	}
	save("\n)\n", "\n)\n\nfunc init() { panic(\"test\") }\n") // behind the imports
	waitUntil("report that the change does not start", func() bool {
		return strings.Contains(stderr.String(), "The new build does not start: exit status 2. The previous build continues to run.")
	})
	save("There is nothing here.", "Nothing here again.")
	waitUntil("serve the fixed source", func() bool { return strings.Contains(notFound(), "Nothing here again.") })
	cancel()
	clients.Wait()

	waitUntil("remove the binary that did not start, and the old one", oneBinary)
	for _, when := range []string{"at once", "in 1s, or after a change"} {
		kill(t, binaries())
		waitUntil("restart the functions "+when, func() bool {
			return strings.Contains(stderr.String(), "The functions stopped: signal: killed. Restarting "+when+".\n")
		})
		waitUntil("serve the stored user", func() bool {
			_, _, body, err := e2e.Call(t.Context(), http.MethodGet, url+"/api/users/currentuser", g.Token, "")
			return err == nil && strings.Contains(body, "ann@example.com")
		})
	}
	interrupt()
	if left, _ := filepath.Glob(filepath.Join(temporary, "ticketing-local-*")); len(left) > 0 {
		t.Errorf("the runner left the files %v, want none", left)
	}
}

// kill sends SIGKILL to the process that runs one of the programs.
func kill(t *testing.T, programs []string) {
	t.Helper()
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if program, err := os.Readlink(link); err == nil && slices.Contains(programs, program) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no process runs one of %v", programs)
}
