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

// What needs root, and a whole cluster, is played by infra/test/scripts.

func TestAFolderThatHoldsWhatIsNotOursIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "theirs")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Node{Dir: dir}).unused(); err == nil || !strings.Contains(err.Error(), "no cluster's") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func TestStoppingWhatWasNeverStartedIsHarmless(t *testing.T) {
	if err := (Node{Dir: filepath.Join(t.TempDir(), "none")}).unused(); err != nil {
		t.Error(err)
	}
}

// What an interrupted removal leaves can be told from what is somebody's.
func TestTheRecordIsRemovedLast(t *testing.T) {
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
			t.Skip("it cannot mount: ", err)
		}
		defer syscall.Unmount(busy, 0)
	} else {
		os.WriteFile(filepath.Join(busy, "file"), nil, 0o600)
		os.Chmod(busy, 0o500)
		defer os.Chmod(busy, 0o700)
	}
	if err := n.remove(); err == nil {
		t.Fatal("what is in use was removed")
	}
	if _, err := n.read(); err != nil {
		t.Error(err)
	}
}

// A number that the kernel has given to another process is not the node's.
func TestAnotherProcessOfTheSameNumberIsNotTheNode(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	started, err := ticks(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	n := Node{Dir: t.TempDir()}
	for _, c := range []struct {
		boot, started string
		left          bool
		want          State
	}{
		{boot(), started, true, Up},
		{boot(), started, false, Coming},
		{boot(), started + "1", true, Down},
		{"another", started, true, Down},
	} {
		if err := n.write(record{Boot: c.boot, PID: child.Process.Pid, Started: c.started, Left: c.left}); err != nil {
			t.Fatal(err)
		}
		if got, err := n.State(); got != c.want || err != nil {
			t.Errorf("%+v: got %d, %v", c, got, err)
		}
	}
}

// A record that cannot be read is no reason to take the cluster for down.
func TestARecordThatCannotBeReadIsNamed(t *testing.T) {
	n := Node{Dir: t.TempDir()}
	if err := os.WriteFile(n.record(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, asked := n.State()
	for _, err := range []error{asked, n.Stop()} {
		if err == nil || !strings.Contains(err.Error(), n.record()) {
			t.Errorf("got %v", err)
		}
	}
}

// What the host was like is put back, of which the record alone knows.
func TestTheHostIsPutBackAsItWas(t *testing.T) {
	host := t.TempDir()
	at := func(name string) string { return filepath.Join(host, name) }
	for name, content := range map[string]string{
		"panic": "0\n", "oops": "0\n", "cgroup.controllers": "cpuset cpu io memory hugetlb pids misc\n", "cgroup.subtree_control": "cpu io memory pids\n",
	} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	toHand, err := notHanded(host)
	if err != nil || strings.Join(toHand, " ") != "cpuset hugetlb" {
		t.Fatalf("to be handed down are %v, %v", toHand, err)
	}
	before, err := handed(host)
	if err != nil {
		t.Fatal(err)
	}
	r := record{Boot: boot(), Cgroups: host, Handed: before, Made: []string{at("made"), at("used")}, Sysctls: map[string]string{at("panic"): "0\n", at("oops"): "0\n"}}
	if err := r.change(toHand); err != nil {
		t.Fatal(err)
	}
	if order, _ := os.ReadFile(at("cgroup.subtree_control")); string(order) != "+cpuset +hugetlb" {
		t.Errorf("the root is told %q", order)
	}
	// what the kubelet does: more is handed down than was asked for
	for name, content := range map[string]string{"panic": "10\n", "cgroup.subtree_control": "cpuset cpu io memory hugetlb pids misc\n"} {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{at(cgroup + "/kubepods/pod"), at("used/by somebody")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.restore(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{cgroup, "made"} {
		if _, err := os.Stat(at(gone)); err == nil {
			t.Errorf("%s is left", gone)
		}
	}
	for name, want := range map[string]string{"panic": "0\n", "oops": "0\n", "cgroup.subtree_control": "-misc"} { // the last order
		if got, _ := os.ReadFile(at(name)); string(got) != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if _, err := os.Stat(at("used/by somebody")); err != nil {
		t.Error(err)
	}
}

// After a reboot the host is as its own settings say, not as it was before.
func TestAnotherBootIsNotPutBack(t *testing.T) {
	sysctl := filepath.Join(t.TempDir(), "panic")
	if err := os.WriteFile(sysctl, []byte("5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (record{Boot: "another", Sysctls: map[string]string{sysctl: "0\n"}}).restore(); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(sysctl); string(now) != "5\n" {
		t.Errorf("it is put back to %q", now)
	}
}

// A file of that name may be anybody's, and so may the folder that it is in.
func TestAnotherFileIsNoRecord(t *testing.T) {
	for name, write := range map[string]func(Node) error{
		"somebody's JSON": func(n Node) error { return os.WriteFile(n.record(), []byte(`{"artist":"x"}`), 0o600) },
		"a record of another folder": func(n Node) error {
			return os.WriteFile(n.record(), []byte(`{"Of":"`+isRecord+`","Dir":"/elsewhere"}`), 0o600)
		},
		"one that others could change": func(n Node) error { return errors.Join(n.write(record{}), os.Chmod(n.record(), 0o622)) },
	} {
		n := Node{Dir: t.TempDir()}
		theirs := filepath.Join(n.Dir, "precious")
		if err := errors.Join(os.Mkdir(theirs, 0o700), write(n)); err != nil {
			t.Fatal(err)
		}
		_, asked := n.State()
		for _, err := range []error{asked, n.Stop()} {
			if err == nil || !strings.Contains(err.Error(), "no record") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := os.Stat(theirs); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhereGroupsCanBeMade(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"version 2 that hands down all":              {map[string]string{"cgroup.controllers": "cpu pids", "cgroup.subtree_control": "cpu pids", "cgroup.type": "domain", "cgroup.procs": "1"}, ""},
		"version 2 whose root may hand down":         {map[string]string{"cgroup.controllers": "cpu hugetlb", "cgroup.subtree_control": "cpu", "cgroup.procs": "1\n2"}, ""},
		"a container whose root has no processes":    {map[string]string{"cgroup.controllers": "cpu", "cgroup.subtree_control": "", "cgroup.type": "domain", "cgroup.procs": ""}, ""},
		"a container whose root holds its process":   {map[string]string{"cgroup.controllers": "cpu pids", "cgroup.subtree_control": "", "cgroup.type": "domain", "cgroup.procs": "1"}, "cannot hand down cpu, pids"},
		"a host without cgroups":                     {nil, "there are no cgroups"},
		"version 1, where the kubelet finds its own": {map[string]string{"memory/tasks": "1"}, ""},
	} {
		host := t.TempDir()
		for name, content := range c.files {
			path := filepath.Join(host, filepath.FromSlash(name))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		err := groupable(host)
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, ErrUnable) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// As a container's are, that is not privileged.
func TestCgroupsThatCannotBeWrittenAreUnable(t *testing.T) {
	host := t.TempDir()
	memory := filepath.Join(host, "memory")
	if err := os.Mkdir(memory, 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := syscall.Mount("tmpfs", memory, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
			t.Skip("it cannot mount: ", err)
		}
		defer syscall.Unmount(memory, 0)
	}
	if err := groupable(host); !errors.Is(err, ErrUnable) || !strings.Contains(err.Error(), "privileged") {
		t.Errorf("got %v", err)
	}
}

func TestOneCommandAtATime(t *testing.T) {
	unlock, err := lock("@ticketing-auth-test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock("@ticketing-auth-test"); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("got %v", err)
	}
	unlock()
	again, err := lock("@ticketing-auth-test")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestWhichFoldersWillDo(t *testing.T) {
	links := t.TempDir()
	for name, to := range map[string]string{"run": "/run", "folder": links} {
		if err := os.Symlink(to, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	for dir, says := range map[string]string{
		links + "/cluster":                "",
		links + "/run/cluster":            "inside, /run is another",
		links + "/run/not/there/yet":      "inside, /run is another",
		links + "/folder":                 "no folder",
		"/var/lib/ticketing-auth-cluster": "",
		links + "/not/there/yet":          "no folder",
		links + "/my cluster":             "other characters",
		links + "/$(reboot)":              "other characters",
		"/run/cluster":                    "inside, /run is another",
		"/var/log":                        "inside, /var/log is another",
		"cluster":                         "must be an absolute path",
		"/":                               "must be an absolute path",
		"/home":                           "must be an absolute path",
		"/var/lib/../lib/cluster":         "must be an absolute path",
	} {
		if _, err := Folder(dir); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if dir, err := Folder(links + "/folder/cluster"); dir != links+"/cluster" || err != nil {
		t.Errorf("by way of a link: %s, %v", dir, err)
	}
}

// A link to a folder, or a file, is nothing that a cluster has made.
func TestWhatIsNoFolderIsNotRemoved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Node{Dir: file}).unused(); err == nil || !strings.Contains(err.Error(), "no cluster's") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestTheAuthorityVouchesForWhomItShould(t *testing.T) {
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
		holds       bool
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
		if (err == nil) != c.holds {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Every file that a process is told to read has been written, and readable by nobody
// else.
func TestWhatTheProcessesReadIsThere(t *testing.T) {
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
		t.Fatalf("%d processes, %v", len(processes), err)
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
				t.Errorf("%s: others may read %s", p.Name, path)
			}
		}
	}
	if read < 15 {
		t.Errorf("only %d paths were found", read)
	}
	if err := n.prepare(); err == nil {
		t.Error("a folder is prepared over a former one")
	}
}

func TestMakeCgroups_SharesOfTheCPU(t *testing.T) {
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
		t.Errorf("cpu.shares is %q (%v), want 8192", got, err)
	}
	if _, err := os.Stat(filepath.Join(at, "pids", cgroup, "cpu.shares")); err == nil {
		t.Error("cpu.shares is written where the controller has none")
	}
}
