// Package password hashes passwords and verifies passwords against stored hashes.
//
// Hash returns argon2id (RFC 9106) in the PHC string format. Its default parameters are those
// of the OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane. Verify also accepts
// argon2id with other parameters in bounds, bcrypt, scrypt, and the hex(scrypt).salt format of
// the platform's earlier Node.js service. It reports such a hash as stale, and a sign-in
// replaces it. It does not report a hash as stale if the new hash would be weaker. The same
// holds if the stored hash may cover only the beginning of the password (see Verify).
//
// Hash and Verify normalise a password (see Normalize) and use all its bytes, also those after
// the 72nd. They trim nothing and cut nothing.
//
// A hash takes about 20 ms of a core and 19 MiB, and any client can request one. So a
// concurrency limit bounds the hashes that run at the same time by the cores and the memory.
// A bounded number of requests queues for a bounded time. The others receive an API error
// with Retry-After.
//
// Functions signup and signin use this package. Package policy decides whether a user may
// choose a password.
package password

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/telemetry"
)

const (
	// MaxBytes is the length of the longest password, in bytes after Normalize. NIST SP
	// 800-63B section 3.1.1.2 asks for at least 64 characters; 256 of four bytes fit.
	MaxBytes = 1024
	// maxRaw is the length of the longest password, in bytes before Normalize. 256 characters
	// have at most 9 bytes each in any Unicode form: a Hangul syllable of three letters.
	maxRaw = 4096
)

// TooLong is the message to a user for a password longer than MaxBytes.
const TooLong = "Password is too long."

// IsTooLong reports whether a password is longer than MaxBytes. The answer is the same for
// each Unicode form of the password.
func IsTooLong(plain string) bool { return len(plain) > maxRaw || len(Normalize(plain)) > MaxBytes }

// The parameters of a new hash.
const (
	defaultMemoryKiB = 19 << 10 // OWASP Password Storage: m=19456, t=2, p=1
	defaultTime      = 2
	minMemoryKiB     = 8  // RFC 9106 §3.1: 8 KiB per lane
	saltLength       = 16 // bytes; RFC 9106 §3.1 recommends 16
	keyLength        = 32 // bytes; 256 bits, as in both options of RFC 9106 §4
)

// defaultWait is how long a request may queue. It is short beside a cold start, and a rejected
// request receives its response within a second, with the time of the database commands.
const defaultWait = 800 * time.Millisecond

// A Config has the parameters of a Hasher. A zero field means the default.
type Config struct {
	MemoryKiB   uint32        // memory of one hash; default 19456
	Time        uint32        // passes over that memory; default 2
	Concurrency int           // slots; by default from the cores and the memory limit
	Wait        time.Duration // longest wait for a slot; default 800 ms
	Queue       int           // longest queue, negative for none; by default as long as Wait can serve
	MemoryLimit int64         // bytes that this process may use; by default GOMEMLIMIT or the cgroup's limit
	Random      io.Reader     // source of salts; default crypto/rand
	Telemetry   *telemetry.Telemetry
}

// A Hasher hashes and verifies passwords. It is safe for concurrent use.
type Hasher struct {
	memoryKiB, time uint32
	bounds          bounds
	random          io.Reader
	limit           func() *concurrencyLimit // created by the first hash
	argon2id        argon2Func
	telemetry       *telemetry.Telemetry
}

// argon2Func is argon2.IDKey, or a counter of calls in a test.
type argon2Func func(password, salt []byte, time, memoryKiB uint32, threads uint8, keyLength uint32) []byte

// New returns a Hasher. It does no work: a function that never hashes does not even read
// its memory limit.
func New(c Config) *Hasher {
	h := &Hasher{
		memoryKiB: max(cmp.Or(c.MemoryKiB, defaultMemoryKiB), minMemoryKiB),
		time:      cmp.Or(c.Time, defaultTime),
		random:    cmp.Or(c.Random, rand.Reader),
		argon2id:  argon2.IDKey,
		telemetry: c.Telemetry,
	}
	h.bounds = importable.widened(h.memoryKiB, h.time)
	h.limit = sync.OnceValue(func() *concurrencyLimit { return newConcurrencyLimit(c, h.memoryKiB, h.time) })
	return h
}

