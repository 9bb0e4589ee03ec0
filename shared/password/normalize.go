package password

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Normalize returns a password as Hash, Verify and Decoy take it: with every space
// separator of Unicode as U+0020, and in NFC. Those are the mappings of the OpaqueString
// profile (RFC 8265 §4.2.2), by which the same characters match whichever system they
// are typed on. Case, width and leading and trailing spaces stay as they are.
//
// The profile also refuses some text, such as control characters and code points that
// Unicode has not assigned. Normalize refuses nothing, since such passwords are in use,
// and returns text that is not UTF-8 unchanged.
func Normalize(plain string) string {
	if !utf8.ValidString(plain) {
		return plain
	}
	return norm.NFC.String(strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Zs, r) {
			return ' '
		}
		return r
	}, plain))
}

// forms returns the texts that may be the password of a stored hash. The second is the
// password as it was typed, which is what was hashed before Normalize, and what other
// systems hash whose users are imported.
func forms(plain string) []string {
	if normal := Normalize(plain); normal != plain {
		return []string{normal, plain}
	}
	return []string{plain}
}
