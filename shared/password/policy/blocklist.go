package policy

import (
	_ "embed"
	"slices"
	"strings"
	"unicode/utf8"
)

// builtIn is the list that infra/blocklist writes. The file blocklist.txt names its sources
// and their licences.
//
//go:embed blocklist.bin
var builtIn blocklist

// A blocklist is a sorted list of folded passwords. Each entry is one byte below 0x20 and the
// rest of the password. The byte is the length of the prefix that the password shares with the
// previous one. The rest has no bytes below 0x20. An entry without a shared prefix begins a
// block. A block has at most blockSize entries.
//
// The list needs no index. Only a block begins with a zero byte, so has finds the block by
// bisection and reads it from its beginning.
type blocklist string

const (
	blockSize = 64
	maxPrefix = 0x1f
)

// Pack returns a blocklist of passwords. It ignores passwords that are empty, are not UTF-8 or
// contain control characters: requests are UTF-8, and the format cannot store the others.
func Pack(passwords []string) []byte {
	folded := make([]string, 0, len(passwords))
	for _, s := range passwords {
		if s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r <= maxPrefix }) {
			folded = append(folded, fold(s))
		}
	}
	slices.Sort(folded)
	folded = slices.Compact(folded)
	var packed []byte
	inBlock, before := 0, ""
	for _, s := range folded {
		shared := 0
		for inBlock < blockSize && shared < min(len(before), len(s), maxPrefix) && s[shared] == before[shared] {
			shared++
		}
		if shared == 0 {
			inBlock = 0
		}
		inBlock++
		packed = append(append(packed, byte(shared)), s[shared:]...)
		before = s
	}
	return packed
}

// has reports whether a folded password is listed.
func (l blocklist) has(text string) bool {
	begin, end := 0, len(l) // the range that contains the beginning of the block, if any
	for end-begin > 1 {
		middle := begin + (end-begin)/2
		i := strings.IndexByte(string(l[middle:end]), 0)
		if i >= 0 && l.rest(middle+i) <= text {
			begin = middle + i
		} else {
			end = middle
		}
	}
	var word []byte
	for at := begin; at < len(l); {
		rest := l.rest(at)
		word = append(word[:l[at]], rest...)
		if string(word) >= text {
			return string(word) == text
		}
		at += 1 + len(rest)
		if at < len(l) && l[at] == 0 {
			break
		}
	}
	return false
}

// rest returns the rest of the password in the entry at an offset.
func (l blocklist) rest(at int) string {
	end := at + 1
	for end < len(l) && l[end] > maxPrefix {
		end++
	}
	return string(l[at+1 : end])
}