// Hash returns the hash of a password, as a PHC string.
//
// Hash, Verify and Decoy return the context's error if the context ends before the hash
// begins. Without a free slot, they return an API error of kind Unavailable that wraps
// ErrBusy. A hash that has begun runs to its end: argon2 cannot be stopped.
func (h *Hasher) Hash(ctx context.Context, plain string) (string, error) {
	fresh := argon2idHash{memoryKiB: h.memoryKiB, time: h.time, threads: 1, salt: make([]byte, saltLength)}
	if _, err := io.ReadFull(h.random, fresh.salt); err != nil {
		return "", fmt.Errorf("read a random salt: %w", err)
	}
	err := h.admit(ctx, fresh.memory(), func() error {
		fresh.key = h.key(fresh, keyLength, Normalize(plain))
		return nil
	})
	if err != nil {
		return "", err
	}
	return fresh.String(), nil
}

// Verify reports whether a stored hash is that of a password, and whether it is stale. A
// stale hash has another format or other parameters, or is older than the normalisation of
// passwords. The caller should replace it with a new Hash.
//
// The hash is not stale if a new hash would be weaker (see weaker). A bcrypt hash is not
// stale if the password has 72 bytes or more. bcrypt ignores all bytes after the 72nd, so
// that password may be the beginning of the right one, or end differently. For a wrong
// password, no hash is stale.
//
// Verify compares both forms of a password that has two Unicode forms, even if the first
// matches (see forms). So the work depends on the password alone and is the same in Decoy.
//
// It returns an *Unverifiable for a stored hash that is malformed or out of bounds. It does
// the work of Decoy before, so that the time does not reveal such an account. For a hash that
// needs more memory than this process may use, it returns an API error of kind Unavailable
// that wraps an *OverMemory.
func (h *Hasher) Verify(ctx context.Context, stored, plain string) (ok, stale bool, err error) {
	s, err := parse(stored, h.bounds)
	if err != nil {
		return false, false, cmp.Or(h.Decoy(ctx, plain), err)
	}
	if err := h.limit().fits(s.memory()); err != nil {
		return false, false, apierror.Retry(apierror.Unavailable, time.Minute, "The service is unavailable. Try again shortly.", err)
	}
	right, ok, err := h.compare(ctx, s, plain)
	if err != nil || !ok {
		return false, false, err
	}
	_, isBcrypt := s.(bcryptHash)
	known := !isBcrypt || len(right) < bcryptBytes
	current := h.current(s) && right == Normalize(plain)
	return true, !current && known && !h.weaker(s), nil
}

// bcryptBytes is the number of bytes of a password that bcrypt reads.
const bcryptBytes = 72

// Decoy does the work of Verify for a hash of Hash, without a result. A sign-in with an
// unknown email calls it. So the response takes as long as for a wrong password and does not
// reveal that there is no account (OWASP Authentication: user enumeration). An imported hash
// takes the time of its own algorithm until a sign-in replaces it.
func (h *Hasher) Decoy(ctx context.Context, plain string) error {
	decoy := argon2idHash{memoryKiB: h.memoryKiB, time: h.time, threads: 1,
		salt: make([]byte, saltLength), key: make([]byte, keyLength)}
	_, _, err := h.compare(ctx, decoy, plain)
	return err
}

// compare compares every form of a password with a stored hash. It returns the first form
// that matches.
func (h *Hasher) compare(ctx context.Context, s stored, plain string) (right string, ok bool, err error) {
	err = h.admit(ctx, s.memory(), func() error {
		for _, form := range forms(plain) {
			same, err := h.matches(s, form)
			if err != nil {
				return err
			}
			if same && !ok {
				right, ok = form, true
			}
		}
		return nil
	})
	return right, ok, err
}

// Available returns the error of Hash, Verify and Decoy if the queue is full now. A handler
// calls it before it queries the database, so that a flood of requests that would be rejected
// does not load the database.
func (h *Hasher) Available() error {
	if l := h.limit(); l.queueFull() {
		h.telemetry.Count(context.Background(), telemetry.HashRefusals, "")
		return l.busy()
	}
	return nil
}

