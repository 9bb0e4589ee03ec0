package revocation

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxHashes = 32
	minBytes  = 64 // of a new filter: in a smaller one, the positions of an id coincide
	maxBytes  = 8 << 20
)

// A Filter is a Bloom filter of session ids. It contains every id that was added, and few others:
// ask the introspection endpoint about a hit. Its JSON form is {"hashes":10,"bits":"…"}, with the
// bits in base64url without padding.
//
// The positions of an id come from its SHA-256 digest d: h1 is the first 8 bytes of d and h2 the
// next 8 bytes, both big-endian, with the lowest bit of h2 set. Position i is
// ((h1 + i*h2) mod 2^64) mod m for 0 ≤ i < hashes, where m is the number of bits. Bit p is the
// mask 1<<(p&7) of byte p>>3.
type Filter struct {
	hashes int
	bits   []byte
}

// NewFilter returns an empty filter. After n ids were added, it contains other ids with the
// probability falsePositives, such as 0.001. A filter has at most 8 MiB, so the probability is
// higher above about 4,600,000 ids at 0.001.
func NewFilter(n int, falsePositives float64) *Filter {
	ids := float64(max(n, 1))
	size := min(max(int(math.Ceil(-ids*math.Log(falsePositives)/(math.Ln2*math.Ln2)/8)), minBytes), maxBytes)
	hashes := math.Round(min(-math.Log2(falsePositives), float64(8*size)/ids*math.Ln2))
	return &Filter{min(max(int(hashes), 1), maxHashes), make([]byte, size)}
}

// Add adds a session id.
func (f *Filter) Add(session string) {
	for position := range f.positions(session) {
		f.bits[position>>3] |= 1 << (position & 7)
	}
}

// Contains reports whether the filter contains a session id. It is always true for an id that
// was added.
func (f *Filter) Contains(session string) bool {
	for position := range f.positions(session) {
		if f.bits[position>>3]&(1<<(position&7)) == 0 {
			return false
		}
	}
	return true
}

// Size returns the size of the bits, in bytes.
func (f *Filter) Size() int { return len(f.bits) }

func (f *Filter) positions(session string) func(yield func(uint64) bool) {
	d := sha256.Sum256([]byte(session))
	h1, h2 := binary.BigEndian.Uint64(d[:8]), binary.BigEndian.Uint64(d[8:16])|1
	m := 8 * uint64(len(f.bits))
	return func(yield func(uint64) bool) {
		for range f.hashes {
			if !yield(h1 % m) {
				return
			}
			h1 += h2
		}
	}
}

type filterJSON struct {
	Hashes int    `json:"hashes"`
	Bits   string `json:"bits"`
}

var b64 = base64.RawURLEncoding.Strict()

// MarshalJSONTo implements json.MarshalerTo.
func (f *Filter) MarshalJSONTo(e *jsontext.Encoder) error {
	return json.MarshalEncode(e, filterJSON{f.hashes, b64.EncodeToString(f.bits)})
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *Filter) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var in filterJSON
	if err := json.UnmarshalDecode(d, &in); err != nil {
		return err
	}
	if in.Hashes < 1 || in.Hashes > maxHashes {
		return errors.New("hashes is not a number from 1 to 32")
	}
	if len(in.Bits) > b64.EncodedLen(maxBytes) {
		return errors.New("the filter is larger than 8 MiB")
	}
	bits, err := b64.DecodeString(in.Bits)
	// Package base64 skips line breaks, even in strict mode.
	if err != nil || len(bits) == 0 || len(in.Bits) != b64.EncodedLen(len(bits)) {
		return errors.New("bits is not base64url")
	}
	f.hashes, f.bits = in.Hashes, bits
	return nil
}
