// Package gobuild builds programs from modules outside the workspace: the embedded
// database and the parts of the test cluster. These modules are separate so that their
// dependencies do not decide the versions of the functions' dependencies.
//
// The go command caches its builds, so the build of an up-to-date program takes a second or
// less. A dozen test binaries start the embedded database, so Build omits even that while no file
// of the module has changed. No program that ships imports this package.
package gobuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// A Module is a module of the repository outside the workspace.
type Module struct {
	Name     string   // of its folder in the cache folder
	Title    string   // for messages
	Dir      string   // absolute, or relative to the root of the repository
	Packages []string // to build; the module's root if empty
	Flags    []string // of "go build"
	Duration string   // of a first build, for messages, such as "two minutes"
}

// Build builds the programs and returns their folder, inside the user's cache folder. It
// reports the first build, which is slow, to progress.
func (m Module) Build(ctx context.Context, progress func(string)) (folder string, err error) {
	root, err := Repository()
	if err != nil {
		return "", err
	}
	folder, err = CacheDir(m.Name)
	if err != nil {
		return "", err
	}
	programs, err := os.ReadDir(folder)
	if err != nil {
		return "", err
	}
	if len(programs) == 0 {
		progress("Building " + m.Title + ". The first build takes " + m.Duration + ".")
	}
	// Test binaries of several packages build at the same time.
	unlock, err := lock(ctx, folder+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := m.Dir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(root, filepath.FromSlash(dir))
	}
	b := build{stamp: folder + ".built", input: fmt.Sprint(runtime.Version(), dir, m.Flags, m.Packages), began: time.Now()}
	if len(programs) > 0 && b.isCurrent(dir) {
		return folder, nil
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false"}, m.Flags...)
	args = append(args, "-o", folder+string(filepath.Separator))
	if len(m.Packages) == 0 {
		args = append(args, ".")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, m.Packages...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0", "GOOS=", "GOARCH=")
	cmd.WaitDelay = time.Second // do not wait for compilers that outlive a cancelled go command
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("build %s: %w", m.Title, context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("build %s: the go command is not on the PATH: install Go", m.Title)
	case err != nil:
		return "", fmt.Errorf("build %s: %w\n%s", m.Title, err, bytes.TrimSpace(out))
	}
	return folder, b.record()
}

// A build is a build of a module's programs. Its stamp is a file that describes the last one.
type build struct {
	stamp string
	input string // what the programs depend on, beside the files of the module
	began time.Time
}

// isCurrent reports whether the last build had the same input, and no file of the module has
// changed since it began.
func (b build) isCurrent(dir string) bool {
	input, err := os.ReadFile(b.stamp)
	last, statErr := os.Stat(b.stamp)
	if err != nil || statErr != nil || string(input) != b.input {
		return false
	}
	return filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && !info.ModTime().Before(last.ModTime()) {
			err = errors.New("changed")
		}
		return err
	}) == nil
}

// record writes the stamp.
func (b build) record() error {
	if err := os.WriteFile(b.stamp, []byte(b.input), 0o600); err != nil {
		return err
	}
	return os.Chtimes(b.stamp, b.began, b.began)
}

// Repository returns the root of the repository around the working directory: the nearest
// folder with a go.work file.
func Repository() (string, error) {
	from, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := from; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the repository: no folder above it has go.work", from)
		}
	}
}

// CacheDir returns a folder in the user's cache folder. All checkouts of the repository share
// it: a program that was built from another source is built again.
func CacheDir(name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "ticketing-auth", name)
	return folder, os.MkdirAll(folder, 0o755)
}

// lock takes an exclusive lock between processes. The kernel releases it when the process
// ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for another build: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
