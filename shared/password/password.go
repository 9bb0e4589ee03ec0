// Package password turns a password into what is stored of it, and checks a
// password against that.
//
// Hash makes argon2id (RFC 9106) in the PHC string format, by default with the
// parameters of the OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one lane.
// Verify also checks argon2id with other parameters in bounds, bcrypt, scrypt, and the
// hex(scrypt).salt of the platform's Node.js ancestor. It reports such a hash as stale,
// and a sign-in replaces it, unless that would weaken it or the password is not known
// whole (see Verify).
//
// A password is normalised (see Normalize) and otherwise taken byte for byte: nothing
// is trimmed or cut, and the bytes beyond the 72nd count.
//
// A hash takes about 20 ms of a core and 19 MiB, and any client may ask for one. So every
// hash passes a gate. It admits what fits the cores and the memory, queues a bounded
// number for a bounded time, and rejects the rest with a fault that has a Retry-After.
//
// Package password is used by signup and signin. It does not decide which passwords may
// be chosen: package policy does.
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

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"

	"ticketing.com/auth/shared/apierror"
)

const (
	// MaxBytes is the length of the longest password, in bytes after Normalize. NIST SP
	// 800-63B section 3.1.1.2 asks for 64 characters at least; 256 of four bytes fit.
	MaxBytes = 1024
	// maxRaw is the length, in bytes before Normalize, beyond which a password is not read.
	// 256 characters have at most 9 bytes each in any Unicode form: a Hangul syllable in
	// three letters.
	maxRaw = 4096
)

// TooLong is the reason, for the user, why a password over MaxBytes is refused.
const TooLong = "Password is too long."

// IsTooLong reports whether a password is longer than MaxBytes, alike for each Unicode form
// of it.
func IsTooLong(plain string) bool { return len(plain) > maxRaw || len(Normalize(plain)) > MaxBytes }

// The form of a new hash.
const (
	defaultMemoryKiB = 19 << 10 // OWASP Password Storage: m=19456, t=2, p=1
	defaultTime      = 2
	minMemoryKiB     = 8  // RFC 9106 §3.1: 8 KiB a lane
	saltLength       = 16 // bytes; RFC 9106 §3.1 recommends 16
	keyLength        = 32 // bytes; 256 bits, as in both options of RFC 9106 §4
)

// defaultWait is how long a caller queues: as long as a person hardly notices
// beside a cold start, and so that who is turned away knows it within a second, the
// way to the database included.
const defaultWait = 800 * time.Millisecond

// Config is what an operator may set. Every zero stands for a default.
type Config struct {
	MemoryKiB   uint32        // memory of one hash; 19456
	Time        uint32        // passes over that memory; 2
	Concurrency int           // hashes at once; by CPU and memory limit
	Wait        time.Duration // the longest wait for a turn; 800 ms
	Queue       int           // how many may wait; as many as Wait can serve, and none if negative
	MemoryLimit int64         // bytes this process may use; GOMEMLIMIT and the cgroup are asked
	Random      io.Reader     // where salts come from; crypto/rand
}

// A Hasher makes and checks hashes. It may be used by many at once.
type Hasher struct {
	memoryKiB, time uint32
	bounds          bounds
	random          io.Reader
	gate            func() *gate // made when the first hash needs it
	argon2id        argon2Func
}

// argon2Func is argon2.IDKey, or what a test counts calls with.
type argon2Func func(password, salt []byte, time, memoryKiB uint32, threads uint8, keyLength uint32) []byte

// New returns a Hasher. It does no work: a function that never hashes does not
// even ask for its memory limit.
func New(c Config) *Hasher {
	h := &Hasher{
		memoryKiB: max(cmp.Or(c.MemoryKiB, defaultMemoryKiB), minMemoryKiB),
		time:      cmp.Or(c.Time, defaultTime),
		random:    cmp.Or(c.Random, rand.Reader),
		argon2id:  argon2.IDKey,
	}
	h.bounds = importable.widened(h.memoryKiB, h.time)
	h.gate = sync.OnceValue(func() *gate { return newGate(c, h.memoryKiB, h.time) })
	return h
}

