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

// A save is served, what is stored stays, and nobody who calls meanwhile is refused.
// What does not compile, or does not start, is shown and changes nothing; what dies is
// shown, and started again.
func TestASavedChangeIsServedAndWhatIsStoredStays(t *testing.T) {
	root := e2e.Repository(t)
	cmd := exec.Command(e2e.Binary(t, "local"), "-watch", "-addr", "127.0.0.1:0", "-data", filepath.Join(t.TempDir(), "data"))
	cmd.Dir = root
	temporary := t.TempDir()
	cmd.Env = e2e.Environment("LOG_LEVEL=error", "TMPDIR="+temporary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr := &e2e.Transcript{}
	cmd.Stderr = stderr
	url, interrupt := e2e.Begin(t, cmd)
	status, _, body, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/signup", "", credentials("ann@example.com"))
	if err != nil || status != http.StatusCreated {
		t.Fatal(status, body, err)
	}
	g := grant(t, body)

	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 2 {
		callers.Go(func() {
			for ctx.Err() == nil {
				status, _, body, err := e2e.Call(ctx, http.MethodGet, url+"/api/users/currentuser", g.Token, "")
				if ctx.Err() == nil && (err != nil || status != http.StatusOK || !strings.Contains(body, "ann@example.com")) {
					t.Errorf("while it is restarted: %d %s %v", status, body, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	defer callers.Wait()
	defer cancel()

	nothing := func() string {
		_, _, body, err := e2e.Call(t.Context(), http.MethodGet, url+"/nothing", "", "")
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	source := filepath.Join(root, "shared/httpserver/http.go")
	written, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	save := func(old, new string) {
		t.Helper()
		changed := strings.Replace(string(written), old, new, 1)
		if changed == string(written) {
			t.Fatalf("%s is not in %s", old, source)
		}
		if err := os.WriteFile(source, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it does not come to %s:\n%s", what, stderr)
			}
		}
	}
	save("There is nothing here.", "Nothing at all.")
	until("serve the change", func() bool { return strings.Contains(nothing(), "Nothing at all.") })
	binaries := func() []string {
		found, _ := filepath.Glob(filepath.Join(temporary, "ticketing-local-*", "local-*"))
		return found
	}
	replaced := func() bool { return len(binaries()) == 1 }
	until("remove what it served before", replaced)
	save(`"There is nothing here."`, `"There is nothing`)
	until("show what does not compile", func() bool {
		return strings.Contains(stderr.String(), "The build failed. The previous build continues to run.")
	})
	if !strings.Contains(stderr.String(), "shared/httpserver/http.go:") || !strings.Contains(nothing(), "Nothing at all.") {
		t.Errorf("%s\n%s", nothing(), stderr)
	}
	save("func (d *door) ServeHTTP", "func init() { panic(\"not today\") }\n\nfunc (d *door) ServeHTTP")
	until("show what does not start", func() bool {
		return strings.Contains(stderr.String(), "The new build does not start: exit status 2. The previous build continues to run.")
	})
	save("There is nothing here.", "Nothing here again.")
	until("serve what was mended", func() bool { return strings.Contains(nothing(), "Nothing here again.") })
	cancel()
	callers.Wait()

	until("remove what did not start, and what it served before", replaced)
	for _, when := range []string{"at once", "in 1s, or after a change"} {
		kill(t, binaries())
		until("start again "+when, func() bool {
			return strings.Contains(stderr.String(), "The functions stopped: signal: killed. Restarting "+when+".\n")
		})
		until("know Ann again", func() bool {
			_, _, body, err := e2e.Call(t.Context(), http.MethodGet, url+"/api/users/currentuser", g.Token, "")
			return err == nil && strings.Contains(body, "ann@example.com")
		})
	}
	interrupt()
	if left, _ := filepath.Glob(filepath.Join(temporary, "ticketing-local-*")); len(left) > 0 {
		t.Errorf("it leaves %v", left)
	}
}

// kill kills the process that runs one of the programs.
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
	t.Fatalf("no process runs any of %v", programs)
}
