package password

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/memory"
)

// ErrBusy is the cause of the fault that turns a caller away.
var ErrBusy = errors.New("too many password hashes at once")

// A gate lets in as many hashes as the machine has room for.
//
// Room is counted in KiB. There is room for as many of the configured hashes as
// there are cores, since one more would only make all of them slower, and as fit
// the memory: if that is exceeded the kernel ends the process, and every request
// in it. An imported hash takes what it needs, at least the room of one and at most
// all of it; then it runs alone.
//
// Who finds no room waits in line, first come first served, so that a large hash
// is not passed by small ones for ever. The line is as long as Wait can serve and
// no longer: a caller beyond that would wait in vain, and is better told at once.
// One who has waited that long is told the same. A waiting caller costs a
// goroutine and its request, no more.
type gate struct {
	room    *semaphore.Weighted
	size    int64 // KiB in all
	least   int64 // KiB that one hash takes at least
	largest int64 // KiB of the largest hash that may run, alone
	wait    time.Duration
	line    int64 // how many may wait
	inLine  atomic.Int64
}

// The time that one pass over a KiB takes, to reckon how many hashes Wait can
// serve: 25 ms for a hash of the default size. It was 20 ms on one core of a small
// server; the rest is margin, so that the last in line is still served. Where
// cores are slower, the wait ends the line instead.
const perKiB = 25 * time.Millisecond / (defaultMemoryKiB * defaultTime)

// maxLine bounds the memory of those who wait: 1024 requests of at most 16 KiB.
const maxLine = 1024

func newGate(c Config, memoryKiB, passes uint32) *gate {
	limit := c.MemoryLimit
	if limit == 0 {
		limit = memory.Limit()
	}
	// Half of the limit is for hashes, the other for their garbage: the collector
	// lets dead memory grow as large as the living (GOGC=100) before it runs.
	share := max(limit/2/1024, int64(memoryKiB))
	atOnce := c.Concurrency
	if atOnce == 0 {
		atOnce = int(min(int64(runtime.GOMAXPROCS(0)), share/int64(memoryKiB)))
	}
	wait := cmp.Or(c.Wait, defaultWait)
	line := c.Queue
	if line == 0 {
		each := max(perKiB*time.Duration(memoryKiB)*time.Duration(passes), 1)
		line = min(max(int(wait/each), 1)*atOnce, maxLine)
	}
	size := int64(atOnce) * int64(memoryKiB)
	return &gate{
		room:    semaphore.NewWeighted(size),
		size:    size,
		least:   int64(memoryKiB),
		largest: max(share, (limit-limit/3-process)/1024),
		wait:    wait,
		line:    int64(line),
	}
}

// process is the memory, in bytes, that a function has beside its hashes and its
// connections, which may have a third of the limit (see package serve).
const process = 24 << 20

// An OverMemory is the error for a stored hash that needs more memory than one hash may
// have in this process.
type OverMemory struct{ needKiB, limitKiB int64 }

func (e *OverMemory) Error() string {
	return fmt.Sprintf("the stored password hash needs %d MiB, and one hash may use %d MiB here: raise the memory limit of this function and its GOMEMLIMIT",
		(e.needKiB+1023)/1024, e.limitKiB/1024)
}

// fits returns an *OverMemory for a hash that needs more memory than one may have.
func (g *gate) fits(memoryKiB uint32) error {
	if int64(memoryKiB) > g.largest {
		return &OverMemory{int64(memoryKiB), g.largest}
	}
	return nil
}

// enter waits for room and takes it. Who is let in must call leave.
func (g *gate) enter(ctx context.Context, memoryKiB uint32) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := min(max(int64(memoryKiB), g.least), g.size)
	leave = func() { g.room.Release(n) }
	if g.room.TryAcquire(n) {
		return leave, nil
	}
	defer g.inLine.Add(-1)
	if g.inLine.Add(1) > g.line {
		return nil, g.busy()
	}
	patience, cancel := context.WithTimeout(ctx, g.wait)
	defer cancel()
	switch err := g.room.Acquire(patience, n); {
	case err == nil:
		return leave, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, g.busy()
	}
}

// isFull tells whether enter would turn the next one away at once.
func (g *gate) isFull() bool { return g.inLine.Load() >= g.line }

func (g *gate) busy() error { return apierror.Busy(g.wait, ErrBusy) }
