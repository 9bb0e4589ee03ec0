package password

import (
	"errors"
	"strings"
	"testing"
)

// Stored hashes with known passwords, from other programs.
const (
	// phc-winner-argon2, test.c.
	argon2id64MiB = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	argon2idSmall = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	argon2idLanes = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"
	// The reference argon2(1) with the parameters and lengths of a new hash.
	argon2idNew = "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gy5SuVm5Z7Vw7keB9se9p87QGcomaseB/S2U1OhTsM0"
	// The same, with the parameters of Django.
	argon2idDjango = "$argon2id$v=19$m=102400,t=2,p=8$MDEyMzQ1Njc4OWFiY2RlZjAxMjNhYg$pK9xdEAkIiELtT1bUsEkCo/QwAdCfZx0F4XJMRXMDwo"
	// Python: hashlib.scrypt.
	scrypt64MiB  = "$scrypt$ln=16,r=8,p=1$TmFDbCBvZiBzaXh0ZWVuIQ$UnSTIi0YhaqB9/xHA2Rhp3yEdmb3oyQAVBGJnBTMcAU"
	scrypt128MiB = "$scrypt$ln=17,r=8,p=1$TmFDbCBvZiBzaXh0ZWVuIQ$mb0XHAZImMmBGxvNJXWrUhKTK5AqhVRBhkN/Wh2Be/8"
	// RFC 7914 §12, the second and third vector.
	scryptRFC1024  = "$scrypt$ln=10,r=8,p=16$TmFDbA$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA"
	scryptRFC16384 = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw"
	// Node.js: crypto.scryptSync(password, salt, 64).toString("hex") + "." + salt.
	nodeASCII = "d77b5d60b3fa0b7becbba6a7bc272294aa7b16b4c43f13d645d1e9d1514d55946f720f766c19d23f70d977d192b23a9bdcdb66898f46dbec378bce0e2d5ad3e1.0011223344556677"
	nodeUTF8  = "c18554180e3f7e4521e432974d0c5996bc17c0dcaa042e93ca196de2a48c0b0bce14723bd507bb88a9a8616b5eee1d4188896bc8849fc3b9bcf4476eef0b7285.9f86d081884c7d65"
	// crypt_blowfish, wrapper.c (there all as 2a; the letter names no difference).
	bcryptOne = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
	bcryptB   = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"
	bcryptY   = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy" // of the empty password
	bcrypt72  = "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"
)

