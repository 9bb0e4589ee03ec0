package choice

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/ccojocar/zxcvbn-go/data"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A knowledge is what an attacker knows: read once, then never changed.
type knowledge struct {
	rank      map[string]uint16 // of a word in the list where it comes first; from 1
	longest   int               // the length of the longest word
	leet      map[byte]string   // the letters that a symbol may stand for
	keyboards []keyboard
	date      *regexp.Regexp // anchored, longest match
}

// A keyboard is a graph of keys. A neighbour is a key's two characters, plain and
// shifted, or empty where the keyboard ends; its index is its direction.
type keyboard struct {
	neighbours map[string][]string
	degree     float64 // neighbours a key on average
}

// lists is what was read at the first check.
var lists = sync.OnceValue(read)

// read unpacks the library's data: 85,000 words in 4 MB, in about the time of one
// hash. It panics if they are not what they were when this was written; a test would
// show that.
func read() *knowledge {
	k := &knowledge{rank: make(map[string]uint16, 90_000), leet: make(map[byte]string)}
	for _, name := range []string{"Passwords", "MaleNames", "FemaleNames", "Surnames", "English"} {
		k.list(string(asset(name)))
	}
	for _, name := range []string{"Qwerty", "Keypad"} {
		k.keyboards = append(k.keyboards, readKeyboard(asset(name)))
	}
	var l33t struct {
		Graph map[string][]string `json:"graph"`
	}
	must(json.Unmarshal(asset("L33t"), &l33t))
	for letter, symbols := range l33t.Graph {
		for _, s := range symbols {
			k.leet[s[0]] += letter
		}
	}
	// A day, a month and a year in any usual order, with or without separators, or
	// a year alone.
	const day, month, year, gap = `(?:0?[1-9]|[12]\d|3[01])`, `(?:0?[1-9]|1[0-2])`, `(?:(?:19|20)?\d\d)`, `[-/._ ]?`
	k.date = regexp.MustCompile(`^(?:` +
		day + gap + month + gap + year + `|` +
		month + gap + day + gap + year + `|` +
		year + gap + month + gap + day + `|(?:19|20)\d\d)`)
	k.date.Longest()
	return k
}

func asset(name string) []byte {
	b, err := data.Asset("data/" + name + ".json")
	must(err)
	return b
}

func must(err error) {
	if err != nil {
		panic(fmt.Errorf("read the word lists: %w", err))
	}
}

// list adds the words of {"List":[…]}, where the commonest comes first. They share
// the document's memory: that spares ninety thousand small allocations, and a third
// of the time.
func (k *knowledge) list(document string) {
	d := jsontext.NewDecoder(strings.NewReader(document))
	for range 3 { // {, "List", [
		_, err := d.ReadToken()
		must(err)
	}
	for rank := uint16(1); d.PeekKind() == jsontext.KindString; rank++ {
		quoted, err := d.ReadValue()
		must(err)
		end := int(d.InputOffset()) - 1
		word := document[end-len(quoted)+2 : end]
		if old, ok := k.rank[word]; len(word) >= shortest && (!ok || rank < old) {
			k.rank[word] = rank
			k.longest = max(k.longest, len(word))
		}
	}
}

func readKeyboard(document []byte) keyboard {
	var board struct {
		Graph map[string][]string
	}
	must(json.Unmarshal(document, &board))
	k := keyboard{neighbours: board.Graph}
	for _, keys := range board.Graph {
		for _, key := range keys {
			if key != "" {
				k.degree++
			}
		}
	}
	k.degree /= float64(len(board.Graph))
	return k
}
