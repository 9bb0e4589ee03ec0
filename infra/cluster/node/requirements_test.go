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

// aptInstall starts no service of the packages, neither now nor at the next boot.
func TestAptInstall_StartsNoServices(t *testing.T) {
	for name, c := range map[string]struct{ policy, during string }{
		"a host without a policy":                     {"", "exit 101"},
		"a host with the policy of an interrupted up": {policyScript + "etcd-server runc\n", "exit 101"},
		"a host with its own policy":                  {"#!/bin/sh\nexit 104\n", "exit 104"},
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
		if err := aptInstall(context.Background(), policy, []string{"etcd-server", "runc"}, io.Discard); err != nil {
			t.Fatal(err)
		}
		output, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		rest := string(output)
		for _, want := range []string{"apt-get update", "apt-get install", " etcd-server runc\n", c.during, "systemctl disable etcd.service\n"} {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s: got calls %[3]q, want %[2]q in order", name, want, output)
			}
			rest = after
		}
		left, _ := os.ReadFile(policy)
		if foreign := !strings.HasPrefix(c.policy, policyScript); foreign && string(left) != c.policy || !foreign && left != nil {
			t.Errorf("%s: got policy %q after the installation, want only the policy of the host", name, left)
		}
	}
}

// A killed up can leave a policy that stops all services of the host, and packages whose
// services would start at the next boot. After apt-get has ended, no package is missing.
func TestFinishInstall_AfterKill(t *testing.T) {
	bin := t.TempDir()
	policy, log := filepath.Join(bin, "policy-rc.d"), filepath.Join(bin, "log")
	if err := errors.Join(
		os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho $* >>"+log+"\n"), 0o700),
		os.WriteFile(policy, []byte(policyScript+"etcd-server runc\n"), 0o755),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	if err := finishInstall(policy); err != nil {
		t.Fatal(err)
	}
	if output, _ := os.ReadFile(log); !strings.Contains(string(output), "disable etcd.service") || strings.Contains(string(output), "containerd") {
		t.Errorf("got systemctl calls %q, want only disable etcd.service", output)
	}
	if _, err := os.Stat(policy); err == nil {
		t.Error("the policy still exists, want it removed")
	}
}

// apt-get continues after a kill of the up that started it.
func TestFinishInstall_AptGetStillRunning(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy-rc.d")
	if err := os.WriteFile(policy, []byte(policyScript+"etcd-server\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	lockFile, err := holdName(installing)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{lockFile}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lockFile.Close()
	if err := finishInstall(policy); err == nil || !strings.Contains(err.Error(), "apt-get of a killed up is still running") {
		t.Errorf("got error %v, want one with %q", err, "still running")
	}
	child.Process.Kill()
	child.Wait()
	t.Setenv("PATH", "")
	if err := finishInstall(policy); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(policy); err == nil {
		t.Error("the policy still exists, want it removed")
	}
}

func TestAptInstall_Canceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	policy := filepath.Join(t.TempDir(), "policy-rc.d")
	if err := aptInstall(ctx, policy, []string{"runc"}, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if _, err := os.Stat(policy); err == nil {
		t.Error("the policy still exists, want it removed")
	}
}
