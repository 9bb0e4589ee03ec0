package password

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Normalize returns a password in the form that Hash, Verify and Decoy use. In it, every space
// separator of Unicode is U+0020, and the text is in NFC. Those are the mappings of the
// OpaqueString profile (RFC 8265 §4.2.2). With them, the same characters match on systems
// that encode them differently. Case, width, and leading and trailing spaces stay.
//
// The profile also rejects some text, such as control characters and unassigned code
// points. Normalize rejects nothing, since such passwords are in use. It returns text that
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

// forms returns the one or two spellings of a password that a stored hash may be computed
// from. The first is the normal form. Earlier versions and other systems hash a password as
// typed, so the second is the password as typed. If both are equal, the second is the password
// in NFD, because another system may have sent it so.
func forms(plain string) []string {
	normal, other := Normalize(plain), plain
	if other == normal && utf8.ValidString(plain) {
		other = norm.NFD.String(plain)
	}
	if other == normal {
		return []string{normal}
	}
	return []string{normal, other}
}
