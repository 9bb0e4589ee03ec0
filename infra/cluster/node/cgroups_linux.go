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

const cgroups = "/sys/fs/cgroup" // where every host has them

// unified reports whether the host has cgroups of version 2 alone.
func unified(at string) bool {
	_, err := os.Stat(filepath.Join(at, "cgroup.controllers"))
	return err == nil
}

// hierarchies are the roots of the host's cgroups: one a controller in version 1, and
// the one of version 2.
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
		err = errors.New("there are no cgroups at " + at)
	}
	return roots, err
}

// wanted are the controllers that the kubelet wants its group to have, if the host has
// them. (Its cgroup_v2_manager_linux.go says so.)
var wanted = []string{"cpu", "cpuset", "hugetlb", "memory", "pids"}

// notHanded are those which the root does not hand down to its groups, in version 2.
// systemd, for one, never does so with hugetlb.
func notHanded(at string) (controllers []string, err error) {
	if !unified(at) {
		return nil, nil
	}
	has, err := words(at, "cgroup.controllers")
	if err != nil {
		return nil, err
	}
	down, err := handed(at)
	for _, c := range wanted {
		if slices.Contains(has, c) && !slices.Contains(down, c) {
			controllers = append(controllers, c)
		}
	}
	return controllers, err
}

// handed are those which it does hand down.
func handed(at string) (controllers []string, err error) {
	if !unified(at) {
		return nil, nil
	}
	return words(at, "cgroup.subtree_control")
}

func words(at, file string) ([]string, error) {
	content, err := os.ReadFile(filepath.Join(at, file))
	return strings.Fields(string(content)), err
}

// shares give the pods eight times the CPU of a process of the host, in version 1 and in
// version 2. By default all pods together get as much as one process, and beside a build a
// pod takes longer to start than a request may.
var shares = map[string]string{"cpu.shares": "8192", "cpu.weight": "800"}

// groupable is an error if no group can be made here, which is to be known before a
// cluster is built.
func groupable(at string) error {
	roots, err := hierarchies(at)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnable, err)
	}
	for _, root := range roots {
		const writable = 2
		if err := syscall.Access(root, writable); err != nil {
			return fmt.Errorf("%w: no cgroup can be made at %s (%w); in a container, it must be a privileged one", ErrUnable, root, err)
		}
	}
	missing, err := notHanded(at)
	if err != nil || len(missing) == 0 {
		return err
	}
	// A container's root is a group like others, and those which have processes hand
	// nothing down. The host's own root, which may, has no type.
	_, err = os.Stat(filepath.Join(at, "cgroup.type"))
	if held, _ := words(at, "cgroup.procs"); err == nil && len(held) > 0 {
		return fmt.Errorf("%w: %s cannot hand down %s, since processes are in it; in a container, move them to a group below it first",
			ErrUnable, at, strings.Join(missing, ", "))
	}
	return nil
}

// makeCgroups makes the group in which the kubelet makes those of the pods.
func makeCgroups(at string, toHand []string) error {
	roots, err := hierarchies(at)
	if err != nil {
		return err
	}
	if len(toHand) > 0 {
		if err := handDown(at, "+", toHand); err != nil {
			return err
		}
	}
	for _, root := range roots {
		group := filepath.Join(root, cgroup)
		if err := os.MkdirAll(group, 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // version 1 begins with none
			if all, err := os.ReadFile(filepath.Join(root, file)); err == nil && filepath.Base(root) != "unified" && root != at {
				if err := os.WriteFile(filepath.Join(group, file), all, 0); err != nil {
					return fmt.Errorf("make a cgroup: %w", err)
				}
			}
		}
		for file, value := range shares {
			file = filepath.Join(group, file)
			if _, err := os.Stat(file); err != nil {
				continue
			}
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				return fmt.Errorf("make a cgroup: %w", err)
			}
		}
	}
	return nil
}

// handDown has the root hand controllers down (+), or no longer (-).
func handDown(at, sign string, controllers []string) error {
	order := sign + strings.Join(controllers, " "+sign)
	return os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte(order), 0)
}

// handDownOnly has the root hand down what it did before, and nothing more: the kubelet has
// it hand down whatever the host has. What somebody else has come to need stays.
func handDownOnly(at string, before []string) error {
	now, err := handed(at)
	faults := []error{err}
	for _, c := range now { // one by one: another may be needed
		if slices.Contains(before, c) {
			continue
		}
		if err := handDown(at, "-", []string{c}); err != nil && !errors.Is(err, syscall.EBUSY) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// removeCgroups reports whether the group is gone, deepest groups first. A group whose
// last process has just died may be busy for a moment.
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
