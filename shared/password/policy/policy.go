// Package policy decides which passwords may be chosen (NIST SP 800-63B-4, section
// 3.1.1.2): long enough, not on a list of common passwords, and not made of the user's
// email or the platform's name. It has no composition rules.
//
// The entire password is compared, without case and in NFC. So a passphrase may contain
// listed words. Three kinds of passwords that attackers try first, and that no list can
// hold, count as listed:
//
//   - a listed password with a suffix of at most five characters that are no letters, at
//     most four of them digits: "monkey123", "Summer2024!"
//   - a listed password, or any four characters or fewer, over and over again
//   - ascending or descending characters: "abcdefgh", "98765432109876"
//
// The figures are in infra/docs/decisions/0028-password-blocklist.md.
//
// The built-in list has common passwords, names and words of thirteen languages, nearly all
// in Latin script. A password is compared with it a second time as it looks without
// diacritics, and as the same keys of a Latin keyboard give it: lists of leaked passwords
// contain Russian words in that form, and Vietnamese words without diacritics. Words of
// other scripts, such as Arabic, Chinese or Thai, are hardly listed.
//
// Only
// functions that set passwords link this package. The list is searched in place, in the
// binary, so it takes no time at the start of a process.
package policy

import (
	"cmp"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"ticketing.com/auth/shared/password"
)

// Limits in characters, which are Unicode code points after normalisation. Text that is
// not UTF-8 is counted in bytes.
const (
	MinLength = 8   // NIST asks for 15 where the password is the only factor: see FromConfig
	MaxLength = 256 // NIST asks for 64 or more
)

// platform is the context-specific word that every attacker knows.
const platform = "ticketing"

// A Refusal is the reason, for the user, why a password may not be chosen. It never
// carries any part of the password.
type Refusal string

// The reasons, beside that for a password that is too short.
const (
	TooLong   Refusal = password.TooLong
	Guessable Refusal = "Password is too easy to guess."
	Personal  Refusal = "Password must not be made of your email."
)

func (r Refusal) Error() string { return string(r) }

func tooShort(least int) Refusal {
	return Refusal(fmt.Sprintf("Password must have at least %d characters.", least))
}

// A Policy checks passwords. The zero Policy has the default length and the built-in list.
type Policy struct {
	minLength int
	common    blocklist
}

// Check returns nil for a password that the owner of an email may choose, else a Refusal.
func (p Policy) Check(plain, email string) error {
	if password.IsTooLong(plain) {
		return TooLong
	}
	switch n := utf8.RuneCountInString(password.Normalize(plain)); {
	case n < max(p.minLength, MinLength):
		return tooShort(max(p.minLength, MinLength))
	case n > MaxLength:
		return TooLong
	}
	p.common = cmp.Or(p.common, builtIn)
	text := fold(plain)
	switch {
	case p.guessable([]rune(text)), latin(text) != text && p.guessable([]rune(latin(text))), madeOf(text, ""):
		return Guessable
	case madeOf(text, fold(email[:min(len(email), maxEmail)])):
		return Personal
	}
	return nil
}

// fold returns the form in which passwords are compared with the list.
func fold(s string) string { return strings.ToLower(strings.ToUpper(password.Normalize(s))) }

// otherKeys are letters of Russian, Ukrainian and Greek keyboards, of two bytes each, and
// latinKeys those on the same keys of a US keyboard. The last two have a stroke, which no
// decomposition removes.
const (
	otherKeys = "йцукенгшщзхъфывапролджэячсмитьбюё" + "іїє" + "ερτυθιοπασδφγηξκλζχψωβνμ" + "đł"
	latinKeys = "qwertyuiop[]asdfghjkl;'zxcvbnm,.`" + "s]'" + "ertyuiopasdfghjklzxcvbnm" + "dl"
)

