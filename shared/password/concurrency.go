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

// ErrBusy is the cause of the API error for a request that finds no slot.
var ErrBusy = errors.New("too many password hashes at the same time")

// A concurrencyLimit bounds how many hashes run at the same time.
//
// A slot is the memory of one configured hash; the limit counts it in KiB. There are at most
// as many slots as cores, since one more hash would only slow down all others. There are at
// most as many as fit the memory limit, because above it the kernel kills the process and
// every request in it. An imported hash takes the memory that it needs: at least one slot and
// at most all slots, so that it runs alone.
//
// A request without a slot waits in a queue, first come, first served. So small hashes cannot
// overtake a large one forever. The queue is only as long as the limit can serve within
// maxWait. The limit rejects a further request at once, and a queued request after maxWait. A
// queued request costs one goroutine and its body.
type concurrencyLimit struct {
	slots      *semaphore.Weighted
	size       int64 // KiB of all slots
	slotSize   int64 // KiB of one slot
	largest    int64 // KiB of the largest hash that may run, alone
	maxWait    time.Duration
	queueLimit int64
	queued     atomic.Int64
}

// perKiB is the assumed time of one pass over one KiB: 25 ms for a hash of the default size.
// It decides the length of the queue. One core of a small server takes 20 ms; the rest is
// margin for the last request of the queue. On slower cores, maxWait ends the wait instead.
const perKiB = 25 * time.Millisecond / (defaultMemoryKiB * defaultTime)

// maxQueue bounds the memory of queued requests: 1024 requests of at most 16 KiB.
const maxQueue = 1024

func newConcurrencyLimit(c Config, memoryKiB, passes uint32) *concurrencyLimit {
	limit := c.MemoryLimit
	if limit == 0 {
		limit = memory.Limit()
	}
	// Half of the limit is for hashes, the other half for their garbage. The collector runs
	// when the garbage has the size of the live heap (GOGC=100).
	share := max(limit/2/1024, int64(memoryKiB))
	slots := c.Concurrency
	if slots == 0 {
		slots = int(min(int64(runtime.GOMAXPROCS(0)), share/int64(memoryKiB)))
	}
	wait := cmp.Or(c.Wait, defaultWait)
	queue := c.Queue
	if queue == 0 {
		each := max(perKiB*time.Duration(memoryKiB)*time.Duration(passes), 1)
		queue = min(max(int(wait/each), 1)*slots, maxQueue)
	}
	size := int64(slots) * int64(memoryKiB)
	return &concurrencyLimit{
		slots:      semaphore.NewWeighted(size),
		size:       size,
		slotSize:   int64(memoryKiB),
		largest:    max(share, (limit-limit/3-baseMemory)/1024),
		maxWait:    wait,
		queueLimit: int64(queue),
	}
}

// baseMemory is the memory, in bytes, of a function without its hashes and its connections.
// Connections may use a third of the limit (see package httpserver).
const baseMemory = 24 << 20

// An OverMemory is the error for a stored hash that needs more memory than one hash may
// have in this process.
type OverMemory struct{ needKiB, limitKiB int64 }

func (e *OverMemory) Error() string {
	return fmt.Sprintf("the stored password hash needs %d MiB, and one hash may use %d MiB here: raise the memory limit of this function and its GOMEMLIMIT",
		(e.needKiB+1023)/1024, e.limitKiB/1024)
}

// fits returns an *OverMemory for a hash that needs more memory than one hash may have.
func (l *concurrencyLimit) fits(memoryKiB uint32) error {
	if int64(memoryKiB) > l.largest {
		return &OverMemory{int64(memoryKiB), l.largest}
	}
	return nil
}

// acquire waits for the slots of a hash and takes them. After a nil error, the hash must call
// release.
func (l *concurrencyLimit) acquire(ctx context.Context, memoryKiB uint32) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := min(max(int64(memoryKiB), l.slotSize), l.size)
	release = func() { l.slots.Release(n) }
	if l.slots.TryAcquire(n) {
		return release, nil
	}
	defer l.queued.Add(-1)
	if l.queued.Add(1) > l.queueLimit {
		return nil, l.busy()
	}
	waiting, cancel := context.WithTimeout(ctx, l.maxWait)
	defer cancel()
	switch err := l.slots.Acquire(waiting, n); {
	case err == nil:
		return release, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, l.busy()
	}
}

// queueFull reports whether acquire would reject the next request at once.
func (l *concurrencyLimit) queueFull() bool { return l.queued.Load() >= l.queueLimit }

func (l *concurrencyLimit) busy() error { return apierror.Busy(l.maxWait, ErrBusy) }
