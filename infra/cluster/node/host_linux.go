package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A record is what Stop must know, written before there is anything to stop.
type record struct {
	PID     int               // the first process of the namespaces, as the host counts
	Started string            // when, in the kernel's ticks, since numbers are used again
	Sysctls map[string]string // as they were
	Made    []string          // folders that were not there
}

func (n Node) record() string { return filepath.Join(n.Dir, "record.json") }

func (n Node) read() (r record, err error) {
	content, err := os.ReadFile(n.record())
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(content, &r)
}

func (n Node) write(r record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(n.record(), content, 0o600)
}

// Lock makes sure that one command at a time changes the cluster of this machine. The
// lock is a name in the kernel, which goes with the process and leaves no file.
func Lock() (unlock func(), err error) { return lock("@ticketing-auth-cluster") }

func lock(name string) (unlock func(), err error) {
	lock, err := net.Listen("unix", name)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("another command is bringing the cluster up or down: wait for it to end")
	}
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// Up reports whether the node is running.
func (n Node) Up() bool {
	r, err := n.read()
	return err == nil && r.alive()
}

func (r record) alive() bool {
	started, err := ticks(r.PID)
	return err == nil && started == r.Started
}

// ticks is when a process was started.
func ticks(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may have spaces
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}

// A Running node has been started, and ends with its starter unless Leave is called.
type Running struct {
	node   Node
	orders io.WriteCloser
	ended  chan struct{}
}

// Start starts the node and waits until its API server is ready. What a former start
// left behind is removed first. The caller must call Leave or Stop.
func (n Node) Start(ctx context.Context) (*Running, error) {
	if err := n.Stop(); err != nil {
		return nil, err
	}
	if _, err := net.InterfaceByName(link); err == nil {
		return nil, fmt.Errorf("a cluster is up already, of another folder than %s: take it down first (the link %s is its)", n.Dir, link)
	}
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return nil, err
	}
	r := record{Sysctls: sysctls()}
	for _, dir := range private {
		if _, err := os.Stat(dir); err == nil {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		r.Made = append(r.Made, dir)
	}
	if err := n.write(r); err != nil {
		return nil, err
	}
	if err := errors.Join(n.prepare(), makeCgroups()); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	running, err := n.launch(r)
	if err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	if err := running.awaitAPI(ctx); err != nil {
		return nil, errors.Join(err, running.Stop())
	}
	return running, nil
}

// launch starts this program again as the first process of new namespaces, and joins
// them to the host.
func (n Node) launch(r record) (*Running, error) {
	log, err := os.Create(n.log("inside"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", "inside", "-dir", n.Dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, // a terminal's Ctrl-C is for the one who started it
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make namespaces for the node: %w", err)
	}
	running := &Running{node: n, orders: orders, ended: make(chan struct{})}
	go func() { cmd.Wait(); close(running.ended) }()
	r.PID = cmd.Process.Pid
	if r.Started, err = ticks(r.PID); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	if err := n.write(r); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	for _, args := range [][]string{
		{"link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(r.PID)},
		{"address", "add", host + "/30", "dev", link},
		{"link", "set", link, "up"},
	} {
		if err := ip(args...); err != nil {
			return nil, err
		}
	}
	_, err = io.WriteString(orders, linked+"\n")
	return running, err
}

// Died is closed when the node has ended by itself; Why says why.
func (r *Running) Died() <-chan struct{} { return r.ended }

// Why is what the node's first process said last.
func (r *Running) Why() error {
	said, _ := os.ReadFile(r.node.log("inside"))
	return fmt.Errorf("the node has ended: %s", strings.TrimSpace(string(said)))
}

func (r *Running) awaitAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("three minutes have passed"))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.node.awaitAPI(ctx, Address) }()
	select {
	case err := <-done:
		return err
	case <-r.ended:
		return r.Why()
	}
}

// Leave lets the node go on by itself.
func (r *Running) Leave() error {
	_, err := io.WriteString(r.orders, stay+"\n")
	return err
}

// Stop ends the node and removes all that it has left.
func (r *Running) Stop() error { return r.node.Stop() }

// Stop ends the node, if it is running, and puts the host back as it was, whatever
// state a former start or stop has left it in.
func (n Node) Stop() error {
	r, err := n.read()
	if errors.Is(err, fs.ErrNotExist) {
		return n.unused()
	}
	if err != nil {
		return err
	}
	if r.alive() {
		syscall.Kill(r.PID, syscall.SIGKILL)
	}
	if err := eventually("the node's processes to end", func() bool { return !r.alive() }); err != nil {
		return err
	}
	if _, err := net.InterfaceByName(link); err == nil {
		ip("link", "delete", link) // it may go by itself meanwhile
	}
	if err := eventually("the node's cgroups to be empty", removeCgroups); err != nil {
		return err
	}
	var faults []error
	for path, value := range r.Sysctls {
		if now, err := os.ReadFile(path); err == nil && string(now) != value {
			faults = append(faults, os.WriteFile(path, []byte(value), 0))
		}
	}
	for _, dir := range r.Made {
		os.Remove(dir) // if it is still empty
	}
	if mounted, err := n.mounts(); err != nil || len(mounted) > 0 {
		return fmt.Errorf("not removed is %s: something is mounted there: %v %w", n.Dir, mounted, err)
	}
	return errors.Join(append(faults, n.remove())...)
}

