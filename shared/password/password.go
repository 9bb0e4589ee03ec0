// Package password turns a password into what is stored of it, and checks a
// password against that.
//
// What it stores is argon2id (RFC 9106) in the PHC string format, with the
// parameters of the OWASP Password Storage Cheat Sheet: 19 MiB, two passes, one
// lane. What it can check is that with any parameters in bounds, and what
// accounts from elsewhere bring along: bcrypt, scrypt, and the hex(scrypt).salt of
// the platform's Node.js ancestor. Verify calls those stale, and a sign-in replaces
// them.
//
// A password is taken byte for byte: nothing is trimmed, normalised or cut, NUL and
// the bytes beyond the 72nd count. Only bcrypt reads no more than 72 bytes, so an
// imported bcrypt hash keeps that weakness until its owner signs in and it is
// replaced by one of the whole password.
//
// A hash costs some 20 ms of a core and 19 MiB, nearly all that a sign-in costs, and
// anybody may ask for one. So every hash passes through a gate that lets in what
// fits the cores and the memory, lets a bounded number wait for a bounded time, and
// turns the others away with a fault that says when to come back (see gate).
//
// It is called by signup and signin. It does not decide which passwords may be
// chosen: that is package choice, kept apart so that its word lists are linked
// into signup alone.
package password

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// MaxBytes is the length of the longest password that is looked at. NIST SP
// 800-63B §3.1.1.2 asks for 64 characters at least; 256 of four bytes fit.
const MaxBytes = 1024

// TooLong tells the owner of a longer one.
const TooLong = "Password is too long."

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
		fresh.key = h.key(fresh, keyLength, plain)
		return nil
	})
	if err != nil {
		return "", err
	}
	return fresh.String(), nil
}

// Verify tells whether a password is the one that was stored. A right one is also
// stale where the stored hash is not what Hash would make today: the caller, who
// has the password at hand, then stores a new one. A wrong one is never stale, so
// that it can never replace a right one.
//
// It returns an *Unverifiable for a stored hash that is malformed or out of
// bounds, after the work of one hash: by the time it takes, such an account cannot
// be told from another.
func (h *Hasher) Verify(ctx context.Context, stored, plain string) (ok, stale bool, err error) {
	s, err := parse(stored, h.bounds)
	if err == nil && !h.gate().fits(s.memory()) {
		err = &Unverifiable{"needs more memory than there is"}
	}
	if err != nil {
		return false, false, cmp.Or(h.Decoy(ctx, plain), err)
	}
	err = h.admit(ctx, s.memory(), func() (err error) {
		ok, err = h.matches(s, plain)
		return err
	})
	return ok, ok && !h.current(s), err
}

// Decoy does the work of checking a password against a hash made by Hash, and
// forgets the result. A sign-in for an email that nobody has calls it, so that it
// takes as long as a wrong password and does not tell which emails have accounts
// (OWASP Authentication: user enumeration). An account whose hash is imported
// answers at the speed of its own scheme until that hash is replaced.
func (h *Hasher) Decoy(ctx context.Context, plain string) error {
	nobody := argon2idHash{memoryKiB: h.memoryKiB, time: h.time, threads: 1,
		salt: make([]byte, saltLength), key: make([]byte, keyLength)}
	return h.admit(ctx, nobody.memory(), func() error {
		_, err := h.matches(nobody, plain)
		return err
	})
}

// Room returns what Hash, Verify and Decoy would return now if there is not even room
// in the line. Who asks first spares the database a flood that comes to nothing.
func (h *Hasher) Room() error {
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
func (h *Hasher) matches(s stored, plain string) (bool, error) {
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
		return true, nil
	}
	panic(fmt.Sprintf("password: no way to check a %T", s))
}

// current tells whether a stored hash is of the form and strength of a new one.
func (h *Hasher) current(s stored) bool {
	a, ok := s.(argon2idHash)
	return ok && a.memoryKiB == h.memoryKiB && a.time == h.time && a.threads == 1 &&
		len(a.salt) == saltLength && len(a.key) == keyLength
}
