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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A record is what Stop must know, written before there is anything to stop.
type record struct {
	Of      string            // isRecord
	Dir     string            // where it is
	Boot    string            // of the host, as the kernel calls it: the next one knows nothing of what was
	PID     int               // the first process of the namespaces, as the host counts
	Started string            // when, in the kernel's ticks, since numbers are used again
	Left    bool              // to itself, with all that its starter has put there
	Sysctls map[string]string // as they were
	Made    []string          // folders that were not there
	Cgroups string            // where the host has them
	Handed  []string          // controllers that their root handed down
}

// isRecord tells a record from another file of its name.
const isRecord = "infra/cluster of ticketing-auth"

func (n Node) record() string { return filepath.Join(n.Dir, "record.json") }

// unwritten is a record that is being written: one that is half there would be no use
// to whoever must put things back.
func (n Node) unwritten() string { return n.record() + ".new" }

// read reads the record, if it is one: a folder is emptied, and files of the host are
// written, by what it says.
func (n Node) read() (r record, err error) {
	info, err := os.Lstat(n.record())
	if err != nil {
		return r, err
	}
	content, err := os.ReadFile(n.record())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(content, &r); err != nil {
		return r, fmt.Errorf("%s cannot be read: %w", n.record(), err)
	}
	status, _ := info.Sys().(*syscall.Stat_t)
	mine := info.Mode().IsRegular() && info.Mode().Perm()&0o022 == 0 && status != nil && int(status.Uid) == os.Geteuid()
	if !mine || r.Of != isRecord || r.Dir != n.Dir {
		return r, fmt.Errorf("%s is no record of a cluster in that folder: name another with -dir", n.record())
	}
	return r, nil
}

func (n Node) write(r record) error {
	r.Of, r.Dir = isRecord, n.Dir
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.unwritten(), content, 0o600); err != nil {
		return err
	}
	return os.Rename(n.unwritten(), n.record())
}

// Lock makes sure that one command at a time changes, or measures, the cluster of this
// machine. The lock is a name in the kernel, which goes with the process and leaves no
// file.
func Lock() (unlock func(), err error) { return lock("@ticketing-auth-cluster") }

func lock(name string) (unlock func(), err error) {
	held, err := hold(name)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("another command is at the cluster: wait for it to end")
	}
	if err != nil {
		return nil, err
	}
	return func() { held.Close() }, nil
}

// hold takes a name in the kernel. It is held for as long as a process has the file.
func hold(name string) (*os.File, error) {
	listener, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	return listener.(*net.UnixListener).File()
}

// A State is what a node is in.
type State int

const (
	Down   State = iota
	Coming       // or going, if whoever started it is gone
	Up           // with all that its starter has put there
)

// State answers what the node is in. It is an error if that cannot be said, or if
// another cluster than this one is up.
func (n Node) State() (State, error) {
	r, err := n.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Down, errors.Join(n.other(), n.foreign())
	case err != nil:
		return Down, err
	case !r.alive():
		return Down, nil
	case !r.Left:
		return Coming, nil
	}
	return Up, nil
}

func (r record) alive() bool {
	started, err := ticks(r.PID)
	return err == nil && started == r.Started && r.Boot == boot()
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
	if err := errors.Join(n.Stop(), n.other()); err != nil {
		return nil, err
	}
	r := record{Boot: boot(), Sysctls: sysctls(), Cgroups: cgroups}
	for _, dir := range private {
		if _, err := os.Stat(dir); err != nil {
			r.Made = append(r.Made, dir)
		}
	}
	toHand, err := notHanded(cgroups)
	if err != nil {
		return nil, err
	}
	if r.Handed, err = handed(cgroups); err != nil {
		return nil, err
	}
	if err := os.Mkdir(n.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := n.write(r); err != nil {
		return nil, err
	}
	if err := errors.Join(n.prepare(), r.change(toHand)); err != nil {
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
		{"link", "set", link, "alias", n.Dir},
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
	limited, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("three minutes have passed"))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.node.awaitAPI(limited, Address) }()
	select {
	case err := <-done:
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w; its last words:\n%s", err, r.node.lastWords("kube-apiserver"))
		}
		return err
	case <-r.ended:
		return r.Why()
	}
}

