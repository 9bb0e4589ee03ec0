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

// A record is the state that Stop needs. Start writes it before it changes the host.
type record struct {
	Kind      string            `json:"Of"` // recordKind
	Dir       string            // the node's folder
	Boot      string            // the boot ID of the host; the changes do not survive a reboot
	PID       int               // of the first process of the namespaces, in the host's PID namespace
	Started   string            // its start time in clock ticks, because the kernel reuses PIDs
	Detached  bool              `json:"Left"` // whether the cluster is complete and runs without its starter
	Sysctls   map[string]string // the original values
	Created   []string          `json:"Made"` // folders that Start creates
	Cgroups   string            // the root of the host's cgroups
	Delegated []string          `json:"Handed"` // controllers that the root delegated before
}

// recordKind distinguishes a record from other files of the same name.
const recordKind = "infra/cluster of ticketing-auth"

func (n Node) record() string { return filepath.Join(n.Dir, "record.json") }

// unwritten returns the temporary path of a record. write renames it, because Stop could
// not restore the host from a partial record.
func (n Node) unwritten() string { return n.record() + ".new" }

// read reads the record. Stop deletes the folder and writes files of the host as the
// record says. Therefore read rejects a file that is not a record of this folder.
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
		return r, fmt.Errorf("read the record %s: %w", n.record(), err)
	}
	status, _ := info.Sys().(*syscall.Stat_t)
	valid := info.Mode().IsRegular() && info.Mode().Perm()&0o022 == 0 && status != nil && int(status.Uid) == os.Geteuid()
	if !valid || r.Kind != recordKind || r.Dir != n.Dir {
		return r, fmt.Errorf("%s is not a record of a cluster in this folder: choose another folder with -dir", n.record())
	}
	return r, nil
}

func (n Node) write(r record) error {
	r.Kind, r.Dir = recordKind, n.Dir
	content, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(n.unwritten(), content, 0o600); err != nil {
		return err
	}
	return os.Rename(n.unwritten(), n.record())
}

// Lock ensures that only one command at a time changes or measures the cluster of this
// machine. The lock is an abstract socket name. The kernel releases it with the process,
// and it leaves no file.
func Lock() (unlock func(), err error) { return lock("@ticketing-auth-cluster") }

func lock(name string) (unlock func(), err error) {
	held, err := holdName(name)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("another command is using the cluster: wait until it ends")
	}
	if err != nil {
		return nil, err
	}
	return func() { held.Close() }, nil
}

// holdName binds an abstract socket name. The name stays bound as long as a process has
// the file open.
func holdName(name string) (*os.File, error) {
	listener, err := net.Listen("unix", name)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	return listener.(*net.UnixListener).File()
}

// A State is the state of a node.
type State int

const (
	Down     State = iota
	Starting       // or stopping, if its starter has ended
	Up             // complete and detached
)

// State returns the state of the node. It returns an error if the state is unknown or
// another cluster is up.
func (n Node) State() (State, error) {
	r, err := n.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Down, errors.Join(n.checkOther(), n.checkForeign())
	case err != nil:
		return Down, err
	case !r.alive():
		return Down, nil
	case !r.Detached:
		return Starting, nil
	}
	return Up, nil
}

func (r record) alive() bool {
	started, err := startTime(r.PID)
	return err == nil && started == r.Started && r.Boot == boot()
}

// startTime returns the start time of a process in clock ticks.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may contain spaces
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}

// A Running is a started node. It ends with its starter unless Detach is called.
type Running struct {
	node     Node
	messages io.WriteCloser
	ended    chan struct{}
}

