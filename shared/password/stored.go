package password

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// An Unverifiable is the error for a stored hash that cannot be checked: it is
// malformed, of an unknown form, or asks for more work than is given to anybody.
// No password fits it. It means that the database was damaged, tampered with, or
// filled by an import that nobody tried. It never carries the hash.
type Unverifiable struct{ reason string }

func (e *Unverifiable) Error() string { return "the stored password hash " + e.reason }

// bounds are what a stored hash may ask for. They are checked before any of it is
// used: whoever can write to one record, or import one, must not be able to stop
// the function by it.
type bounds struct {
	memoryKiB uint64 // at once
	time      uint64 // passes over it
	workKiB   uint64 // memory times passes
}

// importable is meant to take in what the common frameworks write, at a cost of
// about half a second of one core: 128 MiB is the largest scrypt setting of OWASP
// (N=2¹⁷, r=8) and holds RFC 9106's 64 MiB option and Django's 100 MiB.
var importable = bounds{memoryKiB: 128 << 10, time: 16, workKiB: 1 << 20}

// More bounds, of the parts that cost little but have no reason to be large.
const (
	maxStored     = 512 // bytes of the whole string
	maxThreads    = 16  // argon2 and scrypt lanes
	maxScryptLogN = 20
	maxScryptR    = 32
	maxScryptKiB  = 256 << 10 // 128·N·r·p bytes, twice OWASP's; scrypt is slower a byte than argon2
	maxBcryptCost = 14        // doubles at each step; 12 is a quarter to half a second, 10 OWASP's least
	minSalt       = 8         // RFC 9106 §3.1
	minScryptSalt = 4         // scrypt sets none; RFC 7914 §12 itself uses four
	maxSalt       = 64
	minKey        = 16 // less would be found by chance; an empty key would fit every password
	maxKey        = 64
)

// widened lets in what this Hasher itself makes, however large it is set.
func (b bounds) widened(memoryKiB, time uint32) bounds {
	return bounds{
		memoryKiB: max(b.memoryKiB, uint64(memoryKiB)),
		time:      max(b.time, uint64(time)),
		workKiB:   max(b.workKiB, uint64(memoryKiB)*uint64(time)),
	}
}

// A stored is a hash as it was read, within bounds. Its String is what was parsed,
// byte for byte: there is one spelling of each.
type stored interface {
	memory() uint32 // KiB that checking it takes
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
		return parseAncestor(s)
	}
	return nil, &Unverifiable{"is of an unknown form"}
}

// An argon2idHash is $argon2id$v=19$m=19456,t=2,p=1$salt$key. Version 19 (0x13)
// is RFC 9106; strings without a version are of an earlier one.
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
		return nil, &Unverifiable{"is of an unknown version of argon2id"}
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

// A scryptHash is either $scrypt$ln=14,r=8,p=1$salt$key, as passlib writes it, or
// the ancestor's hex(key).salt. The ancestor took Node's defaults, N=2¹⁴, r=8,
// p=1, and as salt the bytes of a hexadecimal string, not those it stands for.
type scryptHash struct {
	logN, r, p int
	salt, key  []byte
	ancestor   bool
}

// memory is the table V of RFC 7914 §5: 128·r·N bytes.
func (s scryptHash) memory() uint32 { return uint32(s.r << s.logN >> 3) }

func (s scryptHash) String() string {
	if s.ancestor {
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

// The ancestor's form: a key of 64 bytes and a salt of 8, both in lower-case hex.
const (
	ancestorKey  = 64
	ancestorSalt = 8
)

func parseAncestor(s string) (stored, error) {
	key, salt, ok := strings.Cut(s, ".")
	if !ok || !isHex(key, ancestorKey) || !isHex(salt, ancestorSalt) {
		return nil, &Unverifiable{"is of an unknown form"}
	}
	k, _ := hex.DecodeString(key)
	return scryptHash{logN: 14, r: 8, p: 1, salt: []byte(salt), key: k, ancestor: true}, nil
}

func isHex(s string, bytes int) bool {
	return len(s) == 2*bytes && strings.Trim(s, "0123456789abcdef") == ""
}

// A bcryptHash is $2b$10$ and 53 characters, kept as it is: the library reads it.
// The letters a, b and y name the same algorithm; x, a faulty one, is refused. The
// bits of the salt's last character that stand for nothing are not looked at,
// because several libraries wrote them at random.
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

// base64PHC is the PHC string format's: the standard alphabet without padding.
// Strict: bits that stand for nothing must be zero.
var base64PHC = base64.RawStdEncoding.Strict()

// parsePHC reads name=number,name=number,name=number$salt$key.
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

// decodePHC refuses the line breaks that encoding/base64 passes over.
func decodePHC(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64PHC.DecodeString(s)
	return b, err == nil
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
