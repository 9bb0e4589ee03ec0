package password

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/argon2"

	"ticketing.com/auth/shared/apierror"
)

// A hash in these tests takes 20 ms of the synctest clock and does no work.
const hashTime = 20 * time.Millisecond

// runParallel starts n hashes of memoryKiB at the same time. It returns their errors, and the
// most hashes and the most memory that ran at the same time.
func runParallel(ctx context.Context, l *concurrencyLimit, n int, memoryKiB uint32) (errs []error, parallel, peakKiB int64) {
	var running, used, most, peak atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			release, err := l.acquire(ctx, memoryKiB)
			if err == nil {
				storeMax(&most, running.Add(1))
				storeMax(&peak, used.Add(int64(memoryKiB)))
				time.Sleep(hashTime)
				used.Add(-int64(memoryKiB))
				running.Add(-1)
				release()
			}
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		})
	}
	all.Wait()
	return errs, most.Load(), peak.Load()
}

func storeMax(max *atomic.Int64, n int64) {
	for old := max.Load(); n > old && !max.CompareAndSwap(old, n); old = max.Load() {
	}
}

func count(errs []error, target error) (n int) {
	for _, err := range errs {
		if errors.Is(err, target) {
			n++
		}
	}
	return n
}

func TestConcurrencyLimit_ParallelHashes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newConcurrencyLimit(Config{Concurrency: 3, Queue: 100}, 64, 1)
		errs, parallel, _ := runParallel(t.Context(), l, 30, 64)
		if done := count(errs, nil); parallel != 3 || done != 30 {
			t.Errorf("%d of 30 hashes succeeded, %d at the same time; want 30, 3", done, parallel)
		}
	})
}

func TestConcurrencyLimit_QueueFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newConcurrencyLimit(Config{Concurrency: 2, Queue: 5, Wait: 3 * time.Second}, 64, 1)
		release := fill(t, l)
		for range 5 {
			go func() {
				if release, err := l.acquire(t.Context(), 64); err == nil {
					release()
				}
			}()
		}
		synctest.Wait()
		h := &Hasher{limit: func() *concurrencyLimit { return l }}
		if err := h.Available(); !errors.Is(err, ErrBusy) {
			t.Errorf("Available with a full queue: got %v, want %v", err, ErrBusy)
		}
		began := time.Now()
		_, err := l.acquire(t.Context(), 64)
		if !errors.Is(err, ErrBusy) || time.Since(began) != 0 {
			t.Fatalf("acquire with a full queue: got %v after %v, want %v at once", err, time.Since(began), ErrBusy)
		}
		e, ok := errors.AsType[*apierror.Error](err)
		if !ok {
			t.Fatalf("error is a %T, want an *apierror.Error", err)
		}
		want := []apierror.Header{{Name: "Retry-After", Value: "3"}}
		if got := e.Headers(); e.Status() != 503 || !slices.Equal(got, want) {
			t.Errorf("status %d, headers %v; want 503, %v", e.Status(), got, want)
		}
		release()
		synctest.Wait()
		if err := h.Available(); err != nil {
			t.Errorf("Available with an empty queue: %v", err)
		}
		checkFree(t, l)
	})
}

// fill takes all slots.
func fill(t *testing.T, l *concurrencyLimit) (release func()) {
	t.Helper()
	release, err := l.acquire(t.Context(), uint32(l.size))
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// checkFree fails the test unless all slots are free and the queue is empty.
func checkFree(t *testing.T, l *concurrencyLimit) {
	t.Helper()
	if n := l.queued.Load(); n != 0 {
		t.Errorf("%d requests are queued, want 0", n)
	}
	if !l.slots.TryAcquire(l.size) {
		t.Error("slots are taken, want all free")
	}
}

func TestConcurrencyLimit_WaitExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newConcurrencyLimit(Config{Concurrency: 1, Wait: time.Second}, 64, 1)
		release := fill(t, l)
		began := time.Now()
		_, err := l.acquire(t.Context(), 64)
		if waited := time.Since(began); !errors.Is(err, ErrBusy) || waited != time.Second {
			t.Errorf("got %v after %v, want %v after 1s", err, waited, ErrBusy)
		}
		release()
		checkFree(t, l)
	})
}

