// Package choice decides which passwords may be chosen: not too short, not too
// long, not easy to guess. It asks for no digits, capitals or symbols, as NIST SP
// 800-63B §3.1.1.2 forbids such rules; it asks how many guesses an attacker needs
// who knows the common passwords, names and words, the tricks people play on them,
// and the owner's email.
//
// The words and the rule are zxcvbn's (Wheeler, "zxcvbn: Low-Budget Password
// Strength Estimation", USENIX Security 2016). The words, keyboards and letter
// substitutions are read from the kept library github.com/ccojocar/zxcvbn-go; the
// search is here. The library's own cannot be linked into a function: as it starts,
// it unpacks and indexes all its lists, which takes several times as long as all
// the rest of a cold start, and its time grows exponentially with the number of
// different symbols in the password, to seconds for one request. Here the lists are
// read at the first check, and the time is bounded. A test holds the verdicts to
// those of the whole library, another that nothing but its data is linked.
//
// The lists are English and American; a common word of another language passes.
//
// It is called by signup alone, and kept apart from package password so that no
// other function carries the lists.
package choice

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"ticketing.com/auth/shared/password"
)

// Limits in characters. A character is a Unicode code point (NIST SP 800-63B
// §3.1.1.2), and a byte where the text is not UTF-8.
const (
	MinLength = 8
	MaxLength = 256 // at most password.MaxBytes, as a code point has at most four
)

// enough is how many bits of work a password must cost: more than 10⁸ guesses, where
// zxcvbn begins to call one safe. Online, nobody gets near that who is throttled at
// all (NIST SP 800-63B §3.2.2 allows a hundred failures); offline, a guess at what is
// stored takes 20 ms of a core, and all of them three weeks. Every number of eight
// digits has less, and 199 of 200 random passwords of eight small letters have more;
// the other holds a name or a word by chance.
const enough = 26.6

// site is what every attacker knows of every user: the name of the service (NIST SP
// 800-63B §3.1.1.2, context-specific words).
const site = "ticketing"

// A Refusal says why a password may not be chosen, to the person who chose it. It
// never carries any part of it.
type Refusal string

// The reasons.
const (
	TooShort  Refusal = "Password must have at least 8 characters."
	TooLong   Refusal = password.TooLong
	Guessable Refusal = "Password is too easy to guess."
	Personal  Refusal = "Password must not be made of your email."
)

func (r Refusal) Error() string { return string(r) }

// Check returns nil for a password that may be chosen, else a Refusal. What is
// personal, such as the email, is as good as known to an attacker. The password is
// taken as it is, byte for byte.
func Check(plain string, personal ...string) error {
	if len(plain) > password.MaxBytes {
		return TooLong
	}
	text := []rune(plain)
	switch {
	case len(text) < MinLength:
		return TooShort
	case len(text) > MaxLength:
		return TooLong
	}
	switch l := lists(); {
	case l.bits(text, known(append([]string{site}, personal...))) >= enough:
		return nil
	case l.bits(text, known([]string{site})) >= enough:
		return Personal
	}
	return Guessable
}

// shortest is the length of the shortest word looked for. Shorter ones are found in
// every random text and say nothing.
const shortest = 3

// maxPersonal bounds, in bytes, what is read of each personal text: an email has
// at most 254 in its normal form, and this one may not be in it.
const maxPersonal = 1024

// known returns the words that personal texts are made of: each whole, and split
// at all that is neither letter nor digit, with neighbours joined (jane.doe gives
// jane.doe, janedoe, jane, doe).
func known(personal []string) (words [][]rune) {
	add := func(s string) {
		if utf8.RuneCountInString(s) >= shortest {
			words = append(words, []rune(s))
		}
	}
	for _, s := range personal {
		s = strings.ToLower(s[:min(len(s), maxPersonal)])
		add(s)
		for side := range strings.SplitSeq(s, "@") {
			add(side)
			parts := strings.FieldsFunc(side, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
			if len(parts) > 1 {
				add(strings.Join(parts, ""))
			}
			for _, p := range parts {
				add(p)
			}
		}
	}
	return words
}
