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

// privateDirs are the host's folders that the node's processes write to. The node mounts
// its own tmpfs on each.
var privateDirs = []string{"/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"}

// The messages from Start to Inside, one per line.
const (
	linked = "linked" // the veth pair exists
	detach = "detach" // the node continues without the starter
)

// Inside is the first process of the node's namespaces. It sets them up, starts the
// node's processes, and reaps all child processes. It ends when one of the node's
// processes ends, or when the starter ends before it has sent "detach". The kernel then
// ends all other processes.
func Inside(dir string, messages io.Reader) error {
	if os.Getpid() != 1 { // on the host it would mount over /run and change the host name
		return errors.New("inside is an internal command: up runs it in new namespaces")
	}
	n := Node{Dir: dir}
	lines := bufio.NewScanner(messages)
	expect := func(message string) error {
		if !lines.Scan() || lines.Text() != message {
			return errors.New("the starter of the cluster has ended")
		}
		return nil
	}
	if err := expect(linked); err != nil {
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
		if err := expect(detach); err != nil {
			ended <- err
		}
	}()
	go func() { ended <- n.run(processes) }()
	return <-ended
}

// isolate sets up the mount and network namespaces.
func isolate() error {
	const flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range privateDirs {
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

// run starts the processes and returns when one of them has ended. It reaps all
// children, because the first process inherits orphans. While it runs, no other code may
// wait for a child.
func (n Node) run(processes []process) error {
	names := map[int]string{}
	start := func(behind bool) error {
		for _, p := range processes {
			if p.AfterAPI != behind {
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
		ready <- n.waitForAPI(ctx, "127.0.0.1")
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
			return fmt.Errorf("%s has ended (%s); the end of its log:\n%s", names[pid], outcome(status), n.logTail(names[pid]))
		}
	}
}

func outcome(status syscall.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// logTail returns the last five lines of a process's log, for error messages: a failed
// start removes the log files.
func (n Node) logTail(process string) string {
	content, err := os.ReadFile(n.log(process))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func (n Node) log(process string) string { return filepath.Join(n.Logs(), process+".log") }

// start starts a process whose output goes to its log file.
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
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	return syscall.ForkExec(path, append([]string{path}, p.Args...), &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
	})
}
