package password

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// small makes a hash fast enough to be made a thousand times in a test.
var small = Config{MemoryKiB: 64, Time: 1}

func TestVectors(t *testing.T) {
	t.Parallel()
	h := New(Config{Queue: 100, Wait: time.Minute}) // they all come at once, to a machine that may be slow
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			ok, stale, err := h.Verify(t.Context(), v.stored, v.plain)
			if !ok || stale != v.stale || err != nil {
				t.Errorf("the right password: %v, %v, %v; want true, %v", ok, stale, err, v.stale)
			}
			ok, stale, err = h.Verify(t.Context(), v.stored, "x"+v.plain)
			if ok || stale || err != nil {
				t.Errorf("a wrong one: %v, %v, %v", ok, stale, err)
			}
		})
	}
}

func TestHashHasTheFormOfToday(t *testing.T) {
	t.Parallel()
	h := New(Config{Random: strings.NewReader("0123456789abcdef")})
	got, err := h.Hash(t.Context(), "correct horse battery staple")
	if err != nil || got != argon2idNew {
		t.Errorf("Hash = %q, %v; want %q", got, err, argon2idNew)
	}
	if _, err := h.Hash(t.Context(), "correct horse battery staple"); !errors.Is(err, io.EOF) {
		t.Errorf("without randomness: %v", err)
	}
}

func TestSaltsDiffer(t *testing.T) {
	t.Parallel()
	h := New(small)
	seen := map[string]bool{}
	for range 100 {
		s, err := h.Hash(t.Context(), "same")
		if err != nil || seen[s] {
			t.Fatalf("%q, %v; seen: %v", s, err, seen[s])
		}
		seen[s] = true
	}
}

func TestPasswordsAreExact(t *testing.T) {
	t.Parallel()
	h := New(small)
	for _, plain := range []string{
		"", " ", "password", "Password", "password ", " password", "password\n", "pass\x00word", "pass", "password\x00",
		"é", "e\u0301", "\xff\xfe", strings.Repeat("a", 72), strings.Repeat("a", 73), strings.Repeat("a", 72) + "b", strings.Repeat("🔑", 256),
	} {
		stored, err := h.Hash(t.Context(), plain)
		if err != nil {
			t.Fatal(err)
		}
		if ok, stale, err := h.Verify(t.Context(), stored, plain); !ok || stale || err != nil {
			t.Errorf("%.20q: %v, %v, %v", plain, ok, stale, err)
		}
		for _, other := range []string{plain + "\x00", plain + " ", plain + "a", " " + plain, strings.ToUpper(plain) + "A"} {
			if ok, _, err := h.Verify(t.Context(), stored, other); ok || err != nil {
				t.Errorf("%.20q for %.20q: %v, %v", other, plain, ok, err)
			}
		}
	}
}

// Of an imported bcrypt hash the 73rd byte is not known. Of its successor it is.
func TestBcryptReads72BytesUntilItIsReplaced(t *testing.T) {
	t.Parallel()
	h := New(small)
	plain := strings.Repeat("a", 72)
	imported, err := bcrypt.GenerateFromPassword([]byte(plain), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	ok, stale, err := h.Verify(t.Context(), string(imported), plain+"b")
	if !ok || !stale || err != nil {
		t.Fatalf("72 bytes and one more: %v, %v, %v", ok, stale, err)
	}
	next, err := h.Hash(t.Context(), plain+"b")
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := h.Verify(t.Context(), next, plain+"c"); ok || err != nil {
		t.Errorf("another 73rd byte: %v, %v", ok, err)
	}
}

func TestStaleIsWhatDiffersFromToday(t *testing.T) {
	t.Parallel()
	h := New(small)
	hash := func(m, passes uint32, p uint8, salt, key int) string {
		a := argon2idHash{memoryKiB: m, time: passes, threads: p, salt: bytes.Repeat([]byte{7}, salt)}
		a.key = argon2.IDKey([]byte("x"), a.salt, passes, m, p, uint32(key))
		return a.String()
	}
	for _, tt := range []struct {
		name, stored string
		stale        bool
	}{
		{"the same", hash(64, 1, 1, 16, 32), false},
		{"less memory", hash(32, 1, 1, 16, 32), true},
		{"more memory", hash(128, 1, 1, 16, 32), true},
		{"more passes", hash(64, 2, 1, 16, 32), true},
		{"more lanes", hash(64, 1, 2, 16, 32), true},
		{"a shorter salt", hash(64, 1, 1, 8, 32), true},
		{"a longer salt", hash(64, 1, 1, 32, 32), true},
		{"a shorter key", hash(64, 1, 1, 16, 16), true},
		{"a longer key", hash(64, 1, 1, 16, 64), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if ok, stale, err := h.Verify(t.Context(), tt.stored, "x"); !ok || stale != tt.stale || err != nil {
				t.Errorf("right: %v, %v, %v", ok, stale, err)
			}
			if ok, stale, err := h.Verify(t.Context(), tt.stored, "y"); ok || stale || err != nil {
				t.Errorf("wrong: %v, %v, %v", ok, stale, err)
			}
		})
	}
}

