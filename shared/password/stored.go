package password

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// An Unverifiable is the error for a stored hash that Verify cannot check. The hash is
// malformed, has an unknown format, or needs more work than the bounds allow. No password matches it.
// The cause is a damaged or manipulated database, or an import without a test. The error
// never contains the hash.
type Unverifiable struct{ reason string }

func (e *Unverifiable) Error() string { return "the stored password hash " + e.reason }

// bounds limit the work of a stored hash. parse checks them before any part of the hash is
// used. Otherwise, an attacker that can write or import one record could stop the function
// with it.
type bounds struct {
	memoryKiB uint64
	time      uint64 // passes over the memory
	workKiB   uint64 // memory times passes
}

// importable are the bounds of imported hashes. They admit the defaults of common frameworks,
// at a cost of about half a second of one core. 128 MiB is the largest scrypt setting of OWASP
// (N=2¹⁷, r=8) and includes RFC 9106's 64 MiB option and Django's 100 MiB.
var importable = bounds{memoryKiB: 128 << 10, time: 16, workKiB: 1 << 20}

// Bounds of the parts that cost little but have no reason to be large.
const (
	maxStored     = 512 // bytes of the whole string
	maxThreads    = 16  // argon2 and scrypt lanes
	maxScryptLogN = 20
	maxScryptR    = 32
	maxScryptKiB  = 256 << 10 // 128·N·r·p bytes, twice OWASP's; scrypt is slower per byte than argon2
	maxBcryptCost = 14        // doubles at each step; 12 takes 0.25 to 0.5 s; OWASP's minimum is 10
	minSalt       = 8         // RFC 9106 §3.1
	minScryptSalt = 4         // scrypt has no minimum; RFC 7914 §12 uses four
	maxSalt       = 64
	minKey        = 16 // a shorter key can match by chance, an empty key matches every password
	maxKey        = 64
)

// widened returns bounds that also admit the configured parameters of new hashes.
func (b bounds) widened(memoryKiB, time uint32) bounds {
	return bounds{
		memoryKiB: max(b.memoryKiB, uint64(memoryKiB)),
		time:      max(b.time, uint64(time)),
		workKiB:   max(b.workKiB, uint64(memoryKiB)*uint64(time)),
	}
}

// A stored is a parsed hash within the bounds. String returns the parsed text byte for byte,
// since each hash has one spelling.
type stored interface {
	memory() uint32 // KiB that a comparison takes
	String() string
}

// parse reads a stored hash. All its errors are *Unverifiable.
func parse(s string, b bounds) (stored, error) {
	switch {
	case len(s) > maxStored:
		return nil, &Unverifiable{"is too long"}
	case strings.HasPrefix(s, "$argon2id$"):
		return parseArgon2id(s, b)
	case strings.HasPrefix(s, "$scrypt$"):
		return parseScrypt(s, b)
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		return parseBcrypt(s)
	case !strings.HasPrefix(s, "$"):
		return parseNode(s)
	}
	return nil, &Unverifiable{"has an unknown format"}
}

// An argon2idHash is $argon2id$v=19$m=19456,t=2,p=1$salt$key. Version 19 (0x13) is that of
// RFC 9106. Strings without a version have an earlier one.
type argon2idHash struct {
	memoryKiB, time uint32
	threads         uint8
	salt, key       []byte
}

func (a argon2idHash) memory() uint32 { return a.memoryKiB }

func (a argon2idHash) String() string {
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s",
		a.memoryKiB, a.time, a.threads, base64PHC.EncodeToString(a.salt), base64PHC.EncodeToString(a.key))
}

func parseArgon2id(s string, b bounds) (stored, error) {
	rest, ok := strings.CutPrefix(s, "$argon2id$v=19$")
	if !ok {
		return nil, &Unverifiable{"has an unknown version of argon2id"}
	}
	n, salt, key, err := parsePHC(rest, "m", "t", "p")
	if err != nil {
		return nil, err
	}
	m, t, p := n[0], n[1], n[2]
	switch {
	case m > b.memoryKiB, t > b.time, m*t > b.workKiB, p > maxThreads, m < minMemoryKiB*p, len(salt) < minSalt:
		return nil, &Unverifiable{"has parameters out of bounds"}
	}
	return argon2idHash{uint32(m), uint32(t), uint8(p), salt, key}, nil
}

// A scryptHash is either $scrypt$ln=14,r=8,p=1$salt$key, the format of passlib, or
// hex(key).salt, the format of the earlier Node.js service. That service used the defaults of
// Node.js: N=2¹⁴, r=8, p=1. Its salt is the text of a hexadecimal string, not the decoded
// bytes.
type scryptHash struct {
	logN, r, p int
	salt, key  []byte
	node       bool // the format of the earlier Node.js service
}

