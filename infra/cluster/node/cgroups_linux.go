package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const cgroups = "/sys/fs/cgroup" // the mount point on every host

// unified reports whether the host has only cgroups version 2.
func unified(at string) bool {
	_, err := os.Stat(filepath.Join(at, "cgroup.controllers"))
	return err == nil
}

// hierarchies returns the roots of the host's cgroups: the root of version 2, or one per
// controller in version 1.
func hierarchies(at string) (roots []string, err error) {
	if unified(at) {
		return []string{at}, nil
	}
	entries, err := os.ReadDir(at)
	for _, entry := range entries {
		if entry.IsDir() {
			roots = append(roots, filepath.Join(at, entry.Name()))
		}
	}
	if err == nil && len(roots) == 0 {
		err = errors.New("found no cgroups at " + at)
	}
	return roots, err
}

// kubeletControllers are the controllers that the kubelet requires in its group if the
// host has them. Source: cgroup_v2_manager_linux.go of Kubernetes.
var kubeletControllers = []string{"cpu", "cpuset", "hugetlb", "memory", "pids"}

// undelegated returns the controllers that the root does not delegate to its groups, in
// version 2. For example, systemd never delegates hugetlb.
func undelegated(at string) (controllers []string, err error) {
	if !unified(at) {
		return nil, nil
	}
	has, err := words(at, "cgroup.controllers")
	if err != nil {
		return nil, err
	}
	enabled, err := delegated(at)
	for _, c := range kubeletControllers {
		if slices.Contains(has, c) && !slices.Contains(enabled, c) {
			controllers = append(controllers, c)
		}
	}
	return controllers, err
}

// delegated returns the controllers that the root delegates.
func delegated(at string) (controllers []string, err error) {
	if !unified(at) {
		return nil, nil
	}
	return words(at, "cgroup.subtree_control")
}

func words(at, file string) ([]string, error) {
	content, err := os.ReadFile(filepath.Join(at, file))
	return strings.Fields(string(content)), err
}

// cpuShares give the pods eight times the CPU share of a process of the host, in version
// 1 and in version 2. By default all pods together get the share of one process. During
// a build, a pod would then take longer to start than a request may take.
var cpuShares = map[string]string{"cpu.shares": "8192", "cpu.weight": "800"}

// checkCgroups returns an error if this host does not allow new groups. It runs before
// the long build.
func checkCgroups(at string) error {
	roots, err := hierarchies(at)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	for _, root := range roots {
		const writable = 2
		if err := syscall.Access(root, writable); err != nil {
			return fmt.Errorf("%w: cannot create a cgroup at %s (%w); a container must be privileged", ErrUnsupported, root, err)
		}
	}
	missing, err := undelegated(at)
	if err != nil || len(missing) == 0 {
		return err
	}
	// The root of a container is an ordinary group, and a group that has processes
	// cannot delegate controllers. The root of the host can, and has no file
	// cgroup.type.
	_, err = os.Stat(filepath.Join(at, "cgroup.type"))
	if processes, _ := words(at, "cgroup.procs"); err == nil && len(processes) > 0 {
		return fmt.Errorf("%w: %s cannot delegate %s because it has processes; in a container, move them to a child group first",
			ErrUnsupported, at, strings.Join(missing, ", "))
	}
	return nil
}

// makeCgroups creates the group in which the kubelet creates the groups of the pods.
func makeCgroups(at string, missing []string) error {
	roots, err := hierarchies(at)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := setDelegation(at, "+", missing); err != nil {
			return err
		}
	}
	for _, root := range roots {
		group := filepath.Join(root, cgroup)
		if err := os.MkdirAll(group, 0o755); err != nil {
			return fmt.Errorf("create a cgroup: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // empty by default in version 1
			if all, err := os.ReadFile(filepath.Join(root, file)); err == nil && filepath.Base(root) != "unified" && root != at {
				if err := os.WriteFile(filepath.Join(group, file), all, 0); err != nil {
					return fmt.Errorf("create a cgroup: %w", err)
				}
			}
		}
		for file, value := range cpuShares {
			file = filepath.Join(group, file)
			if _, err := os.Stat(file); err != nil {
				continue
			}
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				return fmt.Errorf("create a cgroup: %w", err)
			}
		}
	}
	return nil
}

// setDelegation makes the root delegate controllers (+) or stop delegating them (-).
func setDelegation(at, sign string, controllers []string) error {
	change := sign + strings.Join(controllers, " "+sign)
	return os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte(change), 0)
}

// restoreDelegation makes the root delegate only the controllers that it delegated
// before. The kubelet enables all controllers of the host. A controller that another
// group now uses stays enabled.
func restoreDelegation(at string, before []string) error {
	now, err := delegated(at)
	errs := []error{err}
	for _, c := range now { // one by one: another group may use some of them
		if slices.Contains(before, c) {
			continue
		}
		if err := setDelegation(at, "-", []string{c}); err != nil && !errors.Is(err, syscall.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes the group, deepest groups first, and reports whether it is gone.
// A group can be busy for a moment after the end of its last process.
func removeCgroups(at string) (gone bool) {
	roots, _ := hierarchies(at)
	gone = true
	for _, root := range roots {
		var groups []string
		filepath.WalkDir(filepath.Join(root, cgroup), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for _, group := range slices.Backward(groups) {
			gone = syscall.Rmdir(group) == nil && gone
		}
	}
	return gone
}