var vectors = []struct {
	name, stored, plain string
	stale               bool
}{
	{"argon2id of 64 MiB", argon2id64MiB, "password", false},
	{"argon2id of 256 KiB", argon2idSmall, "password", true},
	{"argon2id of two lanes", argon2idLanes, "password", true},
	{"argon2id with the default parameters", argon2idNew, "correct horse battery staple", false},
	{"argon2id of Django, 100 MiB", argon2idDjango, "correct horse battery staple", false},
	{"scrypt of 64 MiB", scrypt64MiB, "correct horse battery staple", true},
	{"scrypt of 128 MiB", scrypt128MiB, "correct horse battery staple", true},
	{"scrypt of RFC 7914, sixteen lanes", scryptRFC1024, "password", true},
	{"scrypt of RFC 7914, 16 MiB", scryptRFC16384, "pleaseletmein", true},
	{"the Node.js service", nodeASCII, "password", true},
	{"the Node.js service, with a password beyond ASCII", nodeUTF8, "pässword ☃", true},
	{"bcrypt 2a", bcryptOne, "U*U", true},
	{"bcrypt 2b", bcryptB, "U*U*", true},
	{"bcrypt 2y of the empty password", bcryptY, "", true},
	{"bcrypt of 72 bytes and more", bcrypt72, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored", false},
}

const (
	salt16 = "MDEyMzQ1Njc4OWFiY2RlZg"                      // 16 bytes
	key32  = "gy5SuVm5Z7Vw7keB9se9p87QGcomaseB/S2U1OhTsM0" // 32 bytes
)

var malformed = map[string][]string{
	"no hash": {
		"", "$", "$$", "password", "$argon2id", "$argon2id$", "$2b$", "$scrypt$", ".", strings.Repeat("$", 500)},
	"an algorithm that is not accepted": {
		"$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY",
		"$argon2d$v=19$m=19456,t=2,p=1$" + salt16 + "$" + key32,
		"$ARGON2ID$v=19$m=19456,t=2,p=1$" + salt16 + "$" + key32,
		"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$1$salt$qJH7.N4xYta3aEG/dfqo/0", "{SSHA}MDEyMzQ1Njc4OWFiY2RlZg=="},
	"argon2id of another version, or none": {
		"$argon2id$m=19456,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=16$m=19456,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=019$m=19456,t=2,p=1$" + salt16 + "$" + key32},
	"parameters missing, doubled, unknown or in another order": {
		"$argon2id$v=19$m=19456,t=2$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,m=19456,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$t=2,m=19456,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1,keyid=Zm9v$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1,$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456, t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$$" + salt16 + "$" + key32,
		"$scrypt$n=14,r=8,p=1$" + salt16 + "$" + key32,
		"$scrypt$r=8,ln=14,p=1$" + salt16 + "$" + key32},
	"numbers of more than one spelling": {
		"$argon2id$v=19$m=019456,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=+19456,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=-19456,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19_456,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=0x4c00,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=٢$" + salt16 + "$" + key32},
	"numbers out of bounds": {
		"$argon2id$v=19$m=0,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=7,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=15,t=2,p=2$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=131073,t=1,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=131072,t=9,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=0,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=17,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=0$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=17$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=4294967295,t=4294967295,p=255$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=18446744073709551616,t=2,p=1$" + salt16 + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=257$" + salt16 + "$" + key32,
		"$scrypt$ln=0,r=8,p=1$" + salt16 + "$" + key32,
		"$scrypt$ln=18,r=8,p=1$" + salt16 + "$" + key32,
		"$scrypt$ln=63,r=8,p=1$" + salt16 + "$" + key32,
		"$scrypt$ln=64,r=8,p=1$" + salt16 + "$" + key32,
		"$scrypt$ln=14,r=33,p=1$" + salt16 + "$" + key32,
		"$scrypt$ln=14,r=1073741824,p=1$" + salt16 + "$" + key32,
		"$scrypt$ln=14,r=8,p=17$" + salt16 + "$" + key32,
		"$scrypt$ln=17,r=8,p=3$" + salt16 + "$" + key32,
		"$scrypt$ln=16,r=1,p=1$" + salt16 + "$" + key32,
		"$2b$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$15$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$99$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
	"a salt or key too short or too long": {
		"$argon2id$v=19$m=19456,t=2,p=1$$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Ng$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1$" + strings.Repeat("MDEy", 22) + "$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt16 + "$",
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt16 + "$MDEyMzQ1Njc4OWFiY2Rl",
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt16 + "$" + strings.Repeat("MDEy", 22),
		"$scrypt$ln=14,r=8,p=1$$" + key32,
		"$scrypt$ln=14,r=8,p=1$MDEy$" + key32,
		"$scrypt$ln=14,r=8,p=1$" + salt16 + "$"},
	"base64 of more than one spelling": {
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt16 + "==$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZh$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt16 + "$gy5SuVm5Z7Vw7keB9se9p87QGcomaseB_S2U1OhTsM0",
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt16 + "$gy5SuVm5Z7Vw7keB9se9p87QGcomaseB/S2U1OhTsM1",
		"$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OW\nFiY2RlZg$" + key32,
		"$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OW\rFiY2RlZg$" + key32,
		"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeX"},
	"additional characters": {
		" " + argon2idNew, argon2idNew + " ", argon2idNew + "\n", argon2idNew + "$", argon2idNew + "$x", argon2idNew + "\x00",
		bcryptOne + " ", bcryptOne[:59], " " + bcryptOne, bcryptOne + "\x00",
		scryptRFC16384 + "$", "\n" + scryptRFC16384,
		nodeASCII + ".", nodeASCII + "\n", " " + nodeASCII, nodeASCII + "00"},
	"bcrypt in other characters": {
		"$2b$5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeWW",
		"$2b$+5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$05.CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$05$CCCCCCCCCC=CCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4+MJKvyOeW"},
	"nearly the format of the Node.js service": {
		strings.ToUpper(nodeASCII), nodeASCII[2:], strings.Replace(nodeASCII, ".", ":", 1), nodeASCII[:128], nodeASCII[:129],
		nodeASCII[:129] + "00112233445566zz", nodeASCII[:129] + "00112233"},
	"too long": {strings.Repeat("a", maxStored+1), argon2idNew + strings.Repeat(" ", maxStored)},
}

func TestParse_InvalidHash(t *testing.T) {
	t.Parallel()
	for name, list := range malformed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range list {
				got, err := parse(s, importable)
				if _, ok := errors.AsType[*Unverifiable](err); !ok {
					t.Errorf("parse(%q) = %v, %v, want an *Unverifiable", s, got, err)
				}
				if err != nil && len(s) > 20 && strings.Contains(err.Error(), s) {
					t.Errorf("the error contains the hash: %v", err)
				}
			}
		})
	}
}

