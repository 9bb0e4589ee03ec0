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

// requiredPrograms maps the programs of the host that the node uses to their Debian
// packages.
var requiredPrograms = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "runc": "runc", "etcd": "etcd-server", "nft": "nftables",
	"iptables": "iptables", "ipset": "ipset", plugins + "/ptp": "containernetworking-plugins", "ip": "iproute2", "nsenter": "util-linux",
}

// capabilities maps those of root's capabilities that a container may lack to their
// bits.
var capabilities = map[string]int{"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_MKNOD": 27, "CAP_SYS_CHROOT": 18}

// ErrUnsupported means that a node cannot run on this host.
var ErrUnsupported = errors.New("no cluster can run here")

// EnsureRequirements returns an error if the host lacks a requirement. With install set,
// it installs missing packages.
func EnsureRequirements(ctx context.Context, install bool, progress io.Writer) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: run it as root: it creates namespaces, links and cgroups", ErrUnsupported)
	}
	if missing := missingCapabilities(); len(missing) > 0 {
		return fmt.Errorf("%w: root lacks %s; a container must be privileged", ErrUnsupported, strings.Join(missing, ", "))
	}
	if err := checkCgroups(cgroups); err != nil {
		return err
	}
	if err := finishInstall(policy); err != nil {
		return err
	}
	packages := missingPackages()
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("programs of these Debian packages are missing: %s", strings.Join(packages, " "))
	}
	if !install {
		return fmt.Errorf("packages are missing: run \"apt-get install -y %s\", or use -install", strings.Join(packages, " "))
	}
	if err := aptInstall(ctx, policy, packages, progress); err != nil {
		return err
	}
	if still := missingPackages(); len(still) > 0 {
		return fmt.Errorf("programs of the installed packages %s are not in PATH %s", strings.Join(still, " "), os.Getenv("PATH"))
	}
	return nil
}

// packageServices maps packages to the services that they would start, now and at each
// boot. The node runs its own instances.
var packageServices = map[string]string{"containerd": "containerd.service", "etcd-server": "etcd.service"}

// policy is the script that Debian's packages call to find out if they may start services.
const policy = "/usr/sbin/policy-rc.d"

// policyScript is the beginning of this program's policy script. The names of the
// packages follow it.
const policyScript = "#!/bin/sh\nexit 101\n# written by infra/cluster during the installation of "

// aptInstall installs packages without starting their services.
func aptInstall(ctx context.Context, policy string, packages []string, progress io.Writer) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	lockFile, err := holdName(installing) // apt-get inherits it and continues if this process is killed
	if err != nil {
		return fmt.Errorf("apt-get of a killed up is still running: wait until it ends (%w)", err)
	}
	defer lockFile.Close()
	if _, err := os.Lstat(policy); err != nil { // an existing policy applies instead
		if err := os.WriteFile(policy, []byte(policyScript+strings.Join(packages, " ")+"\n"), 0o755); err != nil {
			return err
		}
		defer os.Remove(policy)
	}
	defer func() { err = errors.Join(err, disable(packages)) }()
	defer context.AfterFunc(ctx, func() {
		fmt.Fprintln(progress, "waiting for apt-get: an interrupted installation would break the host's packages")
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
		cmd.ExtraFiles = []*os.File{lockFile}
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// installing is the name that is bound during an installation.
const installing = "@ticketing-auth-installing"

// FinishInstall performs the last steps of an installation that was killed.
func FinishInstall() error { return finishInstall(policy) }

func finishInstall(policy string) error {
	content, err := os.ReadFile(policy)
	packages, own := strings.CutPrefix(string(content), policyScript)
	if err != nil || !own {
		return nil
	}
	lockFile, err := holdName(installing)
	if err != nil {
		return fmt.Errorf("apt-get of a killed up is still running: wait until it ends (%w)", err)
	}
	defer lockFile.Close()
	if err := disable(strings.Fields(packages)); err != nil {
		return err
	}
	return os.Remove(policy)
}

// disable prevents the services of packages from starting at the next boot.
func disable(packages []string) error {
	if _, err := exec.LookPath("systemctl"); err != nil {
		return nil // no systemd to start them
	}
	for _, p := range packages {
		if packageServices[p] == "" || exec.Command("systemctl", "is-enabled", packageServices[p]).Run() != nil { // or not installed
			continue
		}
		if out, err := exec.Command("systemctl", "disable", packageServices[p]).CombinedOutput(); err != nil {
			return fmt.Errorf("systemctl disable %s: %w\n%s", packageServices[p], err, out)
		}
	}
	return nil
}

func missingPackages() (packages []string) {
	for program, packaged := range requiredPrograms {
		if _, err := exec.LookPath(program); err != nil && !slices.Contains(packages, packaged) {
			packages = append(packages, packaged)
		}
	}
	slices.Sort(packages)
	return packages
}

func missingCapabilities() (names []string) {
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

// ResolveDir checks a folder for the node's files and returns its path without symbolic
// links. The node deletes everything in that folder, so the path must be unambiguous.
func ResolveDir(dir string) (string, error) {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || strings.Count(dir, "/") < 2 {
		return "", fmt.Errorf("-dir %s: it must be an absolute path of a separate folder, because its content is deleted", dir)
	}
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		return "", fmt.Errorf("-dir %s: it is not a folder", dir)
	}
	resolved, err := resolvePath(dir)
	if err != nil {
		return "", fmt.Errorf("-dir %s: %w", dir, err)
	}
	if strings.ContainsFunc(resolved, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+", r)
	}) {
		return "", fmt.Errorf("-dir %s: it must contain only letters, digits and /._-+, because a shell evaluates the output of status", resolved)
	}
	for _, hidden := range privateDirs {
		if resolved == hidden || strings.HasPrefix(resolved, hidden+"/") {
			return "", fmt.Errorf("-dir %s: the cluster mounts its own %s: choose a folder outside it", dir, hidden)
		}
	}
	if info, err := os.Stat(filepath.Dir(resolved)); err != nil || !info.IsDir() {
		return "", fmt.Errorf("-dir %s: its parent folder does not exist", dir)
	}
	return resolved, nil
}

// resolvePath resolves symbolic links, also in a path whose last elements do not exist.
func resolvePath(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return resolved, err
	}
	parent, err := resolvePath(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}
