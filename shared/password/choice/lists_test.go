package choice

import "testing"

func TestLists(t *testing.T) {
	t.Parallel()
	k := lists()
	if len(k.rank) < 75_000 || k.rank["password"] != 1 || k.rank["mary"] != 1 || k.longest > 30 {
		t.Errorf("%d words, the longest of %d", len(k.rank), k.longest)
	}
	if k.leet['4'] != "a" || len(k.leet['1']) != 2 {
		t.Errorf("leet: %q", k.leet)
	}
	for symbol, letters := range k.leet {
		if n := len(letters); n != 1 && n != 2 {
			t.Errorf("%q stands for %d letters; variants reckons with one or two", symbol, n)
		}
	}
	if q := k.keyboards[0]; len(q.neighbours) != 94 || q.degree < 4 || q.degree > 5 {
		t.Errorf("qwerty: %d keys, %.2f neighbours", len(q.neighbours), q.degree)
	}
}

func TestBits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]float64{
		"":             {0, 0},
		"kjxqwzvp":     {37.6, 37.7}, // 8·log₂ 26
		"58172946":     {26, 26.6},   // at most 8·log₂ 10
		"password":     {0, 0},       // the first guess
		"PASSWORD":     {1, 1},
		"p@ssword":     {1, 1},
		"drowssap":     {1, 1},
		"aaaaaaaa":     {7.7, 7.8},   // log₂ 26 + log₂ 8
		"31/12/1984":   {17.5, 17.5}, // see dateBits
		"1984":         {3, 7},
		"hijklm":       {7.2, 7.3}, // log₂ 26 + log₂ 6
		"passwordjane": {1, 8},
	} {
		if got := lists().bits([]rune(text), nil); got < want[0] || got > want[1] {
			t.Errorf("%q has %.2f bits, want %v", text, got, want)
		}
	}
}

func BenchmarkFirstCheck(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
}
