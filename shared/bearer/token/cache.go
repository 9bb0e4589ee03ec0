package token

import (
	"crypto/sha256"
	"sync"
)

// A cache holds the claims of tokens that were verified recently, by the digest of the token. The
// digest covers the signature. So an attacker cannot use the entry of another token, and a copy of
// the memory holds no token.
//
// It has two generations. When the new one is full, it replaces the old one. So the cache is
// bounded, and a token in use stays in it.
type cache struct {
	size     int // of a generation
	mu       sync.Mutex
	new, old map[[sha256.Size]byte]entry
}

type entry struct {
	keyID  string
	claims *claims // never changed
}

func digest(raw string) [sha256.Size]byte { return sha256.Sum256([]byte(raw)) }

func newCache(size int) *cache { return &cache{size: size / 2} }

func (c *cache) get(digest [sha256.Size]byte) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.new[digest]
	if !ok {
		if e, ok = c.old[digest]; ok {
			c.add(digest, e)
		}
	}
	return e, ok
}

func (c *cache) put(digest [sha256.Size]byte, e entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(digest, e)
}

func (c *cache) add(digest [sha256.Size]byte, e entry) {
	if c.size < 1 {
		return
	}
	if len(c.new) >= c.size {
		c.old, c.new = c.new, nil
	}
	if c.new == nil {
		c.new = make(map[[sha256.Size]byte]entry)
	}
	c.new[digest] = e
}