// Start starts the node and waits until its API server is ready. It first removes the
// remains of an earlier start. The caller must call Detach or Stop.
func (n Node) Start(ctx context.Context) (*Running, error) {
	if err := errors.Join(n.Stop(), n.checkOther()); err != nil {
		return nil, err
	}
	r := record{Boot: boot(), Sysctls: sysctls(), Cgroups: cgroups}
	for _, dir := range privateDirs {
		if _, err := os.Stat(dir); err != nil {
			r.Created = append(r.Created, dir)
		}
	}
	missing, err := undelegated(cgroups)
	if err != nil {
		return nil, err
	}
	if r.Delegated, err = delegated(cgroups); err != nil {
		return nil, err
	}
	if err := os.Mkdir(n.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := n.write(r); err != nil {
		return nil, err
	}
	if err := errors.Join(n.prepare(), r.change(missing)); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	running, err := n.launch(r)
	if err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	if err := running.waitForAPI(ctx); err != nil {
		return nil, errors.Join(err, running.Stop())
	}
	return running, nil
}

// launch starts this program again as the first process of new namespaces, and connects
// them to the host's network.
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
		Setsid: true, // Ctrl-C in a terminal must reach only the starter
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	messages, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("create the namespaces of the node: %w", err)
	}
	running := &Running{node: n, messages: messages, ended: make(chan struct{})}
	go func() { cmd.Wait(); close(running.ended) }()
	r.PID = cmd.Process.Pid
	if r.Started, err = startTime(r.PID); err != nil {
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
	_, err = io.WriteString(messages, linked+"\n")
	return running, err
}

// Done returns a channel that closes when the node has ended by itself. Err then returns
// the reason.
func (r *Running) Done() <-chan struct{} { return r.ended }

// Err returns an error with the log of the node's first process.
func (r *Running) Err() error {
	log, _ := os.ReadFile(r.node.log("inside"))
	return fmt.Errorf("the node has ended: %s", strings.TrimSpace(string(log)))
}

func (r *Running) waitForAPI(ctx context.Context) error {
	limited, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("timeout after three minutes"))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.node.waitForAPI(limited, Address) }()
	select {
	case err := <-done:
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w; the end of its log:\n%s", err, r.node.logTail("kube-apiserver"))
		}
		return err
	case <-r.ended:
		return r.Err()
	}
}

// Detach lets the node run without its starter.
func (r *Running) Detach() error {
	record, err := r.node.read()
	if err != nil {
		return err
	}
	record.Detached = true
	if err := r.node.write(record); err != nil {
		return err
	}
	if _, err := io.WriteString(r.messages, detach+"\n"); err != nil {
		return r.Err()
	}
	return nil
}

// Stop ends the node and restores the host.
func (r *Running) Stop() error { return r.node.Stop() }

// Stop ends the node if it is running, and restores the host. It also cleans up after a
// start or stop that was interrupted.
func (n Node) Stop() error {
	r, err := n.read()
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(n.checkOther(), n.removeUnused())
	}
	if err != nil {
		return err
	}
	if r.alive() {
		syscall.Kill(r.PID, syscall.SIGKILL)
	}
	if err := waitFor("the end of the node's processes", func() bool { return !r.alive() }); err != nil {
		return err
	}
	dir, up := runningDir()
	if up && dir != n.Dir && dir != "" { // the running cluster needs the changes, and only this record has the original values
		return n.checkOther()
	}
	if up {
		ip("link", "delete", link) // the kernel may have deleted it already
	}
	var errs []error
	if err := r.restore(); err != nil {
		errs = append(errs, err)
	}
	if mounted, err := n.mounts(); err != nil || len(mounted) > 0 {
		return fmt.Errorf("%s is not removed: it contains mounts: %v %w", n.Dir, mounted, err)
	}
	if len(errs) == 0 { // otherwise keep the record for a retry
		errs = append(errs, n.remove())
	}
	return errors.Join(errs...)
}

