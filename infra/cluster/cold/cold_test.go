//go:build linux

package cold

import "testing"

// Over all rounds, each call is at each position, and after each other call, equally
// often.
func TestOrders_Balanced(t *testing.T) {
	for n := 2; n < 8; n++ {
		rounds := orders(n)
		position, after := map[[2]int]int{}, map[[2]int]int{}
		for _, round := range rounds {
			for i, call := range round {
				position[[2]int{i, call}]++
				if i > 0 {
					after[[2]int{round[i-1], call}]++
				}
			}
		}
		each := len(rounds) / n
		if len(position) != n*n || len(after) != n*(n-1) {
			t.Errorf("%d calls: got %d positions and %d pairs, want %d and %d", n, len(position), len(after), n*n, n*(n-1))
		}
		for _, counts := range []map[[2]int]int{position, after} {
			for pair, count := range counts {
				if count != each {
					t.Errorf("%d calls: got %v %d times, want %d", n, pair, count, each)
				}
			}
		}
	}
}
