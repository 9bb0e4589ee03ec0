//go:build linux

package node

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The scripts of infra/test/scripts test the parts that need root and a complete cluster.

func TestRemoveUnused_KeepsForeignFolder(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Node{Dir: dir}).removeUnused(); err == nil || !strings.Contains(err.Error(), "has no cluster") {
		t.Errorf("got error %v, want one with %q", err, "has no cluster")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}

func TestRemoveUnused_MissingFolder(t *testing.T) {
	if err := (Node{Dir: filepath.Join(t.TempDir(), "none")}).removeUnused(); err != nil {
		t.Error(err)
	}
}

// The record shows that the remains of an interrupted removal belong to a cluster.
func TestRemove_RecordIsLast(t *testing.T) {
	n := Node{Dir: filepath.Join(t.TempDir(), "cluster")}
	busy := filepath.Join(n.Dir, "zzz", "busy")
	if err := os.MkdirAll(busy, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.write(record{}); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := syscall.Mount("tmpfs", busy, "tmpfs", 0, ""); err != nil {
			t.Skip("cannot mount: ", err)
		}
		defer syscall.Unmount(busy, 0)
	} else {
		os.WriteFile(filepath.Join(busy, "file"), nil, 0o600)
		os.Chmod(busy, 0o500)
		defer os.Chmod(busy, 0o700)
	}
	if err := n.remove(); err == nil {
		t.Fatal("got no error from the removal of a folder in use")
	}
	if _, err := n.read(); err != nil {
		t.Error(err)
	}
}

