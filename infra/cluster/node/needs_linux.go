package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
)

// needed are the programs that the node has from its host, and the Debian package of
// each.
var needed = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "runc": "runc", "etcd": "etcd-server", "nft": "nftables",
	"iptables": "iptables", "ipset": "ipset", plugins + "/ptp": "containernetworking-plugins", "ip": "iproute2", "nsenter": "util-linux",
}

// capabilities are those of root that a container's root may lack, by their bits.
var capabilities = map[string]int{"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_MKNOD": 27, "CAP_SYS_CHROOT": 18}

// ErrUnable is what keeps a node from running on this host at all.
var ErrUnable = errors.New("no cluster can run here")

// Needs says in one sentence what the host lacks. What packages would mend, it installs
// if it may.
func Needs(ctx context.Context, install bool, progress io.Writer) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it must be root, to make namespaces, links and cgroups", ErrUnable)
	}
	if lacking := lacks(); len(lacking) > 0 {
		return fmt.Errorf("%w: root lacks %s here; in a container, it must be a privileged one", ErrUnable, strings.Join(lacking, ", "))
	}
	if err := groupable(cgroups); err != nil {
		return err
	}
	if err := finishInstall(policy); err != nil {
		return err
	}
	packages := missing()
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("programs are missing, which Debian has in these packages: %s", strings.Join(packages, " "))
	}
	if !install {
		return fmt.Errorf("packages are missing: apt-get install -y %s (or start with -install)", strings.Join(packages, " "))
	}
	if err := apt(ctx, policy, packages, progress); err != nil {
		return err
	}
	if still := missing(); len(still) > 0 {
		return fmt.Errorf("installed, but not found: the programs of %s; PATH is %s", strings.Join(still, " "), os.Getenv("PATH"))
	}
	return nil
}

// daemons are what packages would start, now and at each boot. The node has its own.
var daemons = map[string]string{"containerd": "containerd.service", "etcd-server": "etcd.service"}

// policy is asked by Debian's packages whether they may start services.
const policy = "/usr/sbin/policy-rc.d"

// noServices is what ours says, and whose services it is about.
const noServices = "#!/bin/sh\nexit 101\n# of infra/cluster, while it installs "

// apt installs packages without their services.
func apt(ctx context.Context, policy string, packages []string, progress io.Writer) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	working, err := hold(installing) // apt-get has it too, and goes on if this process is killed
	if err != nil {
		return fmt.Errorf("apt-get is at work, of an up that was killed: wait for it to end (%w)", err)
	}
	defer working.Close()
	if _, err := os.Lstat(policy); err != nil { // or what theirs says holds for us too
		if err := os.WriteFile(policy, []byte(noServices+strings.Join(packages, " ")+"\n"), 0o755); err != nil {
			return err
		}
		defer os.Remove(policy)
	}
	defer func() { err = errors.Join(err, disable(packages)) }()
	defer context.AfterFunc(ctx, func() {
		fmt.Fprintln(progress, "apt-get is waited for, since half an installation is the host's trouble")
	})()
	for _, args := range [][]string{
		{"update", "-qq"}, append([]string{"install", "-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"}, packages...),
	} {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fmt.Fprintln(progress, "apt-get", strings.Join(args, " "))
		cmd := exec.Command("apt-get", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.ExtraFiles = []*os.File{working}
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// installing is held for as long as packages are installed.
const installing = "@ticketing-auth-installing"

// FinishInstall does what an installation does at its end, if one was killed before that.
func FinishInstall() error { return finishInstall(policy) }

func finishInstall(policy string) error {
	content, err := os.ReadFile(policy)
	packages, ours := strings.CutPrefix(string(content), noServices)
	if err != nil || !ours {
		return nil
	}
	working, err := hold(installing)
	if err != nil {
		return fmt.Errorf("apt-get is at work, of an up that was killed: wait for it to end (%w)", err)
	}
	defer working.Close()
	if err := disable(strings.Fields(packages)); err != nil {
		return err
	}
	return os.Remove(policy)
}

// disable keeps the services of packages from starting at the next boot.
func disable(packages []string) error {
	if _, err := exec.LookPath("systemctl"); err != nil {
		return nil // nothing that would start them
	}
	for _, p := range packages {
		if daemons[p] == "" || exec.Command("systemctl", "is-enabled", daemons[p]).Run() != nil { // or it is not there
			continue
		}
		if out, err := exec.Command("systemctl", "disable", daemons[p]).CombinedOutput(); err != nil {
			return fmt.Errorf("systemctl disable %s: %w\n%s", daemons[p], err, out)
		}
	}
	return nil
}

func missing() (packages []string) {
	for program, packaged := range needed {
		if _, err := exec.LookPath(program); err != nil && !slices.Contains(packages, packaged) {
			packages = append(packages, packaged)
		}
	}
	slices.Sort(packages)
	return packages
}

func lacks() (names []string) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return []string{"/proc"}
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	effective, _, _ := strings.Cut(rest, "\n")
	has, _ := strconv.ParseUint(effective, 16, 64)
	for name, bit := range capabilities {
		if has&(1<<bit) == 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Folder answers where a node keeps its files, if it may be there: the folder's true
// path, since what it is emptied of must be what was meant.
func Folder(dir string) (string, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || strings.Count(dir, "/") < 2 {
		return "", fmt.Errorf("-dir %s: it must be an absolute path of a folder of its own, since it is emptied", dir)
	}
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		return "", fmt.Errorf("-dir %s: it is no folder", dir)
	}
	truly, err := truePath(dir)
	if err != nil {
		return "", fmt.Errorf("-dir %s: %w", dir, err)
	}
	if strings.ContainsFunc(truly, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+", r)
	}) {
		return "", fmt.Errorf("-dir %s: there are other characters in it than letters, digits and /._-+, and shells read what status prints", truly)
	}
	for _, hidden := range private {
		if truly == hidden || strings.HasPrefix(truly, hidden+"/") {
			return "", fmt.Errorf("-dir %s: inside, %s is another", dir, hidden)
		}
	}
	if info, err := os.Stat(filepath.Dir(truly)); err != nil || !info.IsDir() {
		return "", fmt.Errorf("-dir %s: there is no folder to make it in", dir)
	}
	return truly, nil
}

// truePath is a path without symbolic links, also if its end is not there yet.
func truePath(path string) (string, error) {
	truly, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return truly, err
	}
	parent, err := truePath(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}
