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

// In these tests a hash takes 20 ms of the bubble's clock and no work at all.
const hashTime = 20 * time.Millisecond

// crowd sends n callers of so much memory each through a gate at once and returns
// how they fared, and how much was in it at most.
func crowd(ctx context.Context, g *gate, n int, memoryKiB uint32) (errs []error, atOnce, peakKiB int64) {
	var inside, used, most, peak atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			leave, err := g.enter(ctx, memoryKiB)
			if err == nil {
				raise(&most, inside.Add(1))
				raise(&peak, used.Add(int64(memoryKiB)))
				time.Sleep(hashTime)
				used.Add(-int64(memoryKiB))
				inside.Add(-1)
				leave()
			}
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		})
	}
	all.Wait()
	return errs, most.Load(), peak.Load()
}

func raise(max *atomic.Int64, n int64) {
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

func TestGateLetsInAsManyAsThereIsRoomFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{Concurrency: 3, Queue: 100}, 64, 1)
		errs, atOnce, _ := crowd(t.Context(), g, 30, 64)
		if done := count(errs, nil); atOnce != 3 || done != 30 {
			t.Errorf("%d at once, %d done", atOnce, done)
		}
	})
}

func TestGateTurnsAwayAtOnceWhenTheLineIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{Concurrency: 2, Queue: 5, Wait: 3 * time.Second}, 64, 1)
		leave := fill(t, g)
		for range 5 {
			go func() {
				if l, err := g.enter(t.Context(), 64); err == nil {
					l()
				}
			}()
		}
		synctest.Wait()
		h := &Hasher{gate: func() *gate { return g }}
		if err := h.Available(); !errors.Is(err, ErrBusy) {
			t.Errorf("Room: %v", err)
		}
		began := time.Now()
		_, err := g.enter(t.Context(), 64)
		if !errors.Is(err, ErrBusy) || time.Since(began) != 0 {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		f, ok := errors.AsType[*apierror.Error](err)
		if !ok {
			t.Fatalf("%T is no fault", err)
		}
		if h := f.Headers(); f.Status() != 503 || !slices.Equal(h, []apierror.Header{{Name: "Retry-After", Value: "3"}}) {
			t.Errorf("%d, %v", f.Status(), h)
		}
		leave()
		synctest.Wait()
		if err := h.Available(); err != nil {
			t.Errorf("Room when all are gone: %v", err)
		}
		empty(t, g)
	})
}

// fill takes all the room.
func fill(t *testing.T, g *gate) (leave func()) {
	t.Helper()
	leave, err := g.enter(t.Context(), uint32(g.size))
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// empty fails unless nobody is in the gate or before it.
func empty(t *testing.T, g *gate) {
	t.Helper()
	if n := g.inLine.Load(); n != 0 {
		t.Errorf("%d still in line", n)
	}
	if !g.room.TryAcquire(g.size) {
		t.Error("room is still taken")
	}
}

func TestGateTurnsAwayWhoWaitedLongEnough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{Concurrency: 1, Wait: time.Second}, 64, 1)
		leave := fill(t, g)
		began := time.Now()
		_, err := g.enter(t.Context(), 64)
		if waited := time.Since(began); !errors.Is(err, ErrBusy) || waited != time.Second {
			t.Errorf("%v after %v", err, waited)
		}
		leave()
		empty(t, g)
	})
}

func TestGateHonoursTheContextOfWhoWaits(t *testing.T) {
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
				g := newGate(Config{Concurrency: 1}, 64, 1)
				leave := fill(t, g)
				ctx, cancel := tt.context(t.Context())
				defer cancel()
				began := time.Now()
				_, err := g.enter(ctx, 64)
				if waited := time.Since(began); !errors.Is(err, tt.want) || errors.Is(err, ErrBusy) || waited != 100*time.Millisecond {
					t.Errorf("%v after %v", err, waited)
				}
				if n := g.inLine.Load(); n != 0 {
					t.Errorf("%d in line", n)
				}
				leave()
				empty(t, g)
				// Room that is free is not given to who has gone.
				if _, err := g.enter(ctx, 64); !errors.Is(err, tt.want) {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

func TestGateWeighsByMemory(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		memory uint32
		atOnce int64
	}{
		"a small one takes the room of one":  {4, 4},
		"a configured one":                   {64, 4},
		"one a little larger takes more":     {80, 3},
		"one of twice the memory":            {128, 2},
		"one of the whole room":              {256, 1},
		"one larger than the room is alone":  {1024, 1},
		"one of half the room and a KiB too": {129, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newGate(Config{Concurrency: 4, Queue: 100}, 64, 1)
				errs, atOnce, peak := crowd(t.Context(), g, 20, tt.memory)
				if count(errs, nil) != 20 || atOnce != tt.atOnce {
					t.Errorf("%d at once, want %d; %v", atOnce, tt.atOnce, errs)
				}
				if tt.memory <= 256 && peak > 256 {
					t.Errorf("%d KiB at once", peak)
				}
				empty(t, g)
			})
		})
	}
}

// Small hashes that keep coming do not pass a large one for ever.
func TestGateIsFirstComeFirstServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{Concurrency: 2, Queue: 1000}, 64, 1)
		leave, err := g.enter(t.Context(), 64)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 2)
		go func() {
			l, _ := g.enter(t.Context(), 128)
			order <- "large"
			l()
		}()
		synctest.Wait()
		go func() {
			l, _ := g.enter(t.Context(), 64) // there would be room
			order <- "small"
			l()
		}()
		synctest.Wait()
		leave()
		if first := <-order; first != "large" {
			t.Errorf("the %s one was first", first)
		}
		<-order
	})
}

