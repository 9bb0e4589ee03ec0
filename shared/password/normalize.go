package password

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Normalize returns a password in the form that Hash, Verify and Decoy use: every space
// separator of Unicode is U+0020, and the text is in NFC. Those are the mappings of the
// OpaqueString profile (RFC 8265 §4.2.2). With them, the same characters match on systems
// that encode them differently. Case, width, and leading and trailing spaces stay.
//
// The profile also refuses some text, such as control characters and unassigned code
// points. Normalize refuses nothing, since such passwords are in use. It returns text that
// is not UTF-8 unchanged.
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

// forms returns the texts that a stored hash of a password may be made of. The second is
// the password as typed: earlier versions and other systems hash that.
func forms(plain string) []string {
	if normal := Normalize(plain); normal != plain {
		return []string{normal, plain}
	}
	return []string{plain}
}
