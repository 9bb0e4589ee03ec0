// Package email decides which strings are email addresses here, and which of
// them are the same address. The normal form it returns is the identity of an
// account: two spellings of one form are one account.
//
// It takes a profile of RFC 5321: a plain dot-atom, one @, a domain name. What
// the grammar allows beyond that (quoted local parts, comments, display names,
// address literals, SMTPUTF8) is refused, because every such form is a second
// spelling that another system on the way may read differently, and an account
// that two systems read differently can be taken over. For the same reason the
// local part is lower-cased, although RFC 5321 §2.4 leaves its case to the
// receiving host: no host in use tells Ann@ from ann@, and an account must not
// be had by a change of case.
//
// It does not ask whether a domain or a mailbox exists: only a letter that
// arrives proves that.
//
// The functions call it where an address enters; what is stored, compared and
// signed is the Address.
package email

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/net/idna"

	"ticketing.com/auth/shared/reference"
)

// An Address is an email address in its normal form: printable ASCII without
// upper case, exactly one @, at most 254 bytes.
type Address string

// Limits in bytes.
const (
	maxAddress = 254 // RFC 5321 §4.5.3.1.3: a path of 256 with its angle brackets
	maxLocal   = 64  // RFC 5321 §4.5.3.1.1

	// maxWritten bounds an address before its domain is converted. A code point
	// takes up to four bytes and may stand for a single byte of the normal form
	// (𝐚 for a), so four times the limit shuts no address out for its script.
	maxWritten = 4 * maxAddress
)

// A Refusal says why an address cannot be taken, to the person who typed it. It
// never carries any part of it.
type Refusal string

// The reasons.
const (
	ErrMalformed Refusal = "Email must be an address like name@example.com."
	ErrTooLong   Refusal = "Email is too long."
	ErrInvisible Refusal = "Email must not contain control or invisible characters."
)

func (r Refusal) Error() string { return string(r) }

// Member describes a member of an input that Parse reads.
func Member(name string) reference.Member {
	return reference.Member{Name: name, Format: "idn-email", MaxLength: maxWritten,
		About: fmt.Sprintf("A plain address: one @, a domain of two labels or more, at most %d bytes. White space around it is dropped; case does not matter.", maxAddress)}
}

// domains converts the domain by UTS 46, non-transitional (ß stays ß, as the
// registries hold it), with all its checks: STD3 characters, hyphens, bidi,
// joiners, and label and name lengths.
var domains = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.StrictDomainName(true),
	idna.CheckHyphens(true),
	idna.CheckJoiners(true),
	idna.BidiRule(),
	idna.VerifyDNSLength(true),
)

// Parse returns the normal form of s. White space around it is dropped. It
// returns ErrMalformed, ErrTooLong or ErrInvisible. Its time is linear in the
// length of s, and what costs most, the conversion of the domain, is bounded.
func Parse(s string) (Address, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxWritten {
		return "", ErrTooLong
	}
	// Before the conversion, which would silently drop some of them: soft hyphen,
	// zero width space, variation selectors.
	if strings.ContainsFunc(s, invisible) {
		return "", ErrInvisible
	}
	local, name, _ := strings.Cut(s, "@")
	if len(local) > maxLocal {
		return "", ErrTooLong
	}
	if !dotAtom(local) {
		return "", ErrMalformed
	}
	name, ok := convert(name)
	if !ok || !qualified(name) {
		return "", ErrMalformed
	}
	if len(local)+len("@")+len(name) > maxAddress {
		return "", ErrTooLong
	}
	return Address(strings.ToLower(local) + "@" + name), nil
}

// convert returns a domain in A-labels, lower-cased, and whether it is valid. A
// valid result converts to itself: package idna alone does not hold that (a
// broken UTF-8 byte becomes an encoded U+FFFD, and ℵ, a left-to-right symbol that
// maps to a right-to-left letter, slips past the bidi rule), and an address that
// is refused when it is read again belongs to nobody.
func convert(name string) (string, bool) {
	name, err := domains.ToASCII(name)
	if err != nil {
		return "", false
	}
	again, err := domains.ToASCII(name)
	return name, err == nil && again == name
}

// dotAtom tells whether s is a Dot-string of RFC 5321 §4.1.2: atoms of RFC 5322
// §3.2.3, joined by single dots.
func dotAtom(s string) bool {
	dot := true // the byte before was a dot, or there was none
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if dot {
				return false
			}
			dot = true
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
			dot = false
		default:
			return false
		}
	}
	return !dot
}

// qualified tells whether a converted domain has two labels or more and names no
// IPv4 address: no top-level domain is numeric (RFC 3696 §2). The root's dot is
// refused: example.com. would be a second spelling of example.com.
func qualified(name string) bool {
	i := strings.LastIndexByte(name, '.')
	return i > 0 && strings.Trim(name[i+1:], "0123456789") != ""
}

// invisible tells whether a reader cannot see r: the control characters, and a
// superset of Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties),
// which holds the zero-width characters, the bidi controls and all that UTS 46
// ignores.
func invisible(r rune) bool {
	if r <= unicode.MaxASCII {
		return r < ' ' || r == '\x7f'
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