// memory returns the size of the table V of RFC 7914 §5: 128·r·N bytes.
func (s scryptHash) memory() uint32 { return uint32(s.r << s.logN >> 3) }

func (s scryptHash) String() string {
	if s.node {
		return hex.EncodeToString(s.key) + "." + string(s.salt)
	}
	return fmt.Sprintf("$scrypt$ln=%d,r=%d,p=%d$%s$%s",
		s.logN, s.r, s.p, base64PHC.EncodeToString(s.salt), base64PHC.EncodeToString(s.key))
}

func parseScrypt(s string, b bounds) (stored, error) {
	n, salt, key, err := parsePHC(strings.TrimPrefix(s, "$scrypt$"), "ln", "r", "p")
	if err != nil {
		return nil, err
	}
	logN, r, p := n[0], n[1], n[2]
	switch {
	case logN > maxScryptLogN, r > maxScryptR, p > maxThreads,
		r<<logN>>3 > b.memoryKiB, p*r<<logN>>3 > maxScryptKiB,
		logN >= 16*r, // RFC 7914 §2: N < 2^(128·r/8)
		len(salt) < minScryptSalt:
		return nil, &Unverifiable{"has parameters out of bounds"}
	}
	return scryptHash{logN: int(logN), r: int(r), p: int(p), salt: salt, key: key}, nil
}

// Lengths, in bytes, in the format of the earlier Node.js service. Both parts are in
// lower-case hex.
const (
	nodeKey  = 64
	nodeSalt = 8
)

func parseNode(s string) (stored, error) {
	key, salt, ok := strings.Cut(s, ".")
	if !ok || !isHex(key, nodeKey) || !isHex(salt, nodeSalt) {
		return nil, &Unverifiable{"has an unknown format"}
	}
	k, _ := hex.DecodeString(key)
	return scryptHash{logN: 14, r: 8, p: 1, salt: []byte(salt), key: k, node: true}, nil
}

func isHex(s string, bytes int) bool {
	return len(s) == 2*bytes && strings.Trim(s, "0123456789abcdef") == ""
}

// A bcryptHash is $2b$10$ and 53 characters, stored as text because package bcrypt parses it.
// The letters a, b and y name the same algorithm; x names a faulty one and is rejected. The
// unused bits in the last character of the salt may have any value, because several libraries
// wrote them at random.
type bcryptHash struct{ text string }

const bcryptAlphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func (bcryptHash) memory() uint32   { return 4 } // Blowfish's tables
func (b bcryptHash) String() string { return b.text }

func parseBcrypt(s string) (stored, error) {
	const length = len("$2b$10$") + 22 + 31
	if len(s) != length {
		return nil, &Unverifiable{"is malformed"}
	}
	digits, mark, rest := s[4:6], s[6], s[7:]
	if !isDigits(digits) || mark != '$' || strings.Trim(rest, bcryptAlphabet) != "" ||
		strings.IndexByte(bcryptAlphabet, s[length-1])&3 != 0 {
		return nil, &Unverifiable{"is malformed"}
	}
	if cost, _ := strconv.Atoi(digits); cost < bcrypt.MinCost || cost > maxBcryptCost {
		return nil, &Unverifiable{"has parameters out of bounds"}
	}
	return bcryptHash{s}, nil
}

// base64PHC is the base64 of the PHC string format: the standard alphabet without padding.
// Strict requires unused bits to be zero.
var base64PHC = base64.RawStdEncoding.Strict()

// parsePHC parses name=number,name=number,name=number$salt$key.
func parsePHC(s string, names ...string) (numbers [3]uint64, salt, key []byte, err error) {
	malformed := &Unverifiable{"is malformed"}
	parts := strings.Split(s, "$")
	if len(parts) != 3 {
		return numbers, nil, nil, malformed
	}
	params := strings.Split(parts[0], ",")
	if len(params) != len(names) {
		return numbers, nil, nil, malformed
	}
	for i, name := range names {
		digits, ok := strings.CutPrefix(params[i], name+"=")
		if numbers[i], err = strconv.ParseUint(digits, 10, 31); !ok || err != nil || !isDigits(digits) || digits[0] == '0' {
			return numbers, nil, nil, malformed
		}
	}
	salt, okSalt := decodePHC(parts[1])
	key, okKey := decodePHC(parts[2])
	switch {
	case !okSalt, !okKey:
		return numbers, nil, nil, malformed
	case len(salt) > maxSalt, len(key) < minKey, len(key) > maxKey:
		return numbers, nil, nil, &Unverifiable{"has a salt or key out of bounds"}
	}
	return numbers, salt, key, nil
}

// decodePHC decodes base64. It rejects line breaks, which encoding/base64 ignores.
func decodePHC(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64PHC.DecodeString(s)
	return b, err == nil
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
