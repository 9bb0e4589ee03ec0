//go:build linux

package node

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What needs root, and a whole cluster, is played by infra/e2e/scripts.

func TestAFolderThatHoldsWhatIsNotOursIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "theirs")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Node{Dir: dir}).Stop(); err == nil || !strings.Contains(err.Error(), "not empty, and no cluster's") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
}

func TestStoppingWhatWasNeverStartedIsHarmless(t *testing.T) {
	if err := (Node{Dir: filepath.Join(t.TempDir(), "none")}).Stop(); err != nil {
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
	for started, up := range map[string]bool{started: true, started + "1": false} {
		if err := n.write(record{PID: child.Process.Pid, Started: started}); err != nil {
			t.Fatal(err)
		}
		if n.Up() != up {
			t.Errorf("started at %s: up is %t", started, !up)
		}
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
	for dir, says := range map[string]string{
		"/var/lib/ticketing-auth-cluster": "",
		"/run/cluster":                    "inside, /run is another",
		"/var/log":                        "inside, /var/log is another",
		"cluster":                         "must be an absolute path",
		"/":                               "must be an absolute path",
		"/home":                           "must be an absolute path",
		"/var/lib/../lib/cluster":         "must be an absolute path",
	} {
		if err := Root(dir); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", dir, err)
		}
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
	if err := json.Unmarshal(plan, &processes); err != nil || len(processes) != 7 {
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
