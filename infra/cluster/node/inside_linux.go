package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// private are the host's folders that the node's processes write to: each namespace of
// mounts has its own.
var private = []string{"/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"}

// The words that Start says to Inside, one a line.
const (
	linked = "linked" // the link is there
	stay   = "stay"   // you are on your own now
)

// Inside is the first process of the node's namespaces. It sets them up, starts the
// node's processes, and buries whoever dies. If one of the node's own dies, or the one
// who started it goes before saying "stay", it ends, and everything with it.
func Inside(dir string, orders io.Reader) error {
	if os.Getpid() != 1 { // called by hand it would hide the host's own /run, and rename it
		return errors.New("that is for up alone, which calls it in namespaces of its own")
	}
	n := Node{Dir: dir}
	lines := bufio.NewScanner(orders)
	hear := func(word string) error {
		if !lines.Scan() || lines.Text() != word {
			return errors.New("whoever started the cluster is gone")
		}
		return nil
	}
	if err := hear(linked); err != nil {
		return err
	}
	if err := isolate(); err != nil {
		return err
	}
	plan, err := os.ReadFile(n.plan())
	if err != nil {
		return err
	}
	var processes []process
	if err := json.Unmarshal(plan, &processes); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() {
		if err := hear(stay); err != nil {
			ended <- err
		}
	}()
	go func() { ended <- n.run(processes) }()
	return <-ended
}

// isolate makes the namespaces of mounts and network what the node needs.
func isolate() error {
	const quiet = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", quiet, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range private {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
		}
	}
	if err := syscall.Sethostname([]byte(name)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", Address + "/30", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "via", host},
	} {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// run starts the processes and returns when one of them has ended. It collects all
// children, since the first process inherits those whose parents have died; from here
// on nothing else may wait for one.
func (n Node) run(processes []process) error {
	names := map[int]string{}
	start := func(behind bool) error {
		for _, p := range processes {
			if p.Behind != behind {
				continue
			}
			pid, err := n.start(p)
			if err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			names[pid] = p.Name
		}
		return nil
	}
	if err := start(false); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		ready <- n.awaitAPI(ctx, "127.0.0.1")
	}()
	for waiting := true; ; {
		if waiting {
			select {
			case err := <-ready:
				if err == nil {
					err = start(true)
				}
				if err != nil {
					return err
				}
				waiting = false
			default:
			}
		}
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case err != nil && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("wait: %w", err)
		case pid <= 0:
			time.Sleep(50 * time.Millisecond)
		case names[pid] != "":
			return fmt.Errorf("%s has ended (%s); its last words:\n%s", names[pid], outcome(status), n.lastWords(names[pid]))
		}
	}
}

func outcome(status syscall.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// lastWords are the end of what a process has said. A failed start leaves no files.
func (n Node) lastWords(process string) string {
	said, err := os.ReadFile(n.log(process))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func (n Node) log(process string) string { return filepath.Join(n.Logs(), process+".log") }

// start starts a process whose words go to a file.
func (n Node) start(p process) (pid int, err error) {
	path, err := exec.LookPath(p.Path)
	if err != nil {
		return 0, err
	}
	log, err := os.Create(n.log(p.Name))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer nothing.Close()
	return syscall.ForkExec(path, append([]string{path}, p.Args...), &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{nothing.Fd(), log.Fd(), log.Fd()},
	})
}
