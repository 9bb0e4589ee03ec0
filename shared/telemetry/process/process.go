// Package process describes the process itself.
package process

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// Age returns the time since the start of the process. Linux reports it in steps of 10 ms. On other
// systems it is the time since began.
func Age(began time.Time) time.Duration {
	since := time.Since(began)
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return since
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return since
	}
	// The second field, the name of the program, can contain spaces and parentheses.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	up := bytes.Fields(uptime)
	if len(fields) < 20 || len(up) == 0 {
		return since
	}
	const ticks = 100                                          // USER_HZ, the same on all architectures of Go
	started, err := strconv.ParseFloat(string(fields[19]), 64) // field 22, starttime
	now, err2 := strconv.ParseFloat(string(up[0]), 64)
	if err != nil || err2 != nil {
		return since
	}
	return max(since, time.Duration((now-started/ticks)*float64(time.Second)))
}
