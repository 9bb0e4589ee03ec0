// Package policy decides whether a user may choose a password (NIST SP 800-63B-4, section
// 3.1.1.2). The password must be long enough and must not be on a list of common passwords.
// It must not consist of the user's email or the platform's name. There are no composition
// rules.
//
// The policy compares the entire password, without case and in NFC. So a passphrase may
// contain listed words. Attackers first try three kinds of passwords that no list can
// contain. They count as listed:
//
//   - a listed password with a suffix of at most five characters that are no letters, at
//     most four of them digits: "monkey123", "Summer2024!"
//   - repetitions of a listed password, or of at most four characters
//   - ascending or descending characters: "abcdefgh", "98765432109876"
//
// The figures are in infra/docs/decisions/0028-password-blocklist.md.
//
// The built-in list has common passwords, names and words of thirteen languages, nearly all
// in Latin script. So the policy searches it a second time, for the password without
// diacritics and with the same keys of a US keyboard. Lists of leaked passwords contain Russian words in that form, and Vietnamese words without
// diacritics. The list has few words of other scripts, such as Arabic, Chinese or Thai.
//
// Only functions that set passwords link this package. The list is searched in place, in the
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

// Limits in characters: Unicode code points after normalisation, or bytes in text that is not
// UTF-8.
const (
	MinLength = 8   // NIST asks for 15 if the password is the only factor: see FromConfig
	MaxLength = 256 // NIST asks for 64 or more
)

// platform is the context-specific word that each attacker knows.
const platform = "ticketing"

// A Refusal is the message to the user for a rejected password. It never contains any
// part of the password.
type Refusal string

// The messages, without that for a password that is too short.
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

// Check returns nil if the user with an email may choose a password, and a Refusal otherwise.
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
	case p.guessable([]rune(text)), latin(text) != text && p.guessable([]rune(latin(text))), consistsOf(text, ""):
		return Guessable
	case consistsOf(text, fold(email[:min(len(email), maxEmail)])):
		return Personal
	}
	return nil
}

// fold returns the form of a password that the list contains.
func fold(s string) string { return strings.ToLower(strings.ToUpper(password.Normalize(s))) }

// otherKeys are letters of Russian, Ukrainian and Greek keyboards, of two bytes each.
// latinKeys are the characters on the same keys of a US keyboard. The last two letters have a
// stroke, which no decomposition removes.
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

// sequential reports whether all characters ascend by one, or all descend by one. 0 follows
// 9.
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

// periodOf returns the length of the shortest prefix that, repeated at least twice and perhaps
// truncated, gives the text. Without one, it returns the length of the text.
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
	maxEmail  = 320 // bytes of an email that are compared; a valid email has at most 254
	minPart   = 3   // bytes; any text contains shorter parts
	maxOthers = 8   // characters that are no letters, enough for a date
)

// consistsOf reports whether a folded password consists of parts of an email or the
// platform's name. Its letters are such parts, in any order, and at most maxOthers of its
// other characters are no separators.
//
// "janedoe", "Doe.Jane.1984" and "jane@example!!" consist of parts of jane.doe@example.com.
// So does "j4n3d03!", with letters in place of the digits and signs that resemble them.
func consistsOf(text, email string) bool {
	local, _, _ := strings.Cut(email, "@")
	for _, whole := range []string{email, local} { // may have more digits than maxOthers
		before, after, found := strings.Cut(text, whole)
		if found && len(whole) >= minPart && letters(before+after) == "" && others(before+after) <= maxOthers {
			return true
		}
	}
	inner := strings.TrimFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
	return others(text) <= maxOthers && (composed(letters(text), email) || composed(letters(unleet.Replace(inner)), email))
}

// others returns the number of characters that are neither letters nor separators.
func others(text string) (n int) {
	for _, r := range text {
		if !unicode.IsLetter(r) && !strings.ContainsRune(" .-_+@/", r) {
			n++
		}
	}
	return n
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
	reached := make([]bool, len(text)+1) // whether the text up to an index consists of parts
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
