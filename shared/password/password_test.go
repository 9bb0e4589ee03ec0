package password

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
)

// small are parameters that are fast enough for a thousand hashes in a test.
var small = Config{MemoryKiB: 64, Time: 1}

func TestVerify_Vectors(t *testing.T) {
	t.Parallel()
	h := New(Config{Queue: 100, Wait: time.Minute}) // all subtests hash at the same time, perhaps on a slow machine
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			ok, stale, err := h.Verify(t.Context(), v.stored, v.plain)
			if !ok || stale != v.stale || err != nil {
				t.Errorf("right password: got %v, %v, %v; want true, %v", ok, stale, err, v.stale)
			}
			ok, stale, err = h.Verify(t.Context(), v.stored, "x"+v.plain)
			if ok || stale || err != nil {
				t.Errorf("wrong password: got %v, %v, %v; want false, false", ok, stale, err)
			}
		})
	}
}

func TestHash_Format(t *testing.T) {
	t.Parallel()
	h := New(Config{Random: strings.NewReader("0123456789abcdef")})
	got, err := h.Hash(t.Context(), "correct horse battery staple")
	if err != nil || got != argon2idNew {
		t.Errorf("Hash = %q, %v; want %q", got, err, argon2idNew)
	}
	if _, err := h.Hash(t.Context(), "correct horse battery staple"); !errors.Is(err, io.EOF) {
		t.Errorf("without random bytes: got %v, want %v", err, io.EOF)
	}
}

func TestHash_UniqueSalt(t *testing.T) {
	t.Parallel()
	h := New(small)
	seen := map[string]bool{}
	for range 100 {
		s, err := h.Hash(t.Context(), "same")
		if err != nil || seen[s] {
			t.Fatalf("Hash = %q, %v; repeated: %v", s, err, seen[s])
		}
		seen[s] = true
	}
}

func TestVerify_EveryByteCounts(t *testing.T) {
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
			t.Errorf("Verify of %.20q = %v, %v, %v; want true, false", plain, ok, stale, err)
		}
		for _, other := range []string{plain + "\x00", plain + " ", plain + "a", " " + plain, strings.ToUpper(plain) + "A"} {
			if ok, _, err := h.Verify(t.Context(), stored, other); ok || err != nil {
				t.Errorf("Verify of %.20q for the hash of %.20q = %v, %v; want false", other, plain, ok, err)
			}
		}
	}
}

// bcrypt ignores all bytes after the 72nd. A password of that length may end differently from
// the right one. So it signs in but never replaces the hash.
func TestVerify_BcryptOf72Bytes(t *testing.T) {
	t.Parallel()
	h := New(Config{})
	for _, tt := range []struct {
		name, imported, typed string
		ok, stale             bool
	}{
		{"71 bytes", strings.Repeat("a", 71), strings.Repeat("a", 71), true, true},
		{"72 bytes, perhaps truncated", strings.Repeat("a", 72), strings.Repeat("a", 72), true, false},
		{"72 bytes and the wrong end", strings.Repeat("a", 72), strings.Repeat("a", 72) + "b", true, false},
		{"another 72nd byte", strings.Repeat("a", 72), strings.Repeat("a", 71) + "b" + "a", false, false},
		{"71 bytes for 72", strings.Repeat("a", 72), strings.Repeat("a", 71), false, false},
		{"composed in 52 bytes, typed decomposed in 78", strings.Repeat("é", 26), strings.Repeat("e\u0301", 26), true, true},
		{"decomposed in 72 bytes, typed the same", strings.Repeat("e\u0301", 24), strings.Repeat("e\u0301", 24), true, false},
		{"decomposed in 69 bytes, typed the same", strings.Repeat("e\u0301", 23), strings.Repeat("e\u0301", 23), true, true},
		{"the same twice, with the NUL between that bcrypt adds", "abc", "abc\x00abc", false, false},
		{"a NUL at the end", "abc", "abc\x00", false, false},
		{"a NUL and more text", "abc", "abc\x00def", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			imported, err := bcrypt.GenerateFromPassword([]byte(tt.imported), bcrypt.MinCost)
			if err != nil {
				t.Fatal(err)
			}
			if ok, stale, err := h.Verify(t.Context(), string(imported), tt.typed); ok != tt.ok || stale != tt.stale || err != nil {
				t.Errorf("Verify = %v, %v, %v; want %v, %v", ok, stale, err, tt.ok, tt.stale)
			}
		})
	}
}