// admit waits for the slots of work that needs memoryKiB, and runs it.
func (h *Hasher) admit(ctx context.Context, memoryKiB uint32, work func() error) error {
	queued := time.Now()
	_, span := h.telemetry.Start(ctx, "password hash queue", trace.SpanKindInternal)
	release, err := h.limit().acquire(ctx, memoryKiB)
	telemetry.End(span, err != nil)
	h.telemetry.Observe(ctx, telemetry.HashWait, time.Since(queued).Seconds(), "")
	if err != nil {
		if errors.Is(err, ErrBusy) {
			h.telemetry.Count(ctx, telemetry.HashRefusals, "")
		}
		return err
	}
	defer release()
	_, span = h.telemetry.Start(ctx, "password hash", trace.SpanKindInternal)
	defer span.End()
	return work()
}

func (h *Hasher) key(a argon2idHash, length int, plain string) []byte {
	return h.argon2id([]byte(plain), a.salt, a.time, a.memoryKiB, a.threads, uint32(length))
}

// matches compares a password with a stored hash in constant time.
//
// Before a hash that is larger than the configured one, it frees the garbage. Otherwise, a
// block of 128 MiB that is garbage and a second block would exceed the memory limit.
func (h *Hasher) matches(s stored, plain string) (bool, error) {
	if s.memory() > h.memoryKiB {
		runtime.GC()
	}
	switch s := s.(type) {
	case argon2idHash:
		return subtle.ConstantTimeCompare(h.key(s, len(s.key), plain), s.key) == 1, nil
	case scryptHash:
		key, err := scrypt.Key([]byte(plain), s.salt, 1<<s.logN, s.r, s.p, len(s.key))
		if err != nil {
			return false, fmt.Errorf("scrypt: %w", err)
		}
		return subtle.ConstantTimeCompare(key, s.key) == 1, nil
	case bcryptHash:
		err := bcrypt.CompareHashAndPassword([]byte(s.text), []byte(plain))
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("bcrypt: %w", err)
		}
		// bcrypt repeats a password and its final NUL to 72 bytes, so that "a" and
		// "a\x00a" give the same hash. Other implementations reject a NUL or stop there.
		return !strings.Contains(plain, "\x00"), nil
	}
	panic(fmt.Sprintf("password: no way to check a %T", s))
}

// current reports whether a stored hash has the form and parameters of a new one.
func (h *Hasher) current(s stored) bool {
	a, ok := s.(argon2idHash)
	return ok && a.memoryKiB == h.memoryKiB && a.time == h.time && a.threads == 1 &&
		len(a.salt) == saltLength && len(a.key) == keyLength
}

// weaker reports whether a new hash would be weaker than a stored one.
//
// It is weaker than argon2id with more memory, or with more work, which is memory times
// passes. Lanes do not count: they share the memory and the work. It is weaker than
// bcrypt or scrypt if it is below OWASP's minimum; OWASP prefers argon2id to both from
// that minimum on.
func (h *Hasher) weaker(s stored) bool {
	a, ok := s.(argon2idHash)
	if !ok {
		return !meetsMinimum(h.memoryKiB, h.time)
	}
	return h.memoryKiB < a.memoryKiB || uint64(h.memoryKiB)*uint64(h.time) < uint64(a.memoryKiB)*uint64(a.time)
}

// minimum are the weakest parameters of argon2id in the OWASP Password Storage Cheat
// Sheet: 46, 19, 12, 9 or 7 MiB.
var minimum = []struct{ memoryKiB, time uint32 }{
	{47104, 1}, {19456, 2}, {12288, 3}, {9216, 4}, {7168, 5},
}

// meetsMinimum reports whether argon2id parameters are at or above OWASP's minimum.
func meetsMinimum(memoryKiB, time uint32) bool {
	for _, m := range minimum {
		if memoryKiB >= m.memoryKiB && time >= m.time {
			return true
		}
	}
	return false
}
