//go:build linux

package node

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Packages are installed, and no service of theirs runs, then or later.
func TestPackagesAreInstalledWithoutTheirServices(t *testing.T) {
	for name, c := range map[string]struct{ policy, during string }{
		"a host without a policy":             {"", "exit 101"},
		"one that an interrupted up has left": {noServices + "etcd-server runc\n", "exit 101"},
		"a host with its own policy":          {"#!/bin/sh\nexit 104\n", "exit 104"},
	} {
		bin := t.TempDir()
		policy, log := filepath.Join(bin, "policy-rc.d"), filepath.Join(bin, "log")
		program := "#!/bin/sh\necho ${0##*/} $* >>" + log + "\n/bin/cat " + policy + " >>" + log + "\n"
		for _, name := range []string{"apt-get", "systemctl"} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte(program), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if c.policy != "" {
			if err := os.WriteFile(policy, []byte(c.policy), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", bin)
		if err := finishInstall(policy); err != nil {
			t.Fatal(err)
		}
		if err := apt(context.Background(), policy, []string{"etcd-server", "runc"}, io.Discard); err != nil {
			t.Fatal(err)
		}
		said, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		rest := string(said)
		for _, want := range []string{"apt-get update", "apt-get install", " etcd-server runc\n", c.during, "systemctl disable etcd.service\n"} {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s: %q is not in its place in %q", name, want, said)
			}
			rest = after
		}
		left, _ := os.ReadFile(policy)
		if theirs := !strings.HasPrefix(c.policy, noServices); theirs && string(left) != c.policy || !theirs && left != nil {
			t.Errorf("%s: left is %q", name, left)
		}
	}
}

// Somebody killed it while apt-get went on: nothing is missing then, and still the host's
// packages may not start services, and those of ours would at the next boot.
func TestAKilledInstallationIsFinished(t *testing.T) {
	bin := t.TempDir()
	policy, log := filepath.Join(bin, "policy-rc.d"), filepath.Join(bin, "log")
	if err := errors.Join(
		os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho $* >>"+log+"\n"), 0o700),
		os.WriteFile(policy, []byte(noServices+"etcd-server runc\n"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	if err := finishInstall(policy); err != nil {
		t.Fatal(err)
	}
	if said, _ := os.ReadFile(log); !strings.Contains(string(said), "disable etcd.service") || strings.Contains(string(said), "containerd") {
		t.Errorf("systemctl is told %q", said)
	}
	if _, err := os.Stat(policy); err == nil {
		t.Error("the policy is left")
	}
}

// apt-get goes on where the up that called it was killed.
func TestAnInstallationUnderWayIsWaitedFor(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy-rc.d")
	if err := os.WriteFile(policy, []byte(noServices+"etcd-server\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	working, err := hold(installing)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{working}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	working.Close()
	if err := finishInstall(policy); err == nil || !strings.Contains(err.Error(), "apt-get is at work") {
		t.Errorf("got %v", err)
	}
	child.Process.Kill()
	child.Wait()
	t.Setenv("PATH", "")
	if err := finishInstall(policy); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(policy); err == nil {
		t.Error("the policy is left")
	}
}

func TestAnInterruptedInstallationDoesNotBegin(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	policy := filepath.Join(t.TempDir(), "policy-rc.d")
	if err := apt(ctx, policy, []string{"runc"}, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(policy); err == nil {
		t.Error("the policy is left")
	}
}
