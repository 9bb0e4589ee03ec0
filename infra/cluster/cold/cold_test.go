//go:build linux

package cold

import "testing"

// Whoever is called, and whoever was called before, is balanced over the rounds.
func TestTheOrderIsBalanced(t *testing.T) {
	for n := 2; n < 8; n++ {
		rounds := orders(n)
		place, after := map[[2]int]int{}, map[[2]int]int{}
		for _, round := range rounds {
			for i, call := range round {
				place[[2]int{i, call}]++
				if i > 0 {
					after[[2]int{round[i-1], call}]++
				}
			}
		}
		each := len(rounds) / n
		if len(place) != n*n || len(after) != n*(n-1) {
			t.Errorf("%d calls: %d places, %d pairs", n, len(place), len(after))
		}
		for _, counts := range []map[[2]int]int{place, after} {
			for what, count := range counts {
				if count != each {
					t.Errorf("%d calls: %v comes %d times, not %d", n, what, count, each)
				}
			}
		}
	}
}