// change changes the host as the node needs it. missing are the controllers that the
// cgroup root does not delegate yet.
func (r record) change(missing []string) error {
	for _, dir := range r.Created {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return makeCgroups(r.Cgroups, missing)
}

// restore undoes the changes to the host that do not end with the namespaces or a
// reboot.
func (r record) restore() error {
	for _, dir := range r.Created {
		os.Remove(dir) // fails if it is not empty
	}
	if r.Boot != boot() {
		return nil
	}
	if err := waitFor("the removal of the node's cgroups", func() bool { return removeCgroups(r.Cgroups) }); err != nil {
		return err
	}
	errs := []error{restoreDelegation(r.Cgroups, r.Delegated)}
	for path, value := range r.Sysctls {
		if now, err := os.ReadFile(path); err == nil && string(now) != value {
			errs = append(errs, os.WriteFile(path, []byte(value), 0))
		}
	}
	return errors.Join(errs...)
}

// boot returns the boot ID of the host.
func boot() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// runningDir returns the folder of the cluster that is up, from the alias of its link.
func runningDir() (dir string, up bool) {
	alias, err := os.ReadFile("/sys/class/net/" + link + "/ifalias")
	return strings.TrimSpace(string(alias)), err == nil
}

// checkOther returns an error if a cluster is up of which this folder has no record.
func (n Node) checkOther() error {
	dir, up := runningDir()
	switch {
	case !up:
		return nil
	case dir == n.Dir:
		return fmt.Errorf("a cluster is up, but %s does not exist: to stop it, kill the process that \"pgrep -f 'inside -dir %s'\" prints", n.record(), n.Dir)
	}
	return fmt.Errorf("a cluster is up in another folder: -dir %s", dir)
}

// remove removes the folder. It removes the record last, because without it the rest of
// the folder would count as foreign.
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

// removeUnused removes a folder without a record. It may contain only the temporary
// record of an interrupted start.
func (n Node) removeUnused() error {
	if err := n.checkForeign(); err != nil {
		return err
	}
	os.Remove(n.unwritten())
	if err := os.Remove(n.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkForeign returns an error if a folder without a record contains other files. The
// user may have named one of their own folders.
func (n Node) checkForeign() error {
	entries, err := os.ReadDir(n.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != filepath.Base(n.unwritten()) {
		return fmt.Errorf("%s is not an empty folder and has no cluster: choose another folder with -dir", n.Dir)
	}
	return nil
}

// mounts returns the mounts in the folder that this process sees. There should be none,
// because the node has its own mount namespace.
func (n Node) mounts() (found []string, err error) {
	all, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(all)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], n.Dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found, err
}

func waitFor(event string, happened func() bool) error {
	for end := time.Now().Add(20 * time.Second); !happened(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("timeout after 20 s: waited for %s", event)
		}
	}
	return nil
}

// sysctls returns the current values of the sysctls that the kubelet changes on the
// host.
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

// snapshotter returns containerd's snapshotter for a folder: overlayfs, but not on
// another overlayfs, such as that of a container.
func snapshotter(dir string) string {
	var on syscall.Statfs_t
	const overlayfs = 0x794c7630
	if err := syscall.Statfs(dir, &on); err == nil && int64(on.Type) == overlayfs {
		return "native"
	}
	return "overlayfs"
}

// Import imports images into the node from an archive.
func (n Node) Import(ctx context.Context, archive io.Reader) error {
	_, err := n.ctr(ctx, archive, "images", "import", "-")
	return err
}

// Images returns the names of the images on the node.
func (n Node) Images(ctx context.Context) (map[string]bool, error) {
	listed, err := n.ctr(ctx, nil, "images", "list", "--quiet")
	names := map[string]bool{}
	for name := range strings.FieldsSeq(listed) {
		names[name] = true
	}
	return names, err
}

// ctr runs ctr in the node's mount namespace, because containerd's socket is in the
// node's own /run.
func (n Node) ctr(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	r, err := n.read()
	if err != nil {
		return "", err
	}
	inside := []string{"--mount", "--target", strconv.Itoa(r.PID), "--", "ctr", "--namespace", "k8s.io"}
	return output(exec.CommandContext(ctx, "nsenter", append(inside, args...)...), stdin)
}

// Kubectl runs the cluster's kubectl and returns its standard output.
func (n Node) Kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.kubectl(), append([]string{"--kubeconfig", n.Kubeconfig()}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+n.KubectlCache())
	return output(cmd, stdin)
}

// output runs a command and returns its standard output. An error contains the standard
// error.
func output(cmd *exec.Cmd, stdin io.Reader) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(cmd.Path), strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
