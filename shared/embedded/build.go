package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// keep is how long a built server that nobody starts stays in the cache.
const keep = 14 * 24 * time.Hour

// binary answers the path of the built server. Where it stands is decided by
// what it is made of, so a file that exists is the right one, and finding it
// takes no go command.
func binary(ctx context.Context, progress func(string)) (string, error) {
	source, err := module()
	if err != nil {
		return "", err
	}
	key, err := fingerprint(source)
	if err != nil {
		return "", fmt.Errorf("read its source: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder to build it into: %w", err)
	}
	cache = filepath.Join(cache, "ticketing-auth")
	target := filepath.Join(cache, "mongod-"+key)
	if inUse(target) {
		return target, nil
	}
	return target, buildOnce(ctx, source, cache, target, progress)
}

// inUse reports whether the server is built, and notes that it is wanted.
func inUse(target string) bool {
	now := time.Now()
	return os.Chtimes(target, now, now) == nil
}

// module finds infra/mongod in the repository around the working directory,
// which for a test is its package's folder.
func module() (string, error) {
	from, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := from; ; dir = filepath.Dir(dir) {
		source := filepath.Join(dir, "infra", "mongod")
		if exists(filepath.Join(dir, "go.work")) && exists(filepath.Join(source, "go.mod")) {
			return source, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside the repository: no folder above it has go.work and infra/mongod", from)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fingerprint names what the server is made of: its module's files but for the
// tests, the Go version, and the platform.
func fingerprint(source string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH, buildArgs)
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

// buildOnce builds the server unless another process is doing so, which it
// then waits for: test binaries of several packages start at the same time.
func buildOnce(ctx context.Context, source, cache, target string, progress func(string)) error {
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock"), progress)
	if err != nil {
		return err
	}
	defer unlock()
	if inUse(target) {
		return nil
	}
	progress("Building the embedded database, once; this takes a minute or two.")
	if err := build(ctx, source, target); err != nil {
		return err
	}
	sweep(cache, time.Now().Add(-keep))
	return nil
}

// lock takes an exclusive lock between processes. The kernel gives it up with
// the process that holds it.
func lock(ctx context.Context, path string, progress func(string)) (unlock func(), err error) {
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
			progress("Waiting for another process that is building the embedded database.")
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for another process that is building it: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// buildArgs are the flags of the build. They are spelled out, and GOFLAGS is
// emptied, so that everybody builds the same server: without PostgreSQL, pure
// Go, not marked with the state of the working tree.
var buildArgs = []string{"build", "-trimpath", "-buildvcs=false", "-tags=ferretdb_no_postgresql", "-ldflags=-s -w"}

// build compiles the server beside its target and renames it, so that the
// target is whole or not there.
func build(ctx context.Context, source, target string) error {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return errors.New("it must be built first, and there is no go command on the PATH")
	}
	folder, err := os.MkdirTemp(filepath.Dir(target), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	built := filepath.Join(folder, "mongod")

	cmd := exec.CommandContext(ctx, goCommand, append(buildArgs, "-o", built, ".")...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	// Compilers that outlive a cancelled go command must not be waited for.
	cmd.WaitDelay = time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("build it: %w", context.Cause(ctx))
		}
		return fmt.Errorf("build it: %w\n%s", err, bytes.TrimSpace(output.Bytes()))
	}
	return os.Rename(built, target)
}

// sweep removes what nobody has wanted since: servers of former sources, and
// what builds that were killed left behind.
func sweep(cache string, since time.Time) {
	entries, _ := os.ReadDir(cache)
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, "mongod-") && !strings.HasPrefix(name, "build-") {
			continue
		}
		if info, err := entry.Info(); err == nil && info.ModTime().Before(since) {
			os.RemoveAll(filepath.Join(cache, name))
		}
	}
}
