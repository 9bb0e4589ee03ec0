// Package email parses email addresses and returns their normal form. The normal form is the
// identity of an account: two spellings of one normal form are one account.
//
// The package accepts a profile of RFC 5321: a plain dot-atom, one @, a domain name. It
// rejects the other forms of the grammar: quoted local parts, comments, display names, address
// literals, SMTPUTF8. Each of them is a second spelling that another system may parse
// differently. An attacker can take over an account that two systems parse differently.
//
// For the same reason, the package converts the local part to lower case. RFC 5321 §2.4 leaves
// the case to the receiving host, but no host in use distinguishes Ann@ from ann@. A change of
// case must not give access to an account.
//
// The package does not check whether a domain or a mailbox exists. Only a delivered message
// proves that.
//
// Functions parse an address where they receive it. They store, compare and sign only the
// Address.
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

	// maxWritten bounds an address before the conversion of its domain. A code point takes up
	// to four bytes and may become a single byte of the normal form (𝐚 becomes a). So four
	// times the limit excludes no script.
	maxWritten = 4 * maxAddress
)

// A Refusal is the message to the user for a rejected address. It never contains any part of
// the address.
type Refusal string

// The messages.
const (
	ErrMalformed Refusal = "Email must be an address like name@example.com."
	ErrTooLong   Refusal = "Email is too long."
	ErrInvisible Refusal = "Email must not contain control or invisible characters."
)

func (r Refusal) Error() string { return string(r) }

// Member returns the description of an input member that Parse reads.
func Member(name string) reference.Member {
	return reference.Member{Name: name, Format: "idn-email", MaxLength: maxWritten,
		About: fmt.Sprintf("A plain address: one @, a domain of two labels or more, at most %d bytes. White space around it is ignored; case does not matter.", maxAddress)}
}

// domains converts a domain by UTS 46 with all its checks: STD3 characters, hyphens, bidi,
// joiners, and label and name lengths. The conversion is non-transitional: ß stays ß, as in
// the domain registries.
var domains = idna.New(
	idna.MapForLookup(),
	idna.Transitional(false),
	idna.StrictDomainName(true),
	idna.CheckHyphens(true),
	idna.CheckJoiners(true),
	idna.BidiRule(),
	idna.VerifyDNSLength(true),
)

// Parse returns the normal form of s, without the white space around it. Its errors are
// ErrMalformed, ErrTooLong and ErrInvisible. Its time is linear in the length of s. The
// conversion of the domain costs most and is bounded.
func Parse(s string) (Address, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxWritten {
		return "", ErrTooLong
	}
	// The conversion would remove some of them without an error: soft hyphen, zero width
	// space, variation selectors.
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

// convert returns a domain in A-labels and lower case, and whether it is valid. A valid result
// converts to itself. Package idna alone does not ensure that. An invalid UTF-8 byte becomes
// an encoded U+FFFD. The symbol ℵ maps from left-to-right to a right-to-left letter and passes
// the bidi rule. No user could sign in with an address that Parse rejects in its normal form.
func convert(name string) (string, bool) {
	name, err := domains.ToASCII(name)
	if err != nil {
		return "", false
	}
	again, err := domains.ToASCII(name)
	return name, err == nil && again == name
}

// dotAtom reports whether s is a Dot-string of RFC 5321 §4.1.2: atoms of RFC 5322 §3.2.3,
// joined by single dots.
func dotAtom(s string) bool {
	dot := true // the previous byte was a dot, or there is none
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

// qualified reports whether a converted domain has two labels or more and is no IPv4 address:
// no top-level domain is numeric (RFC 3696 §2). A trailing dot is invalid, because example.com.
// would be a second spelling of example.com.
func qualified(name string) bool {
	i := strings.LastIndexByte(name, '.')
	return i > 0 && strings.Trim(name[i+1:], "0123456789") != ""
}

// invisible reports whether a reader cannot see r. It reports true for control characters and
// for a superset of Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties). That
// property includes the zero-width characters, the bidi controls and all code points that UTS
// 46 ignores.
func invisible(r rune) bool {
	if r <= unicode.MaxASCII {
		return r < ' ' || r == '\x7f'
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