// argon2idOf returns a stored hash of a password, as another program would write it.
func argon2idOf(plain string, memoryKiB, passes uint32, lanes uint8, salt, key int) string {
	a := argon2idHash{memoryKiB: memoryKiB, time: passes, threads: lanes, salt: bytes.Repeat([]byte{7}, salt)}
	a.key = argon2.IDKey([]byte(plain), a.salt, passes, memoryKiB, lanes, uint32(key))
	return a.String()
}

func TestVerify_StaleUnlessWeakened(t *testing.T) {
	t.Parallel()
	h := New(Config{MemoryKiB: 64, Time: 2})
	ofBcrypt, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, stored string
		stale        bool
	}{
		{"the same", argon2idOf("x", 64, 2, 1, 16, 32), false},
		{"less memory", argon2idOf("x", 32, 2, 1, 16, 32), true},
		{"fewer passes", argon2idOf("x", 64, 1, 1, 16, 32), true},
		{"less memory, more passes, less work", argon2idOf("x", 32, 3, 1, 16, 32), true},
		{"less memory, more passes, the same work", argon2idOf("x", 32, 4, 1, 16, 32), true},
		{"less memory, more passes, more work", argon2idOf("x", 32, 5, 1, 16, 32), false},
		{"more memory", argon2idOf("x", 65, 2, 1, 16, 32), false},
		{"more memory, fewer passes", argon2idOf("x", 65, 1, 1, 16, 32), false},
		{"more passes", argon2idOf("x", 64, 3, 1, 16, 32), false},
		{"more lanes", argon2idOf("x", 64, 2, 2, 16, 32), true},
		{"a shorter salt", argon2idOf("x", 64, 2, 1, 8, 32), true},
		{"a longer salt", argon2idOf("x", 64, 2, 1, 32, 32), true},
		{"a shorter key", argon2idOf("x", 64, 2, 1, 16, 16), true},
		{"a longer key", argon2idOf("x", 64, 2, 1, 16, 64), true},
		{"bcrypt, by argon2id below the minimum", string(ofBcrypt), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if ok, stale, err := h.Verify(t.Context(), tt.stored, "x"); !ok || stale != tt.stale || err != nil {
				t.Errorf("right password: got %v, %v, %v; want true, %v", ok, stale, err, tt.stale)
			}
			if ok, stale, err := h.Verify(t.Context(), tt.stored, "y"); ok || stale || err != nil {
				t.Errorf("wrong password: got %v, %v, %v; want false, false", ok, stale, err)
			}
		})
	}
}

func TestVerify_EitherUnicodeForm(t *testing.T) {
	t.Parallel()
	h := New(small)
	for _, tt := range []struct{ name, one, other string }{
		{"composed and decomposed", "Schl\u00fcssel", "Schlu\u0308ssel"},
		{"a singleton", "5\u212b-Ring", "5\u00c5-Ring"},
		{"Hangul", "\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af"},
		{"marks in another order", "a\u0323\u0307", "a\u0307\u0323"},
		{"a no-break space", "correct\u00a0horse", "correct horse"},
		{"an ideographic space", "correct\u3000horse", "correct horse"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, plain := range []string{tt.one, tt.other} {
				stored, err := h.Hash(t.Context(), plain)
				if err != nil {
					t.Fatal(err)
				}
				for _, typed := range []string{tt.one, tt.other} {
					if ok, stale, err := h.Verify(t.Context(), stored, typed); !ok || stale || err != nil {
						t.Errorf("%+q for the hash of %+q: got %v, %v, %v; want true, false", typed, plain, ok, stale, err)
					}
				}
				old := argon2idOf(plain, 64, 1, 1, 16, 32) // before passwords were normalised
				ok, stale, err := h.Verify(t.Context(), old, plain)
				if !ok || stale != (plain != Normalize(plain)) || err != nil {
					t.Errorf("%+q for the hash of its own bytes: got %v, %v, %v; want true, %v", plain, ok, stale, err, plain != Normalize(plain))
				}
			}
		})
	}
}

// Other systems hash a password as typed, in either form.
func TestVerify_HashOfEitherForm(t *testing.T) {
	t.Parallel()
	h := New(small)
	for composed, decomposed := range map[string]string{
		"Schl\u00fcssel": "Schlu\u0308ssel",
		"\ud55c\uae00":   "\u1112\u1161\u11ab\u1100\u1173\u11af",
	} {
		for _, hashed := range []string{composed, decomposed} {
			stored := argon2idOf(hashed, 64, 1, 1, 16, 32)
			for _, typed := range []string{composed, decomposed} {
				ok, stale, err := h.Verify(t.Context(), stored, typed)
				if !ok || stale != (hashed == decomposed) || err != nil {
					t.Errorf("%+q for the hash of %+q: got %v, %v, %v; want true, %v", typed, hashed, ok, stale, err, hashed == decomposed)
				}
			}
		}
	}
}

