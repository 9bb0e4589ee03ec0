package bearer

import (
	"testing"
	"time"

	"ticketing.com/auth/shared/bearer/revocation"
)

// The copy stores each entry until its window has passed, also an entry that arrives twice, and
// then frees it.
func TestRevoked_FreesEntries(t *testing.T) {
	start := time.Unix(1772366400, 0)
	filter := revocation.NewFilter(1, 0.001)
	filter.Add("f117")
	entry := &revocation.Answer{Sessions: []string{"5e55"}, Users: []revocation.User{{ID: "ann", Before: start.Unix()}}, Filter: filter}
	older := &revocation.Answer{Sessions: []string{"5e55", "0e55"}, Users: []revocation.User{{ID: "ann", Before: start.Unix() - 9}, {ID: "bob", Before: 1}}}
	r := newRevoked()
	r.add(entry, start.Add(10*time.Second))
	r.add(older, start.Add(20*time.Second))
	for _, c := range []struct {
		after           time.Duration
		session, user   state
		filtered        state
		sessions, users int
		size            int
	}{
		{0, ended, ended, unsure, 2, 2, filter.Size()},
		{10*time.Second - 1, ended, ended, unsure, 2, 2, filter.Size()},
		{10 * time.Second, ended, ended, notEnded, 2, 2, 0},
		{20*time.Second - 1, ended, ended, notEnded, 2, 2, 0},
		{20 * time.Second, notEnded, notEnded, notEnded, 0, 0, 0},
	} {
		now := start.Add(c.after)
		session := r.find(Claims{Session: "5e55", Subject: "carl"}, now)
		user := r.find(Claims{Session: "b0b", Subject: "ann", IssuedAt: start.Add(-time.Second)}, now)
		filtered := r.find(Claims{Session: "f117", Subject: "carl"}, now)
		if r.drop(now); session != c.session || user != c.user || filtered != c.filtered ||
			len(r.sessions) != c.sessions || len(r.users) != c.users || r.size != c.size {
			t.Errorf("after %v: got %v %v %v and %+v, want %+v", c.after, session, user, filtered, r, c)
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