func TestParse_WithinBounds(t *testing.T) {
	t.Parallel()
	for s, memory := range map[string]uint32{
		argon2id64MiB: 64 << 10,
		"$argon2id$v=19$m=8,t=1,p=1$" + salt16 + "$" + key32:       8,
		"$argon2id$v=19$m=131072,t=8,p=16$" + salt16 + "$" + key32: 128 << 10,
		"$argon2id$v=19$m=65536,t=16,p=1$" + salt16 + "$" + key32:  64 << 10,
		"$argon2id$v=19$m=102400,t=2,p=8$" + salt16 + "$" + key32:  100 << 10, // Django
		"$scrypt$ln=17,r=8,p=1$" + salt16 + "$" + key32:            128 << 10, // OWASP
		"$scrypt$ln=13,r=8,p=10$" + salt16 + "$" + key32:           8 << 10,   // OWASP
		nodeASCII: 16 << 10,
		bcryptOne: 4,
		"$2b$14$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": 4,
		"$2b$05$CCCCCCCCCCCCCCCCCCCCCCE5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": 4, // unused bits in the salt
	} {
		got, err := parse(s, importable)
		if err != nil {
			t.Errorf("parse(%q): %v", s, err)
			continue
		}
		if got.memory() != memory || got.String() != s {
			t.Errorf("parse(%q) = %v with %d KiB, want %d KiB", s, got, got.memory(), memory)
		}
	}
}

func TestParse_ConfiguredParameters(t *testing.T) {
	t.Parallel()
	const large = "$argon2id$v=19$m=1048576,t=20,p=1$" + salt16 + "$" + key32
	if _, err := parse(large, importable); err == nil {
		t.Error("parse with the default bounds accepted 1 GiB, want an error")
	}
	if _, err := parse(large, importable.widened(1<<20, 20)); err != nil {
		t.Errorf("parse with the configured bounds: %v, want no error", err)
	}
}

// For any input, parse does not panic, accepts nothing out of bounds, and accepts one spelling
// of each hash.
func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.stored)
	}
	for _, list := range malformed {
		for _, s := range list {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parse(s, importable)
		if err != nil {
			if _, ok := errors.AsType[*Unverifiable](err); !ok || got != nil {
				t.Fatalf("parse = %v, %v, want nil and an *Unverifiable", got, err)
			}
			return
		}
		if got.String() != s {
			t.Fatalf("String() = %q, want %q", got, s)
		}
		if m := got.memory(); m > 128<<10 {
			t.Fatalf("%q takes %d KiB, want at most %d", s, m, 128<<10)
		}
		var salt, key int
		switch a := got.(type) {
		case argon2idHash:
			salt, key = len(a.salt), len(a.key)
			work := uint64(a.memoryKiB) * uint64(a.time)
			if a.memoryKiB < 8*uint32(a.threads) || a.time < 1 || a.time > 16 || a.threads < 1 || a.threads > 16 || work > 1<<20 {
				t.Fatalf("parse accepted %q, which is out of bounds", s)
			}
		case scryptHash:
			salt, key = len(a.salt), len(a.key)
			if a.logN < 1 || a.logN > 20 || a.r < 1 || a.r > 32 || a.p < 1 || a.p > 16 || a.p*a.r<<a.logN > 8*256<<10 {
				t.Fatalf("parse accepted %q, which is out of bounds", s)
			}
		case bcryptHash:
			if cost := s[4:6]; len(s) != 60 || cost < "04" || cost > "14" {
				t.Fatalf("parse accepted %q, which is out of bounds", s)
			}
			return
		}
		if salt < 4 || salt > 64 || key < 16 || key > 64 {
			t.Fatalf("parse accepted %q with a salt of %d bytes and a key of %d bytes", s, salt, key)
		}
	})
}