// Leave lets the node go on by itself.
func (r *Running) Leave() error {
	record, err := r.node.read()
	if err != nil {
		return err
	}
	record.Left = true
	if err := r.node.write(record); err != nil {
		return err
	}
	if _, err := io.WriteString(r.orders, stay+"\n"); err != nil {
		return r.Why()
	}
	return nil
}

// Stop ends the node and removes all that it has left.
func (r *Running) Stop() error { return r.node.Stop() }

// Stop ends the node, if it is running, and puts the host back as it was, whatever
// state a former start or stop has left it in.
func (n Node) Stop() error {
	r, err := n.read()
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(n.other(), n.unused())
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
	dir, up := owner()
	if up && dir != n.Dir && dir != "" { // the host is as that one wants it, and how it was is in this record alone
		return n.other()
	}
	if up {
		ip("link", "delete", link) // it may go by itself meanwhile
	}
	var faults []error
	if err := r.restore(); err != nil {
		faults = append(faults, err)
	}
	if mounted, err := n.mounts(); err != nil || len(mounted) > 0 {
		return fmt.Errorf("not removed is %s: something is mounted there: %v %w", n.Dir, mounted, err)
	}
	if len(faults) == 0 { // the record is for another try
		faults = append(faults, n.remove())
	}
	return errors.Join(faults...)
}

// change changes the host as the node needs it. The root of its cgroups is to hand down
// controllers that it does not yet.
func (r record) change(toHand []string) error {
	for _, dir := range r.Made {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return makeCgroups(r.Cgroups, toHand)
}

// restore puts the host back as it was, as far as its namespaces have not taken it with
// them. What is the kernel's has gone with a reboot.
func (r record) restore() error {
	for _, dir := range r.Made {
		os.Remove(dir) // if it is still empty
	}
	if r.Boot != boot() {
		return nil
	}
	if err := eventually("the node's cgroups to be empty", func() bool { return removeCgroups(r.Cgroups) }); err != nil {
		return err
	}
	faults := []error{handDownOnly(r.Cgroups, r.Handed)}
	for path, value := range r.Sysctls {
		if now, err := os.ReadFile(path); err == nil && string(now) != value {
			faults = append(faults, os.WriteFile(path, []byte(value), 0))
		}
	}
	return errors.Join(faults...)
}

// boot tells one run of the host's kernel from another.
func boot() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// owner answers the folder of the cluster that is up, as its link says.
func owner() (dir string, up bool) {
	alias, err := os.ReadFile("/sys/class/net/" + link + "/ifalias")
	return strings.TrimSpace(string(alias)), err == nil
}

// other is an error if a cluster is up, to whoever has no record of one.
func (n Node) other() error {
	dir, up := owner()
	switch {
	case !up:
		return nil
	case dir == n.Dir:
		return fmt.Errorf("a cluster is up, but %s is gone: kill the process that \"pgrep -f 'inside -dir %s'\" names, and it goes", n.record(), n.Dir)
	}
	return fmt.Errorf("a cluster is up, of another folder: -dir %s", dir)
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

// unused makes sure that the folder, of which there is no record, is not there, nor what an
// interrupted start has left of it.
func (n Node) unused() error {
	if err := n.foreign(); err != nil {
		return err
	}
	os.Remove(n.unwritten())
	if err := os.Remove(n.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// foreign is an error if the folder, of which there is no record, holds what no cluster has
// made: somebody may have named one that is theirs.
func (n Node) foreign() error {
	entries, err := os.ReadDir(n.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != filepath.Base(n.unwritten()) {
		return fmt.Errorf("%s is not an empty folder, and no cluster's: name another with -dir", n.Dir)
	}
	return nil
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
	cmd := exec.CommandContext(ctx, n.kubectl(), append([]string{"--kubeconfig", n.Kubeconfig()}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+n.KubectlCache())
	return said(cmd, stdin)
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
