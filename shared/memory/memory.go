// Package memory reports the memory limit of the process. Two limits follow from it: the
// number of concurrent hashes in package password, and of connections in package
// httpserver. Without them, an attacker could exhaust the memory. The kernel then kills the
// process with all its in-flight requests.
package memory

import (
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// Limit returns the memory limit of the process in bytes: the lower of GOMEMLIMIT and the
// limit of its control group. It returns math.MaxInt64 if neither is set, as on a
// developer's machine.
func Limit() int64 { return limit(os.DirFS("/")) }

// limit reads the files of control groups, versions 2 and 1. In a container, the root of
// this file system is its own group.
func limit(root fs.FS) int64 {
	least := debug.SetMemoryLimit(-1)
	for _, name := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		// Without a limit, version 2 has "max", and version 1 has 2⁶³ minus a page.
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			least = min(least, n)
		}
	}
	return least
}
