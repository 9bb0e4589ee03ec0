package user_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

// A clocked is a store with a clock that the test sets.
type clocked struct {
	*user.Store
	mu  sync.Mutex
	now time.Time
}

func openAt(t *testing.T, now time.Time, sessions int) *clocked {
	t.Helper()
	db, err := mongodb.New(mongotest.SlowURI(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	c := &clocked{now: now}
	c.Store = user.New(user.Config{Database: db, Sessions: sessions, Now: c.read})
	if err := c.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *clocked) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clocked) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// signIn opens a session of a user.
func (c *clocked) signIn(t *testing.T, email, sid string) {
	t.Helper()
	a, err := c.Account(t.Context(), email)
	if err == nil {
		err = c.Open(t.Context(), a, record(sid, c.read()), "", "")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// want fails the test unless Ended returns the records, each as "user: sessions before".
func (c *clocked) want(t *testing.T, since time.Time, records ...string) (next time.Time) {
	t.Helper()
	all, next, err := c.Ended(t.Context(), since)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		text := fmt.Sprintf("%s: %v", e.User, e.Sessions)
		if !e.Before.IsZero() {
			text += " " + e.Before.Sub(noon).String()
		}
		got = append(got, text)
	}
	if !slices.Equal(got, records) {
		t.Errorf("got %q, want %q", got, records)
	}
	return next
}

// Every way to end a session records it.
func TestEnded_EachWay(t *testing.T) {
	t.Parallel()
	c := openAt(t, noon, 2)
	for _, id := range []string{"ann", "bob", "lee", "max"} {
		create(t, c.Store, id)
	}
	since := noon.Add(-time.Minute)
	if next := c.want(t, since); !next.Equal(since) {
		t.Errorf("without ended sessions: the next call asks from %v, want %v", next, since)
	}
	c.End(t.Context(), "ann", "ann0")
	c.set(noon.Add(time.Second))
	if _, err := c.EndOnRequest(t.Context(), "bob", "", "key", c.read()); err != nil {
		t.Fatal(err)
	}
	if err := c.End(t.Context(), "bob", "bob0"); err != nil { // again
		t.Fatal(err)
	}
	c.set(noon.Add(2 * time.Second))
	if _, err := c.Rotate(t.Context(), rotation("lee", "lee0", "1", "2"), noon); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Rotate(t.Context(), rotation("lee", "lee0", "1", "3"), noon.Add(time.Hour/2)); err != user.ErrTokenReused {
		t.Fatalf("got error %v, want ErrTokenReused", err)
	}
	c.set(noon.Add(time.Minute))
	for n := range 2 {
		c.signIn(t, "max@example.com", fmt.Sprint("max", n+1))
	}
	next := c.want(t, since, "ann: [ann0]", "bob: [bob0]", "lee: [lee0]", "max: [max0]")
	if want := noon.Add(20 * time.Second); !next.Equal(want) {
		t.Errorf("the next call asks from %v, want %v: another process can have a clock that is behind", next, want)
	}
	c.want(t, next, "max: [max0]")
	if again := c.want(t, noon.Add(2*time.Minute), "max: [max0]"); !again.Equal(next) {
		t.Errorf("a time in the future: the next call asks from %v, want %v", again, next)
	}
	c.set(noon.Add(time.Hour)) // expired sessions are no ended sessions
	c.signIn(t, "ann@example.com", "ann1")
	c.want(t, noon.Add(5*time.Minute))
}

// A process with a fast clock does not hide the records of others.
func TestEnded_ClockAhead(t *testing.T) {
	t.Parallel()
	c := openAt(t, noon.Add(5*time.Minute), 2)
	for _, id := range []string{"ann", "bob"} {
		create(t, c.Store, id)
	}
	if err := c.End(t.Context(), "ann", "ann0"); err != nil {
		t.Fatal(err)
	}
	c.set(noon)
	next := c.want(t, noon.Add(-time.Minute), "ann: [ann0]")
	if err := c.End(t.Context(), "bob", "bob0"); err != nil {
		t.Fatal(err)
	}
	c.want(t, next, "ann: [ann0]", "bob: [bob0]")
}

// The document of a user stays small, whatever number of sessions it had.
func TestEnded_Bounded(t *testing.T) {
	t.Parallel()
	c := openAt(t, noon, 1)
	create(t, c.Store, "ann")
	for n := range 60 {
		c.set(noon.Add(time.Duration(n) * time.Second))
		c.signIn(t, "ann@example.com", fmt.Sprint("ann", n+1)) // displaces the session before
	}
	a, err := c.AccountByID(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Ended) > 51 {
		t.Errorf("got %d recorded sessions, want 51 at most", len(a.Ended))
	}
	all, _, err := c.Ended(t.Context(), noon.Add(-time.Minute))
	if err != nil || len(all) != 1 {
		t.Fatalf("got %v, %v; want one record", all, err)
	}
	for n := range 60 { // each ended session is in the list or older than Before
		sid, opened := fmt.Sprint("ann", n), noon.Add(time.Duration(n-1)*time.Second)
		if !slices.Contains(all[0].Sessions, sid) && opened.After(all[0].Before) {
			t.Errorf("the session %s is not recorded", sid)
		}
	}
	if slices.Contains(all[0].Sessions, "ann60") || all[0].Before.After(noon.Add(10*time.Second)) {
		t.Errorf("got %v, want no record of the valid session and few sessions before a time", all[0])
	}
	c.set(noon.Add(26 * time.Hour))
	c.signIn(t, "ann@example.com", "fresh")
	if a, err = c.AccountByID(t.Context(), "ann"); err != nil || len(a.Ended) != 0 {
		t.Errorf("after a day: got %v, %v; want no recorded session", a.Ended, err)
	}
}

// One request can end more sessions than the document records.
func TestEnded_ManyAtOnce(t *testing.T) {
	t.Parallel()
	c := openAt(t, noon, 100)
	create(t, c.Store, "ann")
	for n := range 55 {
		c.signIn(t, "ann@example.com", fmt.Sprint("ann", n+1))
	}
	c.set(noon.Add(time.Second))
	if ended, err := c.EndOnRequest(t.Context(), "ann", "", "key", c.read()); ended != 56 || err != nil {
		t.Fatalf("got %d, %v; want 56 sessions", ended, err)
	}
	c.want(t, noon, "ann: [] 1s")
}

// A reader that asks from the time of the last answer misses no session, also while others end
// sessions.
func TestEnded_ConcurrentReader(t *testing.T) {
	t.Parallel()
	c := openAt(t, time.Now(), 20)
	const users = 30
	for n := range users {
		create(t, c.Store, fmt.Sprint("u", n))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		inParallel(t, users, nil, func(n int) error {
			c.set(time.Now())
			return c.End(t.Context(), fmt.Sprint("u", n), fmt.Sprint("u", n, "0"))
		})
	}()
	seen, next := map[string]bool{}, time.Now().Add(-time.Minute)
	for last := false; !last; {
		select {
		case <-done:
			last = true // and read once more
		default:
		}
		all, until, err := c.Ended(t.Context(), next)
		if err != nil {
			t.Fatal(err)
		}
		next = until
		for _, e := range all {
			seen[e.User] = true
		}
	}
	if len(seen) != users {
		t.Errorf("got the sessions of %d users, want %d", len(seen), users)
	}
}