func TestConcurrencyLimit_ContextEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		context func(context.Context) (context.Context, context.CancelFunc)
		want    error
	}{
		"cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(100*time.Millisecond, cancel)
			return ctx, cancel
		}, context.Canceled},
		"expired": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 100*time.Millisecond)
		}, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newConcurrencyLimit(Config{Concurrency: 1}, 64, 1)
				release := fill(t, l)
				ctx, cancel := tt.context(t.Context())
				defer cancel()
				began := time.Now()
				_, err := l.acquire(ctx, 64)
				if waited := time.Since(began); !errors.Is(err, tt.want) || errors.Is(err, ErrBusy) || waited != 100*time.Millisecond {
					t.Errorf("got %v after %v, want %v after 100ms", err, waited, tt.want)
				}
				if n := l.queued.Load(); n != 0 {
					t.Errorf("%d requests are queued, want 0", n)
				}
				release()
				checkFree(t, l)
				// A request whose context has ended takes no slot, even a free one.
				if _, err := l.acquire(ctx, 64); !errors.Is(err, tt.want) {
					t.Errorf("with free slots: got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestConcurrencyLimit_HashMemory(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		memory   uint32
		parallel int64
	}{
		"a small hash takes one slot":           {4, 4},
		"the configured memory":                 {64, 4},
		"more memory than one slot":             {80, 3},
		"twice the memory":                      {128, 2},
		"the memory of all slots":               {256, 1},
		"a hash larger than all slots is alone": {1024, 1},
		"half of all slots and one KiB":         {129, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newConcurrencyLimit(Config{Concurrency: 4, Queue: 100}, 64, 1)
				errs, parallel, peak := runParallel(t.Context(), l, 20, tt.memory)
				if count(errs, nil) != 20 || parallel != tt.parallel {
					t.Errorf("%d at the same time, want %d; errors %v", parallel, tt.parallel, errs)
				}
				if tt.memory <= 256 && peak > 256 {
					t.Errorf("%d KiB at the same time, want at most 256", peak)
				}
				checkFree(t, l)
			})
		})
	}
}

// A steady flow of small hashes cannot overtake a large hash forever.
func TestConcurrencyLimit_QueueOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newConcurrencyLimit(Config{Concurrency: 2, Queue: 1000}, 64, 1)
		release, err := l.acquire(t.Context(), 64)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 2)
		go func() {
			release, _ := l.acquire(t.Context(), 128)
			order <- "large"
			release()
		}()
		synctest.Wait()
		go func() {
			release, _ := l.acquire(t.Context(), 64) // one slot is free
			order <- "small"
			release()
		}()
		synctest.Wait()
		release()
		if first := <-order; first != "large" {
			t.Errorf("the %s hash ran first, want the large one", first)
		}
		<-order
	})
}

// Hashes run, are rejected and time out at the same time. Each request ends, no slot leaks,
// and the limit holds.
func TestConcurrencyLimit_MixedLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newConcurrencyLimit(Config{Concurrency: 2, Queue: 20, Wait: 100 * time.Millisecond}, 64, 1)
		var all sync.WaitGroup
		var served, busy, expired, running, most atomic.Int64
		const requests = 1000
		for i := range requests {
			all.Go(func() {
				time.Sleep(time.Duration(i%50) * 3 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%7)*20*time.Millisecond)
				defer cancel()
				release, err := l.acquire(ctx, []uint32{4, 64, 100, 500}[i%4])
				switch {
				case err == nil:
					storeMax(&most, running.Add(1))
					time.Sleep(hashTime)
					running.Add(-1)
					release()
					served.Add(1)
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					expired.Add(1)
				}
			})
		}
		all.Wait()
		if served.Load()+busy.Load()+expired.Load() != requests || served.Load() == 0 || busy.Load() == 0 || expired.Load() == 0 {
			t.Errorf("%d served, %d busy, %d expired; want some of each and %d in all", served.Load(), busy.Load(), expired.Load(), requests)
		}
		if most.Load() > 2 {
			t.Errorf("%d hashes at the same time, want at most 2", most.Load())
		}
		checkFree(t, l)
	})
}