// All that happens at once: served, turned away, gone. Nothing is lost, nothing
// leaks, and no more are served than there is room for.
func TestGateUnderEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{Concurrency: 2, Queue: 20, Wait: 100 * time.Millisecond}, 64, 1)
		var all sync.WaitGroup
		var served, busy, gone, inside, most atomic.Int64
		const callers = 1000
		for i := range callers {
			all.Go(func() {
				time.Sleep(time.Duration(i%50) * 3 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%7)*20*time.Millisecond)
				defer cancel()
				leave, err := g.enter(ctx, []uint32{4, 64, 100, 500}[i%4])
				switch {
				case err == nil:
					raise(&most, inside.Add(1))
					time.Sleep(hashTime)
					inside.Add(-1)
					leave()
					served.Add(1)
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					gone.Add(1)
				}
			})
		}
		all.Wait()
		if served.Load()+busy.Load()+gone.Load() != callers || served.Load() == 0 || busy.Load() == 0 || gone.Load() == 0 {
			t.Errorf("%d served, %d busy, %d gone", served.Load(), busy.Load(), gone.Load())
		}
		if most.Load() > 2 {
			t.Errorf("%d at once", most.Load())
		}
		empty(t, g)
	})
}

// The same through a Hasher, with real hashes.
func TestHasherNeverHashesMoreAtOnce(t *testing.T) {
	t.Parallel()
	h := New(Config{MemoryKiB: 64, Time: 1, Concurrency: 2, Queue: 1000, Wait: time.Minute})
	var inside, most, made atomic.Int64
	h.argon2id = func(password, salt []byte, time, memoryKiB uint32, threads uint8, keyLength uint32) []byte {
		raise(&most, inside.Add(1))
		defer inside.Add(-1)
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
					t.Error("the right password is wrong")
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
		t.Errorf("%d made, %d at once", made.Load(), most.Load())
	}
	empty(t, h.gate())
}

// A hash that panics gives its room back.
func TestRoomIsGivenBackAfterAPanic(t *testing.T) {
	t.Parallel()
	h := New(small)
	h.argon2id = func([]byte, []byte, uint32, uint32, uint8, uint32) []byte { panic("broken") }
	func() {
		defer func() { recover() }()
		h.Decoy(t.Context(), "x")
	}()
	empty(t, h.gate())
}

func TestGate_SizeByCoresAndMemory(t *testing.T) {
	t.Parallel()
	cores := int64(runtime.GOMAXPROCS(0))
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		config  Config
		memory  uint32
		atOnce  int64
		largest int64 // KiB
	}{
		"plenty: one hash per core":             {Config{MemoryLimit: 3 << 40}, 19456, cores, 2<<30 - 24<<10},
		"no limit":                              {Config{MemoryLimit: math.MaxInt64}, 19456, cores, math.MaxInt64/3*2/1024 - 24<<10},
		"the shipped 230 MiB: 128 MiB fit":      {Config{MemoryLimit: 230 * mib}, 19456, min(cores, 6), 132437},
		"128 MiB: three hashes in half":         {Config{MemoryLimit: 128 * mib}, 19456, min(cores, 3), 64 << 10},
		"40 MiB: one":                           {Config{MemoryLimit: 40 * mib}, 19456, 1, 20 << 10},
		"less than a hash: one all the same":    {Config{MemoryLimit: 8 * mib}, 19456, 1, 19456},
		"set by the operator":                   {Config{MemoryLimit: 8 * mib, Concurrency: 7}, 19456, 7, 19456},
		"larger hashes, fewer at the same time": {Config{MemoryLimit: 256 * mib}, 128 << 10, 1, 150186},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(tt.config, tt.memory, 2)
			if g.size != tt.atOnce*int64(tt.memory) || g.largest != tt.largest || g.wait != defaultWait {
				t.Errorf("size %d, largest %d, wait %v; want %d at once, largest %d", g.size, g.largest, g.wait, tt.atOnce, tt.largest)
			}
		})
	}
}

func TestLineIsAsLongAsTheWaitCanServe(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config         Config
		memory, passes uint32
		line           int64
	}{
		"800 ms hold 32 hashes of 25 ms":    {Config{Concurrency: 1}, 19456, 2, 32},
		"twice that with two at once":       {Config{Concurrency: 2}, 19456, 2, 64},
		"half as long, half as many":        {Config{Concurrency: 1, Wait: 400 * time.Millisecond}, 19456, 2, 16},
		"twice the work, half as many":      {Config{Concurrency: 1}, 19456, 4, 16},
		"never more than the memory allows": {Config{Concurrency: 64}, 64, 1, 1024},
		"one a core, however slow the hash": {Config{Concurrency: 2}, 1 << 20, 16, 2},
		"set by the operator":               {Config{Concurrency: 1, Queue: 7}, 19456, 2, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if g := newGate(tt.config, tt.memory, tt.passes); g.line != tt.line {
				t.Errorf("%d, want %d", g.line, tt.line)
			}
		})
	}
}

// BenchmarkOverload has ten times as many callers as there is room for. Those
// turned away come again after a while. It reports hashes a second, those of bare
// argon2 with as many callers as cores, and their ratio.
func BenchmarkOverload(b *testing.B) {
	cores := runtime.GOMAXPROCS(0)
	for _, bb := range []struct {
		name string
		line int
	}{
		{"all wait", 0}, {"most are turned away", cores},
	} {
		b.Run(bb.name, func(b *testing.B) {
			h := New(Config{Concurrency: cores, Queue: bb.line})
			var busy atomic.Int64
			salt := make([]byte, saltLength)
			var over, bare time.Duration
			const rounds = 5 // in turns, so that what else the machine does hits both
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

// took does n works by so many callers, and returns how long that took.
func took(n, callers int, work func()) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	began := time.Now()
	for range callers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				work()
			}
		})
	}
	all.Wait()
	return time.Since(began)
}
