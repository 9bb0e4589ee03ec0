package built

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// These tests build a stand-in, in a repository and a cache of their own.

func standInModule() Module {
	return Module{Name: "stand-in", Title: "the stand-in", Path: "infra/stand-in", Takes: "a moment"}
}

const standIn = `package main

func main() { println("stand-in") }
`

// repository makes a repository with the stand-in and works in a folder of it.
func repository(t *testing.T) (source string) {
	t.Helper()
	cached, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Skip("no go command: ", err)
	}
	t.Setenv("GOCACHE", strings.TrimSpace(string(cached)))
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))

	root := t.TempDir()
	source = filepath.Join(root, "infra", "stand-in")
	write(t, filepath.Join(root, "go.work"), "go 1.26\n")
	write(t, filepath.Join(source, "go.mod"), "module stand.in\n\ngo 1.26\n")
	write(t, filepath.Join(source, "main.go"), standIn)
	inside := filepath.Join(root, "functions", "signup")
	if err := os.MkdirAll(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(inside)
	return source
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustBuild(t *testing.T) (path string, built bool) {
	t.Helper()
	folder, err := standInModule().Programs(t.Context(), func(string) { built = true })
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(folder, "stand.in"), built
}

func TestAnUnchangedTreeNeedsNoGoCommand(t *testing.T) {
	source := repository(t)
	first, built := mustBuild(t)
	if !built {
		t.Error("the first build was not announced")
	}
	if said, err := exec.Command(first).CombinedOutput(); err != nil || string(said) != "stand-in\n" {
		t.Errorf("what was built says %q, %v", said, err)
	}

	t.Setenv("PATH", "")
	if again, built := mustBuild(t); built || again != first {
		t.Errorf("the second start wants %s, the first built %s", again, first)
	}
	write(t, filepath.Join(source, "some_test.go"), "package main\n")
	if _, built := mustBuild(t); built {
		t.Error("a changed test is a reason to build")
	}
}

func TestAChangedTreeIsBuiltAgain(t *testing.T) {
	source := repository(t)
	first, _ := mustBuild(t)
	for name, content := range map[string]string{
		"main.go":     strings.ReplaceAll(standIn, "stand-in", "changed"),
		"go.sum":      "\n",
		"another.go":  "package main\n",
		"deep/er.go":  "package deep\n",
		"deep/go.mod": "module stand.in/deep\n",
	} {
		write(t, filepath.Join(source, name), content)
		next, built := mustBuild(t)
		if !built || next == first {
			t.Errorf("%s changed, and nothing was built", name)
		}
		first = next
	}
}

func TestManyStartsAtOnceBuildOnce(t *testing.T) {
	repository(t)
	var builds atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			path, err := standInModule().Programs(t.Context(), func(sentence string) {
				if strings.HasPrefix(sentence, "Building") {
					builds.Add(1)
				}
			})
			if err != nil || !exists(path) {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	all.Wait()
	if builds.Load() != 1 {
		t.Errorf("%d builds, want 1", builds.Load())
	}
}

func TestWhatIsInTheWayIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(t *testing.T, source string)
		want    string
	}{
		"no go command": {
			func(t *testing.T, _ string) { t.Setenv("PATH", "") },
			"it must be built first, and there is no go command on the PATH",
		},
		"the wrong folder": {
			func(t *testing.T, _ string) { t.Chdir("/") },
			"/ is not inside the repository: no folder above it has go.work",
		},
		"a module that is not there": {
			func(t *testing.T, source string) { os.RemoveAll(source) },
			"is not the repository: it has no infra/stand-in",
		},
		"a source that does not compile": {
			func(t *testing.T, source string) {
				write(t, filepath.Join(source, "main.go"), "package main; func main() { x }")
			},
			"undefined: x",
		},
		"no cache folder": {
			func(t *testing.T, _ string) { t.Setenv("HOME", ""); t.Setenv("XDG_CACHE_HOME", "") },
			"no cache folder to build it into",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.arrange(t, repository(t))
			_, err := standInModule().Programs(t.Context(), func(string) {})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestACopyIsCompletedAndTheSourceLeftAlone(t *testing.T) {
	source := repository(t)
	m := standInModule()
	m.Complete = func(_ context.Context, folder string) error {
		return os.WriteFile(filepath.Join(folder, "main.go"), []byte(strings.ReplaceAll(standIn, "stand-in", "completed")), 0o600)
	}
	folder, err := m.Programs(t.Context(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command(filepath.Join(folder, "stand.in")).CombinedOutput(); err != nil || string(said) != "completed\n" {
		t.Errorf("what was built says %q, %v", said, err)
	}
	if left, err := os.ReadFile(filepath.Join(source, "main.go")); err != nil || string(left) != standIn {
		t.Errorf("the source is now %q, %v", left, err)
	}
}

func TestWaitingForAnotherBuildEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = lock(ctx, path, cancel)
	if err == nil {
		t.Fatal("two hold the lock")
	}
	unlock()
	again, err := lock(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestSweepRemovesWhatIsNotWanted(t *testing.T) {
	cache, now := t.TempDir(), time.Now()
	for name, age := range map[string]time.Duration{
		"mongod-wanted": time.Hour, "mongod-former": 2 * keep, "build-killed/mongod": 0, "lock-mongod": 2 * keep,
	} {
		write(t, filepath.Join(cache, name), "")
		os.Chtimes(filepath.Join(cache, name), now, now.Add(-age))
	}
	long := now.Add(-2 * keep)
	os.Chtimes(filepath.Join(cache, "build-killed"), long, long)

	sweep(cache, now.Add(-keep))
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "lock-mongod" || filepath.Base(left[1]) != "mongod-wanted" {
		t.Errorf("left: %v, %v", left, err)
	}
}