func TestHasher_ParallelHashes(t *testing.T) {
	t.Parallel()
	h := New(Config{MemoryKiB: 64, Time: 1, Concurrency: 2, Queue: 1000, Wait: time.Minute})
	var running, most, made atomic.Int64
	h.argon2id = func(password, salt []byte, time, memoryKiB uint32, threads uint8, keyLength uint32) []byte {
		storeMax(&most, running.Add(1))
		defer running.Add(-1)
		made.Add(1)
		runtime.Gosched()
		return argon2.IDKey(password, salt, time, memoryKiB, threads, keyLength)
	}
	stored, err := h.Hash(t.Context(), "password")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 90 {
		all.Go(func() {
			var err error
			switch i % 3 {
			case 0:
				_, err = h.Hash(t.Context(), "password")
			case 1:
				var ok bool
				if ok, _, err = h.Verify(t.Context(), stored, "password"); !ok {
					t.Error("Verify of the right password = false, want true")
				}
			case 2:
				err = h.Decoy(t.Context(), "password")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 91 || most.Load() > 2 {
		t.Errorf("%d hashes, %d at the same time; want 91, at most 2", made.Load(), most.Load())
	}
	checkFree(t, h.limit())
}

func TestHasher_PanicReleasesSlots(t *testing.T) {
	t.Parallel()
	h := New(small)
	h.argon2id = func([]byte, []byte, uint32, uint32, uint8, uint32) []byte { panic("broken") }
	func() {
		defer func() { recover() }()
		h.Decoy(t.Context(), "x")
	}()
	checkFree(t, h.limit())
}

func TestConcurrencyLimit_SizeByCoresAndMemory(t *testing.T) {
	t.Parallel()
	cores := int64(runtime.GOMAXPROCS(0))
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		config  Config
		memory  uint32
		slots   int64
		largest int64 // KiB
	}{
		"3 TiB: one hash per core":              {Config{MemoryLimit: 3 << 40}, 19456, cores, 2<<30 - 24<<10},
		"no limit":                              {Config{MemoryLimit: math.MaxInt64}, 19456, cores, math.MaxInt64/3*2/1024 - 24<<10},
		"the shipped 230 MiB: 128 MiB fit":      {Config{MemoryLimit: 230 * mib}, 19456, min(cores, 6), 132437},
		"128 MiB: three hashes in half":         {Config{MemoryLimit: 128 * mib}, 19456, min(cores, 3), 64 << 10},
		"40 MiB: one":                           {Config{MemoryLimit: 40 * mib}, 19456, 1, 20 << 10},
		"less than a hash needs: one":           {Config{MemoryLimit: 8 * mib}, 19456, 1, 19456},
		"configured":                            {Config{MemoryLimit: 8 * mib, Concurrency: 7}, 19456, 7, 19456},
		"larger hashes, fewer at the same time": {Config{MemoryLimit: 256 * mib}, 128 << 10, 1, 150186},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newConcurrencyLimit(tt.config, tt.memory, 2)
			if l.size != tt.slots*int64(tt.memory) || l.largest != tt.largest || l.maxWait != defaultWait {
				t.Errorf("size %d, largest %d, wait %v; want %d, %d, %v", l.size, l.largest, l.maxWait, tt.slots*int64(tt.memory), tt.largest, defaultWait)
			}
		})
	}
}

func TestConcurrencyLimit_QueueLength(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config         Config
		memory, passes uint32
		queue          int64
	}{
		"32 hashes of 25 ms in 800 ms":      {Config{Concurrency: 1}, 19456, 2, 32},
		"two slots: twice as many":          {Config{Concurrency: 2}, 19456, 2, 64},
		"half the wait: half as many":       {Config{Concurrency: 1, Wait: 400 * time.Millisecond}, 19456, 2, 16},
		"twice the work: half as many":      {Config{Concurrency: 1}, 19456, 4, 16},
		"the upper limit":                   {Config{Concurrency: 64}, 64, 1, 1024},
		"one per slot for a very slow hash": {Config{Concurrency: 2}, 1 << 20, 16, 2},
		"configured":                        {Config{Concurrency: 1, Queue: 7}, 19456, 2, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if l := newConcurrencyLimit(tt.config, tt.memory, tt.passes); l.queueLimit != tt.queue {
				t.Errorf("queue limit %d, want %d", l.queueLimit, tt.queue)
			}
		})
	}
}

// BenchmarkOverload sends ten times as many parallel requests as there are slots. A rejected
// request tries again after 10 ms. It reports the hashes per second, those of argon2 without
// the limit and with one goroutine per core, and their ratio.
func BenchmarkOverload(b *testing.B) {
	cores := runtime.GOMAXPROCS(0)
	for _, bb := range []struct {
		name  string
		queue int
	}{
		{"all are queued", 0}, {"most are rejected", cores},
	} {
		b.Run(bb.name, func(b *testing.B) {
			h := New(Config{Concurrency: cores, Queue: bb.queue})
			var busy atomic.Int64
			salt := make([]byte, saltLength)
			var over, bare time.Duration
			const rounds = 5 // alternating, so that other load on the machine affects both
			for range rounds {
				over += took(b.N, 10*cores, func() {
					for errors.Is(h.Decoy(b.Context(), "correct horse"), ErrBusy) {
						busy.Add(1)
						time.Sleep(10 * time.Millisecond)
					}
				})
				bare += took(b.N, cores, func() {
					argon2.IDKey([]byte("correct horse"), salt, defaultTime, defaultMemoryKiB, 1, keyLength)
				})
			}
			hashes := float64(rounds * b.N)
			b.ReportMetric(hashes/over.Seconds(), "hashes/s")
			b.ReportMetric(hashes/bare.Seconds(), "bare/s")
			b.ReportMetric(bare.Seconds()/over.Seconds(), "ratio")
			b.ReportMetric(float64(busy.Load())/hashes, "busy/hash")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// took runs work n times in the given number of goroutines, and returns the duration.
func took(n, goroutines int, work func()) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	began := time.Now()
	for range goroutines {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				work()
			}
		})
	}
	all.Wait()
	return time.Since(began)
}
