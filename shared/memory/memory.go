// Package memory tells how much of it this process may use. What a stranger can make a
// process keep is bounded by that: hashes in package password, connections in package
// serve. Beyond the limit the kernel ends the process, and every request in it.
package memory

import (
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// Limit returns how many bytes this process may use: the least of GOMEMLIMIT and what
// its control group grants. Where neither is set, as on a developer's machine, that is
// math.MaxInt64.
func Limit() int64 { return limit(os.DirFS("/")) }

// limit asks the control group, version 2 or 1. A container sees its own at the root.
func limit(root fs.FS) int64 {
	least := debug.SetMemoryLimit(-1)
	for _, name := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		// "max" is no number: no limit. Version 1 says 2⁶³ less a page for the same.
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			least = min(least, n)
		}
	}
	return least
}
