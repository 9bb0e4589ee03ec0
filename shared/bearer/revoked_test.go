package bearer

import (
	"fmt"
	"testing"
	"time"

	"ticketing.com/auth/shared/bearer/revocation"
)

// The copy stores each entry for the window after its first arrival, and then frees it. A user can
// have a later entry.
func TestRevoked_FreesEntries(t *testing.T) {
	start := time.Unix(1772366400, 0)
	filter := revocation.NewFilter(1, 0.001)
	filter.Add("f117")
	entry := &revocation.Answer{Sessions: []string{"5e55"}, Users: []revocation.User{{ID: "ann", Before: start.Unix()}}, Filter: filter}
	repeated := &revocation.Answer{Sessions: []string{"5e55", "0e55"}, Users: []revocation.User{{ID: "ann", Before: start.Unix() - 9}, {ID: "bob", Before: start.Unix()}}}
	later := &revocation.Answer{Users: []revocation.User{{ID: "bob", Before: start.Unix() + 1}}}
	r := newRevoked()
	r.add(entry, start.Add(10*time.Second))
	r.add(repeated, start.Add(20*time.Second))
	r.add(later, start.Add(30*time.Second))
	r.add(later, start.Add(40*time.Second))
	for _, c := range []struct {
		after                             time.Duration
		first, second, ann, bob, filtered state
		sessions, users, size             int
	}{
		{0, ended, ended, ended, ended, unsure, 2, 2, filter.Size()},
		{10*time.Second - 1, ended, ended, ended, ended, unsure, 2, 2, filter.Size()},
		{10 * time.Second, notEnded, ended, notEnded, ended, notEnded, 1, 1, 0},
		{20 * time.Second, notEnded, notEnded, notEnded, ended, notEnded, 0, 1, 0},
		{30 * time.Second, notEnded, notEnded, notEnded, notEnded, notEnded, 0, 0, 0},
	} {
		now := start.Add(c.after)
		got := c
		session := func(id string) state { return r.find(Claims{Session: id, Subject: "carl"}, now) }
		user := func(id string) state {
			return r.find(Claims{Session: "b0b", Subject: id, IssuedAt: start.Add(-time.Second)}, now)
		}
		got.first, got.second, got.filtered, got.ann, got.bob = session("5e55"), session("0e55"), session("f117"), user("ann"), user("bob")
		r.drop(now)
		got.sessions, got.users, got.size = len(r.sessions), len(r.users), r.size
		if got != c {
			t.Errorf("got  %+v\nwant %+v", got, c)
		}
	}
	if len(r.batches) != 0 {
		t.Errorf("got %d batches at the end, want none", len(r.batches))
	}
}

func TestIntrospection_VerdictsBounded(t *testing.T) {
	now := time.Unix(1772366400, 0)
	i := &introspection{now: func() time.Time { return now }, verdicts: map[[32]byte]verdict{}}
	digest := func(n int) (d [32]byte) {
		d[0], d[1] = byte(n), byte(n>>8)
		return d
	}
	for n := range maxVerdicts {
		until := now
		if n%2 == 0 {
			until = now.Add(time.Hour)
		}
		i.remember(digest(n), verdict{until: until})
	}
	i.remember(digest(maxVerdicts), verdict{until: now.Add(time.Hour)})
	if got, want := len(i.verdicts), maxVerdicts/2+1; got != want {
		t.Errorf("got %d verdicts, want %d: the expired ones are removed", got, want)
	}
	for n := range 3 * maxVerdicts {
		i.remember(digest(n), verdict{until: now.Add(time.Hour)})
		if len(i.verdicts) > maxVerdicts {
			t.Fatalf("got %d verdicts, want at most %d", len(i.verdicts), maxVerdicts)
		}
	}
}

func TestFeed_EveryAnswerFreesEntries(t *testing.T) {
	now := time.Unix(1772366400, 0)
	f := &feed{now: func() time.Time { return now }, revoked: newRevoked()}
	for i, sessions := range [][]string{{"5e55"}, {"0e55"}, {}} {
		if err := f.store(&revocation.Answer{Cursor: "1", Window: 10, Sessions: sessions}, false, now); err != nil {
			t.Fatal(err)
		}
		if got := len(f.revoked.sessions); got != len(sessions) {
			t.Errorf("answer %d: got %d sessions, want %d", i+1, got, len(sessions))
		}
		now = now.Add(10 * time.Second)
	}
}

// Above a bound, the next request asks for a full answer, in which a filter stands for many
// sessions. This answer replaces the copy.
func TestFeed_MemoryBounded(t *testing.T) {
	f := &feed{now: func() time.Time { return time.Unix(1772366400, 0) }, revoked: newRevoked()}
	page := func(from, n int) *revocation.Answer {
		a := &revocation.Answer{Cursor: fmt.Sprint("after ", from+n), Window: 10}
		for i := range n {
			a.Sessions = append(a.Sessions, fmt.Sprintf("%08x", from+i))
		}
		return a
	}
	large := &revocation.Answer{Cursor: "large", Window: 10, Filter: revocation.NewFilter(1<<30, 0.5)} // 8 MiB
	for _, c := range []struct {
		name     string
		answer   *revocation.Answer
		full     bool
		fails    bool
		cursor   string
		sessions int
		filters  int // bytes
	}{
		{"as many as fit", page(0, maxRevoked), true, false, "after 262144", maxRevoked, 0},
		{"one more", page(maxRevoked, 1), false, false, "", maxRevoked + 1, 0},
		{"too many in a full answer", page(0, maxRevoked+1), true, true, "", maxRevoked + 1, 0},
		{"a full answer", page(0, 1), true, false, "after 1", 1, 0},
		{"a filter", large, false, false, "", 1, 8 << 20},
		{"a second one", large, false, false, "", 1, 16 << 20},
		{"a third one", large, false, false, "", 1, 24 << 20},
		{"a full answer after it", large, true, false, "large", 0, 8 << 20},
	} {
		err := f.store(c.answer, c.full, f.now())
		if (err != nil) != c.fails || f.cursor != c.cursor || len(f.revoked.sessions) != c.sessions || f.revoked.size != c.filters {
			t.Errorf("%s: got the cursor %q, %d sessions, %d bytes of filters (%v), want %q, %d, %d, an error: %t", c.name, f.cursor, len(f.revoked.sessions), f.revoked.size, err, c.cursor, c.sessions, c.filters, c.fails)
		}
	}
}