// counted returns a Hasher which notes what it asks of argon2id.
func counted(c Config) (*Hasher, func() []string) {
	h := New(c)
	var mu sync.Mutex
	var calls []string
	h.argon2id = func(password, salt []byte, time, memoryKiB uint32, threads uint8, keyLength uint32) []byte {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, fmt.Sprint(len(password), len(salt), time, memoryKiB, threads, keyLength))
		sum := sha256.Sum256(append(append([]byte{}, salt...), password...))
		return sum[:keyLength]
	}
	return h, func() []string {
		mu.Lock()
		defer mu.Unlock()
		taken := calls
		calls = nil
		return taken
	}
}

func TestUnknownAccountWrongPasswordAndBrokenRecordDoTheSameWork(t *testing.T) {
	t.Parallel()
	h, work := counted(Config{})
	ctx := t.Context()
	stored, err := h.Hash(ctx, "password")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"8 16 2 19456 1 32"}
	hashing := work()

	if _, _, err := h.Verify(ctx, stored, "passw0rd"); err != nil {
		t.Fatal(err)
	}
	wrong := work()
	if err := h.Decoy(ctx, "passw0rd"); err != nil {
		t.Fatal(err)
	}
	unknown := work()
	_, _, err = h.Verify(ctx, "broken", "passw0rd")
	if _, ok := errors.AsType[*Unverifiable](err); !ok {
		t.Fatal(err)
	}
	broken := work()
	for name, got := range map[string][]string{"hashing": hashing, "wrong": wrong, "unknown": unknown, "broken": broken} {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestNothingIsDoneOnceTheContextHasEnded(t *testing.T) {
	t.Parallel()
	h, work := counted(small)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, hashing := h.Hash(ctx, "x")
	_, _, verifying := h.Verify(ctx, argon2idSmall, "password")
	_, _, broken := h.Verify(ctx, "broken", "password")
	for _, err := range []error{hashing, verifying, broken, h.Decoy(ctx, "x")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	if done := work(); len(done) != 0 {
		t.Errorf("done all the same: %v", done)
	}
}

func TestAHashLargerThanTheMemoryIsRefusedBeforeItIsMade(t *testing.T) {
	t.Parallel()
	h, work := counted(Config{MemoryKiB: 64, Time: 1, MemoryLimit: 64 << 20}) // half of it is for hashes
	for stored, fits := range map[string]bool{argon2id64MiB: false, argon2idSmall: true} {
		_, _, err := h.Verify(t.Context(), stored, "password")
		if _, refused := errors.AsType[*Unverifiable](err); refused == fits {
			t.Errorf("%s: %v", stored, err)
		}
		want := "[8 8 2 256 1 32]"
		if !fits {
			want = "[8 16 1 64 1 32]" // a decoy
		}
		if done := fmt.Sprint(work()); done != want {
			t.Errorf("%s: %v, want %s", stored, done, want)
		}
	}
}

func TestZeroConfigIsTheRecommendation(t *testing.T) {
	t.Parallel()
	h := New(Config{})
	if h.memoryKiB != 19456 || h.time != 2 {
		t.Errorf("m=%d, t=%d", h.memoryKiB, h.time)
	}
	// Less than RFC 9106 allows would make a hash that cannot be read again.
	s, err := New(Config{MemoryKiB: 1, Time: 1}).Hash(t.Context(), "x")
	if err != nil || !strings.HasPrefix(s, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Errorf("%q, %v", s, err)
	}
}

func TestNewAsksForNothing(t *testing.T) {
	// Not parallel: AllocsPerRun counts the allocations of all.
	if n := testing.AllocsPerRun(100, func() { New(Config{}) }); n > 10 {
		t.Errorf("New makes %v allocations", n)
	}
}

func BenchmarkHash(b *testing.B) {
	h := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Hash(b.Context(), "correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	h := New(Config{})
	for _, v := range vectors {
		b.Run(v.name, func(b *testing.B) {
			for b.Loop() {
				if ok, _, err := h.Verify(b.Context(), v.stored, v.plain); !ok {
					b.Fatal(err)
				}
			}
		})
	}
}
