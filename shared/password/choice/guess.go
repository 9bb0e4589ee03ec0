package choice

import (
	"math"
	"unicode"
)

// A part is a stretch of the text that an attacker can guess as one thing, from a
// rune up to some end, and the bits that takes: the logarithm of the number of such
// things an attacker tries before it.
type part struct {
	from int
	bits float64
}

// free are the bits of what an attacker knows beforehand. It counts for nothing, not
// even as a part: an email with eight digits is as weak as the digits.
const free = -1

// parts holds the parts by their end.
type parts [][]part

func (p parts) add(from, end int, bits float64) { p[end] = append(p[end], part{from, bits}) }

// bits returns the work of the cheapest way to guess a text.
func (k *knowledge) bits(text []rune, known [][]rune) float64 {
	p := make(parts, len(text)+1)
	k.dictionary(text, known, p)
	k.walks(text, p)
	k.dates(text, p)
	sequences(text, p)
	k.repeats(text, known, p)

	return p.cheapest(text)
}

// most is how many parts are looked at: in which order a dozen come would alone be
// enough of a question.
const most = 11

// cheapest returns the bits of the cheapest way to cut a text into parts, and
// stretches tried by brute force between them. A cut into n parts costs the bits of
// each, and those of their n! orders (Wheeler 2016, §3.4).
func (p parts) cheapest(text []rune) float64 {
	force := make([]float64, len(p)) // of the text up to an index
	for i, r := range text {
		force[i+1] = force[i] + math.Log2(alphabet(r))
	}
	before, now := make([]float64, len(p)), make([]float64, len(p)) // by n-1 and by n parts
	for i := range now {
		now[i] = math.Inf(1)
	}
	now[0] = 0
	p.skip(now)
	cheapest, orders := now[len(text)], 0.0
	for n := 1; n <= most; n++ {
		before, now = now, before
		forced := math.Inf(1) // the best place to begin a stretch by force
		for end := range p {
			now[end] = forced + force[end]
			forced = min(forced, before[end]-force[end])
			for _, q := range p[end] {
				now[end] = min(now[end], before[q.from]+max(q.bits, 0))
			}
		}
		p.skip(now)
		orders += math.Log2(float64(n))
		cheapest = min(cheapest, now[len(text)]+orders)
	}
	return cheapest
}

// skip passes over the free parts.
func (p parts) skip(bits []float64) {
	for end := range p {
		for _, q := range p[end] {
			if q.bits == free {
				bits[end] = min(bits[end], bits[q.from])
			}
		}
	}
}

// alphabet is how many characters an attacker tries who knows the kind of one: a
// mask attack knows the kinds of them all.
func alphabet(r rune) float64 {
	switch {
	case r > unicode.MaxASCII:
		return 100 // zxcvbn's guess: some alphabet
	case unicode.IsDigit(r):
		return 10
	case unicode.IsLetter(r):
		return 26
	}
	return 33
}

// dictionary adds the words of the lists and those known, in small or capital
// letters, with symbols for letters, or backwards.
func (k *knowledge) dictionary(text []rune, known [][]rune, p parts) {
	lower := make([]rune, len(text))
	for i, r := range text {
		lower[i] = unicode.ToLower(r)
	}
	k.words(text, lower, known, 0, p.add)
	for _, variant := range k.variants(lower) {
		k.words(text, variant, known, 1, p.add)
	}
	n := len(text)
	k.words(reversed(text), reversed(lower), known, 1, func(from, end int, bits float64) {
		p.add(n-end, n-from, bits)
	})
}

func reversed(text []rune) []rune {
	back := make([]rune, len(text))
	for i, r := range text {
		back[len(text)-1-i] = r
	}
	return back
}

// words adds the words found in a reading of the text, each with the bits of that
// reading and of its capitals.
func (k *knowledge) words(text, reading []rune, known [][]rune, extra float64, add func(from, end int, bits float64)) {
	ascii := make([]byte, len(reading)) // one byte a rune; the lists have no others
	for i, r := range reading {
		ascii[i] = byte(min(r, unicode.MaxASCII+1))
	}
	for from := range ascii {
		for end := from + shortest; end <= min(from+k.longest, len(ascii)); end++ {
			if rank, ok := k.rank[string(ascii[from:end])]; ok {
				add(from, end, math.Log2(float64(rank))+capitals(text[from:end])+extra)
			}
		}
		for _, word := range known {
			if hasPrefix(reading[from:], word) {
				add(from, from+len(word), free)
			}
		}
	}
}

func hasPrefix(text, word []rune) bool {
	if len(text) < len(word) {
		return false
	}
	for i, r := range word {
		if text[i] != r {
			return false
		}
	}
	return true
}

// capitals is one bit for the usual ways to write a word (Word, worD, WORD), else
// the number of ways to choose as many letters.
func capitals(word []rune) float64 {
	upper, lower := 0, 0
	for _, r := range word {
		switch {
		case unicode.IsUpper(r):
			upper++
		case unicode.IsLower(r):
			lower++
		}
	}
	switch {
	case upper == 0:
		return 0
	case lower == 0, upper == 1 && (unicode.IsUpper(word[0]) || unicode.IsUpper(word[len(word)-1])):
		return 1
	}
	ways := 0.0
	for i := 1; i <= min(upper, lower); i++ {
		ways += binomial(upper+lower, i)
	}
	return math.Log2(ways)
}