// latin returns a folded password without diacritics and with letters of latinKeys in place
// of otherKeys.
func latin(text string) string {
	key := func(r rune) rune {
		if i := strings.IndexRune(otherKeys, r); i >= 0 {
			return rune(latinKeys[i/2])
		}
		return r
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r < utf8.RuneSelf:
			return r
		case unicode.Is(unicode.Mn, r):
			return -1
		}
		if k := key(r); k != r {
			return k
		}
		base, _ := utf8.DecodeRuneInString(norm.NFD.String(string(r)))
		if !unicode.In(base, unicode.Latin, unicode.Greek, unicode.Cyrillic) {
			return r
		}
		return key(base)
	}, text)
}

const (
	maxSuffix = 5 // characters, such as "2024!"
	maxDigits = 4
	maxPeriod = 4
)

// guessable reports whether a folded password is listed or counts as listed.
func (p Policy) guessable(text []rune) bool {
	if p.common.has(string(text)) || sequential(text) {
		return true
	}
	digits := 0
	for n := 1; n <= min(maxSuffix, len(text)-1); n++ {
		r := text[len(text)-n]
		if unicode.IsDigit(r) {
			digits++
		}
		if unicode.IsLetter(r) || digits > maxDigits {
			break
		}
		if p.common.has(string(text[:len(text)-n])) {
			return true
		}
	}
	period := periodOf(text)
	return period < len(text) && (period <= maxPeriod || p.guessable(text[:period]))
}

// sequential reports whether every character is the one after that before it, or every
// one the one before. 0 comes after 9.
func sequential(text []rune) bool {
	ascending, descending := len(text) > 1, len(text) > 1
	for i := 1; i < len(text); i++ {
		switch text[i] - text[i-1] {
		case 1, '0' - '9':
			descending = false
		case -1, '9' - '0':
			ascending = false
		default:
			return false
		}
	}
	return ascending || descending
}

// periodOf returns the length of the shortest text that gives this one when it is
// repeated at least twice, perhaps cut off at the end, or the length of the text.
func periodOf(text []rune) int {
next:
	for period := 1; period <= len(text)/2; period++ {
		for i := period; i < len(text); i++ {
			if text[i] != text[i-period] {
				continue next
			}
		}
		return period
	}
	return len(text)
}

const (
	maxEmail  = 320 // bytes of an email that are looked at; a valid one has at most 254
	minPart   = 3   // bytes; shorter parts are in any text
	maxOthers = 8   // characters beside the letters, enough for a date
)

// madeOf reports whether a folded password is made of an email or the platform's name:
// its letters are parts of them, in any order, and at most maxOthers of its other
// characters are no separators.
//
// So jane.doe@example.com makes "janedoe", "Doe.Jane.1984" and "jane@example!!". With
// letters in place of the digits and signs that resemble them, it also makes "j4n3d03!".
func madeOf(text, email string) bool {
	others := 0
	for _, r := range text {
		if !unicode.IsLetter(r) && !strings.ContainsRune(" .-_+@/", r) {
			others++
		}
	}
	inner := strings.TrimFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
	return others <= maxOthers && (composed(letters(text), email) || composed(letters(unleet.Replace(inner)), email))
}

var unleet = strings.NewReplacer("0", "o", "1", "i", "3", "e", "4", "a", "5", "s", "7", "t", "@", "a", "$", "s", "!", "i")

// composed reports whether a text of letters is the local part of an email, or consists of
// parts of the email and the platform's name.
func composed(text, email string) bool {
	if text == "" {
		return false
	}
	if local, _, _ := strings.Cut(email, "@"); text == letters(local) {
		return true
	}
	email = letters(email)
	reached := make([]bool, len(text)+1) // up to there it is parts
	reached[0] = true
	for from := range text {
		for to := from + minPart; reached[from] && to <= len(text); to++ {
			if part := text[from:to]; !strings.Contains(platform, part) && !strings.Contains(email, part) {
				break
			}
			reached[to] = true
		}
	}
	return reached[len(text)]
}

func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return r
		}
		return -1
	}, s)
}
