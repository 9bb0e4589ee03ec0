package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// entries returns all passwords of a list, in its order.
func (l blocklist) entries() (all []string) {
	word := ""
	for at := 0; at < len(l); {
		rest := l.rest(at)
		word = word[:l[at]] + rest
		all = append(all, word)
		at += 1 + len(rest)
	}
	return all
}

func TestPack_RandomPasswords(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	random := func() string {
		b := make([]byte, 1+r.IntN(6))
		for i := range b {
			b[i] = "abAB19é\x7f"[r.IntN(9)]
		}
		return strings.ToValidUTF8(string(b), "ß")
	}
	for _, n := range []int{0, 1, 2, blockSize, blockSize + 1, 10 * blockSize, 5000} {
		var give []string
		for range n {
			give = append(give, random())
		}
		list := blocklist(Pack(give))
		want := map[string]bool{}
		for _, s := range give {
			want[fold(s)] = true
		}
		if got := list.entries(); len(got) != len(want) || !slices.IsSorted(got) {
			t.Errorf("got %d entries, sorted %v; want %d, sorted", len(got), slices.IsSorted(got), len(want))
		}
		for range 5000 {
			give = append(give, random())
		}
		for _, s := range append(give, "", "\x00", "zzz", "\xff") {
			if s = fold(s); list.has(s) != want[s] {
				t.Errorf("has(%q) among %d passwords = %v, want %v", s, n, list.has(s), want[s])
			}
		}
	}
	long := strings.Repeat("x", 100)
	if list := blocklist(Pack([]string{long + "a", long + "b", "", "tab\tbed", "\xff", "nul\x00"})); fmt.Sprint(list.entries()) != fmt.Sprint([]string{long + "a", long + "b"}) {
		t.Errorf("entries %q, want only the first two", list.entries())
	}
}

func TestBuiltIn_Entries(t *testing.T) {
	if testing.Short() {
		t.Skip("reads every entry of the blocklist")
	}
	t.Parallel()
	all := builtIn.entries()
	eight := 0
	for _, s := range all {
		if len([]rune(s)) >= MinLength {
			eight++
		}
		if s != fold(s) {
			t.Errorf("entry %q is not folded, want %q", s, fold(s))
		}
	}
	if eight < 300_000 || !slices.IsSorted(all) {
		t.Errorf("%d passwords of eight characters or more, sorted %v; want at least 300000, sorted", eight, slices.IsSorted(all))
	}
	for i := 0; i < len(all); i += 97 {
		if !builtIn.has(all[i]) || builtIn.has(all[i]+"\x7f") {
			t.Errorf("has(%q) = %v, with \\x7f at the end %v; want true, false", all[i], builtIn.has(all[i]), builtIn.has(all[i]+"\x7f"))
		}
	}
}