func TestIsTooLong_EachUnicodeForm(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		plain string
		want  bool
	}{
		{"1024 bytes", strings.Repeat("x", 1024), false},
		{"1025 bytes", strings.Repeat("x", 1025), true},
		{"256 syllables", strings.Repeat("\ud55c", 256), false},
		{"341 syllables", strings.Repeat("\ud55c", 341), false},
		{"342 syllables", strings.Repeat("\ud55c", 342), true},
		{"256 letters with three marks", strings.Repeat("\u1f82", 256), false},
		{"256 spaces of three bytes", strings.Repeat("\u3000", 256), false},
		{"256 ideographs of four bytes", strings.Repeat("\U00020000", 256), false},
		{"257 characters of four bytes", strings.Repeat("\U0001f511", 257), true},
		{"not UTF-8", strings.Repeat("\xff", 1025), true},
	} {
		for _, plain := range []string{tt.plain, norm.NFD.String(tt.plain)} {
			if got := IsTooLong(plain); got != tt.want {
				t.Errorf("%s, %d bytes: %v, want %v", tt.name, len(plain), got, tt.want)
			}
		}
	}
	if !IsTooLong(strings.Repeat("\u3000", 2000)) {
		t.Error("IsTooLong of 6000 bytes = false, want true")
	}
}

// The response time reveals nothing to a client. The number of hashes depends on the password
// of the request, not on the account or its stored hash.
func TestVerify_SameWorkForEitherForm(t *testing.T) {
	t.Parallel()
	h, work := counted(small)
	ctx := t.Context()
	for _, tt := range []struct {
		typed string
		want  string
	}{
		{"Schluessel", "[10 16 1 64 1 32]"},
		{"Schl\u00fcssel", "[10 16 1 64 1 32 11 16 1 64 1 32]"},
		{"Schlu\u0308ssel", "[10 16 1 64 1 32 11 16 1 64 1 32]"},
	} {
		normal, err := h.Hash(ctx, tt.typed)
		if err != nil {
			t.Fatal(err)
		}
		another, err := h.Hash(ctx, "another password")
		if err != nil {
			t.Fatal(err)
		}
		work()
		for name, stored := range map[string]string{
			"right": normal, "wrong": another, "malformed": "broken", "unknown": "",
		} {
			if name == "unknown" {
				err = h.Decoy(ctx, tt.typed)
			} else {
				_, _, err = h.Verify(ctx, stored, tt.typed)
			}
			if _, broken := errors.AsType[*Unverifiable](err); err != nil && !broken {
				t.Fatal(err)
			}
			if got := fmt.Sprint(work()); got != tt.want {
				t.Errorf("%+q, %s: hashes %s, want %s", tt.typed, name, got, tt.want)
			}
		}
	}
}

// Normalize agrees with the profile for every text that the profile accepts.
func TestNormalize_AgreesWithOpaqueString(t *testing.T) {
	if testing.Short() {
		t.Skip("normalizes a million texts")
	}
	t.Parallel()
	rejected := 0
	for r := rune(1); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		plain := "a" + string(r) + "b"
		got := Normalize(plain)
		want, err := precis.OpaqueString.String(plain)
		if err != nil {
			rejected++ // by the profile; Normalize accepts it
			want = norm.NFC.String(plain)
		}
		if got != want {
			t.Errorf("Normalize(%+q) = %+q, want %+q", plain, got, want)
		}
	}
	if rejected == 0 {
		t.Error("the profile rejects no text, want at least one")
	}
	for _, plain := range []string{"", "\xff\xfe", "\x01\x7f", "\u0378", " \u00a0\xff"} {
		if got := Normalize(plain); got != plain {
			t.Errorf("Normalize(%+q) = %+q, want it unchanged", plain, got)
		}
	}
}

// counted returns a Hasher without real hashes, and a function that returns the parameters of
// its calls of argon2id since the last call.
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

func TestVerify_SameWorkForEachFailure(t *testing.T) {
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
			t.Errorf("%s: hashes %v, want %v", name, got, want)
		}
	}
}

func TestHasher_ContextEnded(t *testing.T) {
	t.Parallel()
	h, work := counted(small)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, hashing := h.Hash(ctx, "x")
	_, _, verifying := h.Verify(ctx, argon2idSmall, "password")
	_, _, broken := h.Verify(ctx, "broken", "password")
	for _, err := range []error{hashing, verifying, broken, h.Decoy(ctx, "x")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	}
	if done := work(); len(done) != 0 {
		t.Errorf("hashes %v, want none", done)
	}
}

