package mongodb

import (
	"testing"
	"time"
)

// A slow database does not count as lost once its latency is known.
func TestReplyTimeout_FollowsLatency(t *testing.T) {
	d := newDialer()
	for _, c := range []struct{ took, left, want time.Duration }{
		{10 * time.Millisecond, 4500 * time.Millisecond, minReplyTimeout},
		{1600 * time.Millisecond, 4500 * time.Millisecond, 3200 * time.Millisecond},
		{1600 * time.Millisecond, 4 * time.Second, 3200 * time.Millisecond},
		{2500 * time.Millisecond, 4500 * time.Millisecond, 4500 * time.Millisecond},
		{0, 3 * time.Second, 3 * time.Second},
		{0, time.Minute, time.Minute},
	} {
		d.latency.Store(0)
		d.recordLatency(c.took)
		if got := replyTimeout(c.left, time.Duration(d.latency.Load())); got != c.want {
			t.Errorf("after a reply in %v, with %v left: got %v, want %v", c.took, c.left, got, c.want)
		}
	}
	for range 20 {
		d.recordLatency(time.Millisecond)
	}
	if got := replyTimeout(4500*time.Millisecond, time.Duration(d.latency.Load())); got != minReplyTimeout {
		t.Errorf("after fast replies: got %v, want %v", got, minReplyTimeout)
	}
}
