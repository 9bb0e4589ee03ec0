// Package built keeps programs that are built from modules outside the workspace: it
// builds them once and keeps them in the user's cache folder, under a name that is made
// of all they are made of.
//
// It is for the embedded database and for the cluster of infra/cluster: programs whose
// dependencies would choose the versions of ours if they were in the workspace. No
// function imports it.
//
// It needs the go command for what is not there yet, and a Unix for the file locks.
package built

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// keep is how long what nobody asks for stays in the cache.
const keep = 14 * 24 * time.Hour

// A Module is a module of the repository, outside the workspace, and what is built
// from it.
type Module struct {
	// Name is what its folder in the cache begins with, and Title what sentences call it.
	Name, Title string

	// Path is the module's folder, from the root of the repository, with slashes.
	Path string

	// Packages are what is built, as the go command takes them. If empty, it is the
	// module's own folder.
	Packages []string

	// Flags are those of "go build".
	Flags []string

	// Complete, if set, adds to a copy of the module's folder what is not committed,
	// and the copy is built.
	Complete func(ctx context.Context, folder string) error

	// Takes says how long a build takes, for the sentence that announces it.
	Takes string
}

// Programs answers the folder of the built programs. Where it stands is decided by
// what they are made of, so a folder that exists is the right one, and finding it
// takes no go command. Progress is told in a sentence what takes long.
func (m Module) Programs(ctx context.Context, progress func(string)) (folder string, err error) {
	root, err := Repository()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, filepath.FromSlash(m.Path))
	if !exists(filepath.Join(source, "go.mod")) {
		return "", fmt.Errorf("%s is not the repository: it has no %s", root, m.Path)
	}
	key, err := m.fingerprint(source)
	if err != nil {
		return "", fmt.Errorf("read its source: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder to build it into: %w", err)
	}
	cache = filepath.Join(cache, "ticketing-auth")
	target := filepath.Join(cache, m.Name+"-"+key)
	if inUse(target) {
		return target, nil
	}
	return target, m.buildOnce(ctx, source, cache, target, progress)
}

// inUse reports whether the programs are built, and notes that they are wanted.
func inUse(target string) bool {
	now := time.Now()
	return os.Chtimes(target, now, now) == nil
}

// Repository finds the root of the repository around the working directory, which for
// a test is its package's folder.
func Repository() (string, error) {
	from, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := from; ; dir = filepath.Dir(dir) {
		if exists(filepath.Join(dir, "go.work")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the repository: no folder above it has go.work", from)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fingerprint names what the programs are made of: the module's files but for the
// tests, the Go version, the platform, and how they are built.
func (m Module) fingerprint(source string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH, m.args(""))
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isSource(entry.Name()) {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(source, path)
		fmt.Fprintln(sum, filepath.ToSlash(name), len(content))
		sum.Write(content)
		return err
	})
	return fmt.Sprintf("%x", sum.Sum(nil)[:12]), err
}

func isSource(name string) bool {
	return name == "go.mod" || name == "go.sum" ||
		strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
}

// buildOnce builds the programs unless another process is doing so, which it then
// waits for: test binaries of several packages start at the same time.
func (m Module) buildOnce(ctx context.Context, source, cache, target string, progress func(string)) error {
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock-"+m.Name), func() {
		progress("Waiting for another process that is building " + m.Title + ".")
	})
	if err != nil {
		return err
	}
	defer unlock()
	if inUse(target) {
		return nil
	}
	progress("Building " + m.Title + ", once; this takes " + m.Takes + ".")
	if err := m.build(ctx, source, target, progress); err != nil {
		return err
	}
	sweep(cache, time.Now().Add(-keep))
	return nil
}

// lock takes an exclusive lock between processes. The kernel gives it up with
// the process that holds it.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for waited := false; ; waited = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !waited {
			waiting()
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for another process that is building it: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// args are those of the go command. All flags are spelled out, and GOFLAGS is emptied,
// so that everybody builds the same: pure Go, stripped, not marked with the state of
// the working tree.
func (m Module) args(folder string) []string {
	args := append([]string{"build", "-v", "-trimpath", "-buildvcs=false"}, m.Flags...)
	args = append(args, "-o", folder+string(filepath.Separator))
	if len(m.Packages) == 0 {
		return append(args, ".")
	}
	return append(args, m.Packages...)
}

// build compiles the programs beside their target and renames the folder, so that the
// target is whole or not there.
func (m Module) build(ctx context.Context, source, target string, progress func(string)) error {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return errors.New("it must be built first, and there is no go command on the PATH")
	}
	folder, err := os.MkdirTemp(filepath.Dir(target), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if m.Complete != nil {
		whole := filepath.Join(folder, "source")
		if err := os.CopyFS(whole, os.DirFS(source)); err != nil {
			return err
		}
		if err := m.Complete(ctx, whole); err != nil {
			return err
		}
		source = whole
	}
	programs := filepath.Join(folder, "programs")
	if err := os.Mkdir(programs, 0o755); err != nil {
		return err
	}

	cmd := exec.CommandContext(ctx, goCommand, m.args(programs)...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	// Compilers that outlive a cancelled go command must not be waited for.
	cmd.WaitDelay = time.Second
	said := &listener{title: m.Title, progress: progress, next: time.Now().Add(patience), start: time.Now()}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("build it: %w", context.Cause(ctx))
		}
		return fmt.Errorf("build it: %w\n%s", err, bytes.TrimSpace(said.rest.Bytes()))
	}
	return os.Rename(programs, target)
}

// patience is how long a build goes on before it is told of again.
const patience = 20 * time.Second

// A listener hears what the go command says: the packages that it compiles, one a
// line, and what is wrong, which it keeps.
type listener struct {
	title       string
	progress    func(string)
	start, next time.Time
	packages    int
	line, rest  bytes.Buffer
}

func (l *listener) Write(p []byte) (int, error) {
	l.line.Write(p)
	for {
		line, err := bufio.NewReader(bytes.NewReader(l.line.Bytes())).ReadString('\n')
		if errors.Is(err, io.EOF) {
			return len(p), nil
		}
		l.line.Next(len(line))
		l.hear(line)
	}
}

func (l *listener) hear(line string) {
	switch {
	case strings.HasPrefix(line, "go: downloading "):
	case strings.ContainsAny(line, " \t"):
		l.rest.WriteString(line)
	default:
		l.packages++
	}
	if now := time.Now(); now.After(l.next) {
		l.next = now.Add(patience)
		l.progress(fmt.Sprintf("Building %s: %d packages in %v so far.", l.title, l.packages, now.Sub(l.start).Round(time.Second)))
	}
}

// sweep removes what nobody has wanted since: programs of former sources, and what
// builds that were killed left behind.
func sweep(cache string, since time.Time) {
	entries, _ := os.ReadDir(cache)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "lock") {
			continue
		}
		if info, err := entry.Info(); err == nil && info.ModTime().Before(since) {
			os.RemoveAll(filepath.Join(cache, entry.Name()))
		}
	}
}