// Hash returns what to store of a password: a PHC string.
//
// It returns the context's error if that ends before the hash begins, and a
// fault of kind Unavailable, which is ErrBusy, if there is no room; so do Verify
// and Decoy. A hash that has begun runs to its end: argon2 cannot be stopped.
func (h *Hasher) Hash(ctx context.Context, plain string) (string, error) {
	fresh := argon2idHash{memoryKiB: h.memoryKiB, time: h.time, threads: 1, salt: make([]byte, saltLength)}
	if _, err := io.ReadFull(h.random, fresh.salt); err != nil {
		return "", fmt.Errorf("draw a salt: %w", err)
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

// Verify reports whether a password is the one that a stored hash was made of. A right
// password is also stale where the caller should store a new Hash of it: the stored hash
// has another form or other parameters, or it was made before passwords were normalised.
//
// A right password is not stale, whatever the stored hash is, where a new hash would be
// weaker (see weaker), or where the stored hash is bcrypt and the password has 72 bytes or
// more. bcrypt ignores what follows the 72nd byte, so a password of that length may be
// only the beginning of the right one, or have another end. A wrong password is never
// stale.
//
// A password with two Unicode forms is compared in both, even if the first matches: see
// forms. So the work depends on the password alone and is the same in Decoy.
//
// It returns an *Unverifiable for a stored hash that is malformed or out of bounds, after
// the work of Decoy, so that the time does not reveal such an account. For a hash that
// needs more memory than this process may use, it returns a fault of kind Unavailable
// whose cause is an *OverMemory.
func (h *Hasher) Verify(ctx context.Context, stored, plain string) (ok, stale bool, err error) {
	s, err := parse(stored, h.bounds)
	if err != nil {
		return false, false, cmp.Or(h.Decoy(ctx, plain), err)
	}
	if err := h.gate().fits(s.memory()); err != nil {
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

// bcryptBytes is how much of a password bcrypt reads.
const bcryptBytes = 72

// Decoy does the work of checking a password against a hash made by Hash, and
// forgets the result. A sign-in for an email that nobody has calls it, so that it
// takes as long as a wrong password and does not tell which emails have accounts
// (OWASP Authentication: user enumeration). An account whose hash is imported
// answers at the speed of its own scheme until that hash is replaced.
func (h *Hasher) Decoy(ctx context.Context, plain string) error {
	nobody := argon2idHash{memoryKiB: h.memoryKiB, time: h.time, threads: 1,
		salt: make([]byte, saltLength), key: make([]byte, keyLength)}
	_, _, err := h.compare(ctx, nobody, plain)
	return err
}

// compare compares every form of a password with a stored hash, and returns the first
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

// Room returns what Hash, Verify and Decoy would return now if there is not even room
// in the line. Who asks first spares the database a flood that comes to nothing.
func (h *Hasher) Available() error {
	if g := h.gate(); g.isFull() {
		return g.busy()
	}
	return nil
}

// admit does a work of so much memory when there is room for it.
func (h *Hasher) admit(ctx context.Context, memoryKiB uint32, work func() error) error {
	leave, err := h.gate().enter(ctx, memoryKiB)
	if err != nil {
		return err
	}
	defer leave()
	return work()
}

func (h *Hasher) key(a argon2idHash, length int, plain string) []byte {
	return h.argon2id([]byte(plain), a.salt, a.time, a.memoryKiB, a.threads, uint32(length))
}

// matches compares in constant time.
//
// A hash larger than the configured one is made on a heap without garbage: a block of
// 128 MiB that the collector has not freed yet and another would exceed the limit.
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
		// "a\x00a" give the same hash. Other implementations refuse a NUL or end there.
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