// remove removes the folder, the record last: without it the rest would be somebody's.
func (n Node) remove() error {
	entries, err := os.ReadDir(n.Dir)
	for _, entry := range entries {
		if path := filepath.Join(n.Dir, entry.Name()); path != n.record() {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(n.Dir)
}

// unused makes sure that the folder, of which there is no record, is empty or not there:
// somebody may have named one that holds what is theirs.
func (n Node) unused() error {
	err := os.Remove(n.Dir)
	if errors.Is(err, syscall.ENOTEMPTY) {
		return fmt.Errorf("%s is not empty, and no cluster's: name another folder with -dir", n.Dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// mounts are what this process sees mounted in the folder. There should be none: the
// node's mounts are its own.
func (n Node) mounts() (found []string, err error) {
	all, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(all)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], n.Dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found, err
}

func eventually(what string, happened func() bool) error {
	for end := time.Now().Add(20 * time.Second); !happened(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}

// sysctls are those that the kubelet sets on the host, as they are.
func sysctls() map[string]string {
	found := map[string]string{}
	for _, path := range []string{"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes"} {
		if value, err := os.ReadFile(path); err == nil {
			found[path] = string(value)
		}
	}
	return found
}

const cgroups = "/sys/fs/cgroup"

// hierarchies are the roots of the host's cgroups: one a controller in version 1, and
// the one of version 2.
func hierarchies() (roots []string, err error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, nil
	}
	entries, err := os.ReadDir(cgroups)
	for _, entry := range entries {
		if entry.IsDir() {
			roots = append(roots, filepath.Join(cgroups, entry.Name()))
		}
	}
	if err == nil && len(roots) == 0 {
		err = errors.New("there are no cgroups at " + cgroups)
	}
	return roots, err
}

// makeCgroups makes the group in which the kubelet makes those of the pods.
func makeCgroups() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		group := filepath.Join(root, cgroup)
		if err := os.MkdirAll(group, 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // version 1 begins with none
			if all, err := os.ReadFile(filepath.Join(root, file)); err == nil && filepath.Base(root) != "unified" && root != cgroups {
				if err := os.WriteFile(filepath.Join(group, file), all, 0); err != nil {
					return fmt.Errorf("make a cgroup: %w", err)
				}
			}
		}
	}
	return nil
}

// removeCgroups reports whether the group is gone, deepest groups first. A group whose
// last process has just died may be busy for a moment.
func removeCgroups() (gone bool) {
	roots, _ := hierarchies()
	gone = true
	for _, root := range roots {
		var groups []string
		filepath.WalkDir(filepath.Join(root, cgroup), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for _, group := range slices.Backward(groups) {
			gone = syscall.Rmdir(group) == nil && gone
		}
	}
	return gone
}

// snapshotter is how containerd stacks an image's layers in a folder: overlayfs, but not
// on top of another overlayfs, such as a container's.
func snapshotter(dir string) string {
	var on syscall.Statfs_t
	const overlayfs = 0x794c7630
	if err := syscall.Statfs(dir, &on); err == nil && int64(on.Type) == overlayfs {
		return "native"
	}
	return "overlayfs"
}

// Import gives images to the node, from an archive.
func (n Node) Import(ctx context.Context, archive io.Reader) error {
	_, err := n.ctr(ctx, archive, "images", "import", "-")
	return err
}

// Images are the names of the images that the node has.
func (n Node) Images(ctx context.Context) (map[string]bool, error) {
	listed, err := n.ctr(ctx, nil, "images", "list", "--quiet")
	names := map[string]bool{}
	for name := range strings.FieldsSeq(listed) {
		names[name] = true
	}
	return names, err
}

// ctr speaks to the node's containerd, whose socket is in the node's own /run.
func (n Node) ctr(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	r, err := n.read()
	if err != nil {
		return "", err
	}
	inside := []string{"--mount", "--target", strconv.Itoa(r.PID), "--", "ctr", "--namespace", "k8s.io"}
	return said(exec.CommandContext(ctx, "nsenter", append(inside, args...)...), stdin)
}

// Kubectl runs the cluster's kubectl and returns what it says.
func (n Node) Kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return said(exec.CommandContext(ctx, n.kubectl(), append([]string{"--kubeconfig", n.Kubeconfig()}, args...)...), stdin)
}

// said runs a command and returns what it says; if it fails, that is in the error.
func said(cmd *exec.Cmd, stdin io.Reader) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