func TestVerify_HashLargerThanMemory(t *testing.T) {
	t.Parallel()
	h, work := counted(Config{MemoryKiB: 64, Time: 1, MemoryLimit: 64 << 20})
	_, _, err := h.Verify(t.Context(), argon2id64MiB, "password")
	over, ok := errors.AsType[*OverMemory](err)
	if !ok || !strings.Contains(over.Error(), "needs 64 MiB") || !strings.Contains(over.Error(), "may use 32 MiB") {
		t.Errorf("got %v, want an *OverMemory that needs 64 MiB and may use 32 MiB", err)
	}
	e, ok := errors.AsType[*apierror.Error](err)
	if !ok || e.Status() != 503 || len(e.Headers()) != 1 || e.Headers()[0] != (apierror.Header{Name: "Retry-After", Value: "60"}) {
		t.Errorf("got API error %v, want 503 with Retry-After 60", err)
	}
	if done := work(); len(done) != 0 {
		t.Errorf("hashes %v, want none", done)
	}
	if _, _, err := h.Verify(t.Context(), argon2idSmall, "password"); err != nil {
		t.Errorf("a hash that fits: %v", err)
	}
}

// The largest hash that parse accepts fits the memory of a hashing function in the shipped
// manifests.
func TestVerify_LargestImportsFitShippedMemory(t *testing.T) {
	t.Parallel()
	l := newConcurrencyLimit(Config{MemoryLimit: 230 << 20}, defaultMemoryKiB, defaultTime)
	if err := l.fits(uint32(importable.memoryKiB)); err != nil {
		t.Error(err)
	}
}

func TestNew_DefaultParameters(t *testing.T) {
	t.Parallel()
	h := New(Config{})
	if h.memoryKiB != 19456 || h.time != 2 {
		t.Errorf("got m=%d, t=%d; want m=19456, t=2", h.memoryKiB, h.time)
	}
	// parse would reject a hash with less memory than RFC 9106 allows.
	s, err := New(Config{MemoryKiB: 1, Time: 1}).Hash(t.Context(), "x")
	if err != nil || !strings.HasPrefix(s, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Errorf("Hash = %q, %v; want m=8, t=1", s, err)
	}
}

func TestFromConfig_MinimumParameters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		settings string
		rejected bool
	}{
		{"", false},
		{"HASH_MEMORY_KIB=47104 HASH_TIME=1", false},
		{"HASH_MEMORY_KIB=19456 HASH_TIME=2", false},
		{"HASH_MEMORY_KIB=12288 HASH_TIME=3", false},
		{"HASH_MEMORY_KIB=9216 HASH_TIME=4", false},
		{"HASH_MEMORY_KIB=7168 HASH_TIME=5", false},
		{"HASH_MEMORY_KIB=7168 HASH_TIME=16", false},
		{"HASH_MEMORY_KIB=1048576", false},
		{"HASH_MEMORY_KIB=64", true},
		{"HASH_MEMORY_KIB=64 HASH_TIME=16", true},
		{"HASH_MEMORY_KIB=7167 HASH_TIME=5", true},
		{"HASH_MEMORY_KIB=19455", true},
		{"HASH_TIME=1", true},
		{"HASH_MEMORY_KIB=47103 HASH_TIME=1", true},
		{"HASH_MEMORY_KIB=64 HASH_TIME=1 HASH_TESTING=off", true},
		{"HASH_MEMORY_KIB=64 HASH_TIME=1 HASH_TESTING=on", false},
	} {
		t.Run(tt.settings, func(t *testing.T) {
			t.Parallel()
			settings := map[string]string{}
			for s := range strings.FieldsSeq(tt.settings) {
				name, value, _ := strings.Cut(s, "=")
				settings[name] = value
			}
			var log bytes.Buffer
			cfg := config.New(func(name string) (string, bool) { v, ok := settings[name]; return v, ok },
				func(o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(&log, o) }, time.Now)
			FromConfig(cfg)
			err := cfg.Err()
			if (err != nil) != tt.rejected || err != nil && !strings.HasPrefix(err.Error(), "HASH_MEMORY_KIB and HASH_TIME are below OWASP's minimum") {
				t.Errorf("got %v, rejected want %v", err, tt.rejected)
			}
			testing := settings["HASH_TESTING"] == "on"
			if strings.Contains(log.String(), "level=WARN") != testing {
				t.Errorf("log %q, want a warning: %v", &log, testing)
			}
		})
	}
}

func TestNew_Allocations(t *testing.T) {
	// Not parallel: AllocsPerRun counts the allocations of all goroutines.
	if n := testing.AllocsPerRun(100, func() { New(Config{}) }); n > 10 {
		t.Errorf("New made %v allocations, want at most 10", n)
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