// A PID that the kernel has given to another process is not that of the node.
func TestState_ReusedPID(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	started, err := startTime(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	n := Node{Dir: t.TempDir()}
	for _, c := range []struct {
		boot, started string
		detached      bool
		want          State
	}{
		{boot(), started, true, Up},
		{boot(), started, false, Starting},
		{boot(), started + "1", true, Down},
		{"another", started, true, Down},
	} {
		if err := n.write(record{Boot: c.boot, PID: child.Process.Pid, Started: c.started, Detached: c.detached}); err != nil {
			t.Fatal(err)
		}
		if got, err := n.State(); got != c.want || err != nil {
			t.Errorf("%+v: got state %d, %v", c, got, err)
		}
	}
}

// If the record is unreadable, the cluster may still be up, so State must not report
// that it is down.
func TestState_UnreadableRecord(t *testing.T) {
	n := Node{Dir: t.TempDir()}
	if err := os.WriteFile(n.record(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, stateErr := n.State()
	for _, err := range []error{stateErr, n.Stop()} {
		if err == nil || !strings.Contains(err.Error(), n.record()) {
			t.Errorf("got error %v, want one with %q", err, n.record())
		}
	}
}

// restore uses the original values in the record.
func TestRestore_UndoesChanges(t *testing.T) {
	host := t.TempDir()
	at := func(name string) string { return filepath.Join(host, name) }
	for name, content := range map[string]string{
		"panic": "0\n", "oops": "0\n", "cgroup.controllers": "cpuset cpu io memory hugetlb pids misc\n", "cgroup.subtree_control": "cpu io memory pids\n",
	} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing, err := undelegated(host)
	if err != nil || strings.Join(missing, " ") != "cpuset hugetlb" {
		t.Fatalf("got undelegated controllers %v (%v), want cpuset and hugetlb", missing, err)
	}
	before, err := delegated(host)
	if err != nil {
		t.Fatal(err)
	}
	r := record{Boot: boot(), Cgroups: host, Delegated: before, Created: []string{at("made"), at("used")}, Sysctls: map[string]string{at("panic"): "0\n", at("oops"): "0\n"}}
	if err := r.change(missing); err != nil {
		t.Fatal(err)
	}
	if change, _ := os.ReadFile(at("cgroup.subtree_control")); string(change) != "+cpuset +hugetlb" {
		t.Errorf("got %q in cgroup.subtree_control, want +cpuset +hugetlb", change)
	}
	// the kubelet enables more controllers than the node needs
	for name, content := range map[string]string{"panic": "10\n", "cgroup.subtree_control": "cpuset cpu io memory hugetlb pids misc\n"} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{at(cgroup + "/kubepods/pod"), at("used/file")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.restore(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{cgroup, "made"} {
		if _, err := os.Stat(at(gone)); err == nil {
			t.Errorf("%s still exists, want it removed", gone)
		}
	}
	for name, want := range map[string]string{"panic": "0\n", "oops": "0\n", "cgroup.subtree_control": "-misc"} { // the last write
		if got, _ := os.ReadFile(at(name)); string(got) != want {
			t.Errorf("got %q in %s, want %q", got, name, want)
		}
	}
	if _, err := os.Stat(at("used/file")); err != nil {
		t.Error(err)
	}
}

// A reboot resets the sysctls, and the original values no longer apply.
func TestRestore_AfterReboot(t *testing.T) {
	sysctl := filepath.Join(t.TempDir(), "panic")
	if err := os.WriteFile(sysctl, []byte("5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (record{Boot: "another", Sysctls: map[string]string{sysctl: "0\n"}}).restore(); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(sysctl); string(now) != "5\n" {
		t.Errorf("got %q, want the unchanged value 5", now)
	}
}

// A file with the name of a record may be foreign, and so may its folder.
func TestState_ForeignRecord(t *testing.T) {
	for name, write := range map[string]func(Node) error{
		"foreign JSON": func(n Node) error { return os.WriteFile(n.record(), []byte(`{"artist":"x"}`), 0o600) },
		"a record of another folder": func(n Node) error {
			return os.WriteFile(n.record(), []byte(`{"Of":"`+recordKind+`","Dir":"/elsewhere"}`), 0o600)
		},
		"a record that other users can write": func(n Node) error { return errors.Join(n.write(record{}), os.Chmod(n.record(), 0o622)) },
	} {
		n := Node{Dir: t.TempDir()}
		foreign := filepath.Join(n.Dir, "precious")
		if err := errors.Join(os.Mkdir(foreign, 0o700), write(n)); err != nil {
			t.Fatal(err)
		}
		_, stateErr := n.State()
		for _, err := range []error{stateErr, n.Stop()} {
			if err == nil || !strings.Contains(err.Error(), "not a record") {
				t.Errorf("%s: got error %v, want one with %q", name, err, "not a record")
			}
		}
		if _, err := os.Stat(foreign); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckCgroups(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"version 2 with all controllers delegated":  {map[string]string{"cgroup.controllers": "cpu pids", "cgroup.subtree_control": "cpu pids", "cgroup.type": "domain", "cgroup.procs": "1"}, ""},
		"version 2 with a root that can delegate":   {map[string]string{"cgroup.controllers": "cpu hugetlb", "cgroup.subtree_control": "cpu", "cgroup.procs": "1\n2"}, ""},
		"a container without processes in its root": {map[string]string{"cgroup.controllers": "cpu", "cgroup.subtree_control": "", "cgroup.type": "domain", "cgroup.procs": ""}, ""},
		"a container with a process in its root":    {map[string]string{"cgroup.controllers": "cpu pids", "cgroup.subtree_control": "", "cgroup.type": "domain", "cgroup.procs": "1"}, "cannot delegate cpu, pids"},
		"a host without cgroups":                    {nil, "found no cgroups"},
		"version 1":                                 {map[string]string{"memory/tasks": "1"}, ""},
	} {
		host := t.TempDir()
		for name, content := range c.files {
			path := filepath.Join(host, filepath.FromSlash(name))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		err := checkCgroups(host)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got error %v, want %q", name, err, c.want)
		}
	}
}

// An unprivileged container has read-only cgroups.
func TestCheckCgroups_ReadOnly(t *testing.T) {
	host := t.TempDir()
	memory := filepath.Join(host, "memory")
	if err := os.Mkdir(memory, 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := syscall.Mount("tmpfs", memory, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
			t.Skip("cannot mount: ", err)
		}
		defer syscall.Unmount(memory, 0)
	}
	if err := checkCgroups(host); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "privileged") {
		t.Errorf("got error %v, want one with %q", err, "privileged")
	}
}

func TestLock_Exclusive(t *testing.T) {
	unlock, err := lock("@ticketing-auth-test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock("@ticketing-auth-test"); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("got error %v, want one with %q", err, "another command")
	}
	unlock()
	again, err := lock("@ticketing-auth-test")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestResolveDir(t *testing.T) {
	links := t.TempDir()
	for name, to := range map[string]string{"run": "/run", "folder": links} {
		if err := os.Symlink(to, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{
		links + "/cluster":                "",
		links + "/run/cluster":            "mounts its own /run",
		links + "/run/not/there/yet":      "mounts its own /run",
		links + "/folder":                 "not a folder",
		"/var/lib/ticketing-auth-cluster": "",
		links + "/not/there/yet":          "parent folder does not exist",
		links + "/my cluster":             "must contain only",
		links + "/$(reboot)":              "must contain only",
		"/run/cluster":                    "mounts its own /run",
		"/var/log":                        "mounts its own /var/log",
		"cluster":                         "must be an absolute path",
		"/":                               "must be an absolute path",
		"/home":                           "must be an absolute path",
		"/var/lib/../lib/cluster":         "must be an absolute path",
	} {
		if _, err := ResolveDir(dir); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got error %v, want %q", dir, err, want)
		}
	}
	if dir, err := ResolveDir(links + "/folder/cluster"); dir != links+"/cluster" || err != nil {
		t.Errorf("a symbolic link in the path: got %s, %v", dir, err)
	}
}

// A cluster never creates a file or a link at the path of its folder.
func TestRemoveUnused_KeepsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Node{Dir: file}).removeUnused(); err == nil || !strings.Contains(err.Error(), "has no cluster") {
		t.Errorf("got error %v, want one with %q", err, "has no cluster")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestWritePKI_CertificateUsages(t *testing.T) {
	dir := t.TempDir()
	ca, admin, err := writePKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	server, err := os.ReadFile(filepath.Join(dir, "apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for _, c := range []struct {
		name, host  string
		certificate []byte
		usage       x509.ExtKeyUsage
		valid       bool
	}{
		{"the server by its address", Address, server, x509.ExtKeyUsageServerAuth, true},
		{"the server by its name", "kubernetes.default.svc", server, x509.ExtKeyUsageServerAuth, true},
		{"the server by another name", "example.com", server, x509.ExtKeyUsageServerAuth, false},
		{"the administrator", "", admin.certificate, x509.ExtKeyUsageClientAuth, true},
		{"the administrator as a server", "", admin.certificate, x509.ExtKeyUsageServerAuth, false},
	} {
		block, _ := pem.Decode(c.certificate)
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parsed.Verify(x509.VerifyOptions{Roots: roots, DNSName: c.host, KeyUsages: []x509.ExtKeyUsage{c.usage}})
		if (err == nil) != c.valid {
			t.Errorf("%s: got error %v, want valid %t", c.name, err, c.valid)
		}
	}
}

// prepare writes every file in the arguments of the processes, and only the owner
// can read it.
func TestPrepare_WritesAllFiles(t *testing.T) {
	n := Node{Dir: t.TempDir(), Program: func(name string) string { return "/programs/" + name }, Pause: "dev.local/pause:1"}
	if err := n.prepare(); err != nil {
		t.Fatal(err)
	}
	plan, err := os.ReadFile(n.plan())
	if err != nil {
		t.Fatal(err)
	}
	var processes []process
	if err := json.Unmarshal(plan, &processes); err != nil || len(processes) != 8 {
		t.Fatalf("got %d processes (%v), want 8", len(processes), err)
	}
	read := 0
	for _, p := range processes {
		for _, arg := range p.Args {
			_, path, named := strings.Cut(arg, "=")
			if !named {
				path = arg
			}
			if !strings.HasPrefix(path, n.Dir) {
				continue
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Errorf("%s: %v", p.Name, err)
			} else if read++; info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: other users can read %s", p.Name, path)
			}
		}
	}
	if read < 15 {
		t.Errorf("got only %d paths, want at least 15", read)
	}
	if err := n.prepare(); err == nil {
		t.Error("got no error from a second prepare in the same folder")
	}
}

func TestMakeCgroups_CPUShares(t *testing.T) {
	at := t.TempDir()
	for _, file := range []string{"cpu/" + cgroup + "/cpu.shares", "pids/" + cgroup + "/pids.max"} {
		file = filepath.Join(at, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("1024"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeCgroups(at, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "cpu", cgroup, "cpu.shares")); err != nil || string(got) != "8192" {
		t.Errorf("got %q (%v) in cpu.shares, want 8192", got, err)
	}
	if _, err := os.Stat(filepath.Join(at, "pids", cgroup, "cpu.shares")); err == nil {
		t.Error("got a file cpu.shares in the group of pids, want none")
	}
}