// variants returns the texts that the symbols of a text may stand for. Three
// symbols stand for either of two letters, so there are at most eight.
func (k *knowledge) variants(text []rune) [][]rune {
	letters := func(r rune) string {
		if r > unicode.MaxASCII {
			return ""
		}
		return k.leet[byte(r)]
	}
	ambiguous, any := map[rune]int{}, false
	for _, r := range text {
		l := letters(r)
		any = any || l != ""
		if _, seen := ambiguous[r]; len(l) > 1 && !seen {
			ambiguous[r] = len(ambiguous)
		}
	}
	if !any {
		return nil
	}
	all := make([][]rune, 1<<len(ambiguous))
	for choice := range all {
		all[choice] = make([]rune, len(text))
		for i, r := range text {
			if l := letters(r); l != "" {
				r = rune(l[choice>>ambiguous[r]&(len(l)-1)])
			}
			all[choice][i] = r
		}
	}
	return all
}

// walks adds what fingers do on a keyboard: three keys or more, each beside the
// one before.
func (k *knowledge) walks(text []rune, p parts) {
	for _, board := range k.keyboards {
		for from := 0; from+shortest <= len(text); {
			end, turns, shifted := board.walk(text[from:])
			if end >= shortest {
				p.add(from, from+end, board.bits(end, turns, shifted))
			}
			from += end // the next walk begins where this one broke off
		}
	}
}

// walk returns how many runes of a text are one walk, how often it turns, and how
// many of its keys are shifted.
func (b keyboard) walk(text []rune) (length, turns, shifted int) {
	direction := -1
	for length = 1; length < len(text); length++ {
		to, shift := b.step(text[length-1], text[length])
		if to < 0 {
			break
		}
		if to != direction {
			turns++
		}
		direction, shifted = to, shifted+shift
	}
	return length, turns, shifted
}

// step returns the direction from one key to the next, or -1.
func (b keyboard) step(from, to rune) (direction, shift int) {
	for direction, key := range b.neighbours[string(from)] {
		for i, r := range key {
			if r == to {
				return direction, i
			}
		}
	}
	return -1, 0
}

// bits counts the walks up to that length and number of turns: at each turn one
// goes in any of the directions there are on average (Wheeler 2016, §3.3).
func (b keyboard) bits(length, turns, shifted int) float64 {
	ways := 0.0
	for l := 2; l <= length; l++ {
		for t := 1; t <= min(turns, l-1); t++ {
			ways += binomial(l-1, t-1) * float64(len(b.neighbours)) * math.Pow(b.degree, float64(t))
		}
	}
	shifts := 1.0
	for i := 1; i <= min(shifted, length-shifted); i++ {
		shifts += binomial(length, i)
	}
	return math.Log2(ways) + math.Log2(shifts)
}

// dates adds days and years.
func (k *knowledge) dates(text []rune, p parts) {
	ascii := make([]byte, len(text))
	for i, r := range text {
		ascii[i] = byte(min(r, unicode.MaxASCII+1))
	}
	for from := range ascii {
		if at := k.date.FindIndex(ascii[from:]); at != nil {
			p.add(from, from+at[1], dateBits(ascii[from:from+at[1]]))
		}
	}
}

// dateBits takes a year for one of 128, more than people live, a day for one of the
// days of those years, and the separators for one of four.
func dateBits(date []byte) float64 {
	const years, days, separators = 7, 8.5, 2
	digits := 0
	for _, b := range date {
		if unicode.IsDigit(rune(b)) {
			digits++
		}
	}
	switch {
	case len(date) == 4 && (string(date[:2]) == "19" || string(date[:2]) == "20"):
		return years
	case digits < len(date):
		return years + days + separators
	}
	return years + days
}

// sequences adds abc, 987: three characters or more, each the next or the previous
// of its alphabet. Some places to begin are tried first.
func sequences(text []rune, p parts) {
	for from := 0; from < len(text)-1; {
		step := text[from+1] - text[from]
		end := from + 2
		for end < len(text) && text[end]-text[end-1] == step {
			end++
		}
		if length := end - from; length >= shortest && (step == 1 || step == -1) {
			bits := math.Log2(alphabet(text[from])) + math.Log2(float64(length))
			switch text[from] {
			case 'a', 'A', 'z', 'Z', '0', '1', '9':
				bits = 2 + math.Log2(float64(length))
			}
			if step < 0 {
				bits++
			}
			p.add(from, end, bits)
		}
		from = end - 1
	}
}

// repeats adds blocks that come twice or more, one after the other: the bits of the
// block and of their number. Each run is found once, by its shortest block; a text
// has fewer runs than characters, so this stays small.
func (k *knowledge) repeats(text []rune, known [][]rune, p parts) {
	for from := range text {
		found := 0
		for size := 1; from+2*size <= len(text); size++ {
			if from > 0 && text[from-1] == text[from-1+size] || found > 0 && size%found == 0 {
				continue // begins earlier, or is one already found
			}
			end := from + size
			for end < len(text) && text[end] == text[end-size] {
				end++
			}
			times := (end - from) / size
			if times < 2 || times*size < shortest {
				continue
			}
			found = size
			p.add(from, from+times*size, k.bits(text[from:from+size], known)+math.Log2(float64(times)))
		}
	}
}

func binomial(n, k int) float64 {
	c := 1.0
	for i := 1; i <= k; i++ {
		c *= float64(n-k+i) / float64(i)
	}
	return c
}
