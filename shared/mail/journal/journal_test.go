package journal_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mail/journal"
	"ticketing.com/auth/shared/testing/mongotest"
)

type clock struct{ at atomic.Pointer[time.Time] }

func (c *clock) now() time.Time { return *c.at.Load() }

func (c *clock) set(t time.Time) { c.at.Store(&t) }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// open returns the journal of a process with its own connection.
func open(t *testing.T, uri string, now func() time.Time) *journal.Journal {
	t.Helper()
	cfg := config.New(func(name string) (string, bool) {
		set := name == "MONGODB_URI"
		return map[bool]string{true: uri}[set], set
	},
		func(*slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, now)
	t.Cleanup(func() { cfg.Close(context.Background()) })
	j := journal.FromConfig(cfg)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	return j
}

func setup(t *testing.T) (*journal.Journal, *clock, string) {
	t.Helper()
	c, uri := new(clock), mongotest.SlowURI(t)
	c.set(noon)
	return open(t, uri, c.now), c, uri
}

func claim(t *testing.T, j *journal.Journal, key string) *journal.Claim {
	t.Helper()
	c, result, err := j.Claim(t.Context(), key)
	if err != nil || c == nil {
		t.Fatalf("got %v, %q and %v, want a claim", c, result, err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isHeld(j *journal.Journal, t *testing.T, key string) (time.Duration, bool) {
	_, _, err := j.Claim(t.Context(), key)
	held, is := errors.AsType[*journal.Held](err)
	if !is {
		return 0, false
	}
	return held.For, true
}

func TestClaim_Lease(t *testing.T) {
	t.Parallel()
	j, c, _ := setup(t)
	first := claim(t, j, "a")
	if left, held := isHeld(j, t, "a"); !held || left != journal.Lease {
		t.Errorf("a claimed event: got %v and held: %t, want the lease of %v", left, held, journal.Lease)
	}
	c.set(noon.Add(journal.Lease - time.Millisecond))
	if _, held := isHeld(j, t, "a"); !held {
		t.Error("before the end of the lease: the event is not held")
	}
	c.set(noon.Add(journal.Lease))
	second := claim(t, j, "a") // the first process was killed
	must(t, first.Release(t.Context(), false))
	must(t, first.Finish(t.Context(), journal.Refused))
	if _, held := isHeld(j, t, "a"); !held {
		t.Error("the first owner has changed the claim of the second one")
	}
	must(t, second.Release(t.Context(), false))
	claim(t, j, "a")
	must(t, first.Finish(t.Context(), journal.Sent)) // the mail was sent, although the lease had ended
	if got, result, err := j.Claim(t.Context(), "a"); got != nil || result != journal.Sent || err != nil {
		t.Errorf("a mail that was sent: got %v, %q and %v, want the result sent", got, result, err)
	}
	c.set(noon.Add(24 * time.Hour))
	if got, result, _ := j.Claim(t.Context(), "a"); got != nil || result != journal.Sent {
		t.Errorf("a day later: got %v and %q, want the result sent", got, result)
	}
}

func TestClaim_Race(t *testing.T) {
	t.Parallel()
	_, c, uri := setup(t)
	const processes, events = 8, 20
	var journals []*journal.Journal
	for range processes {
		journals = append(journals, open(t, uri, c.now))
	}
	race := func() *[events]atomic.Int32 {
		claims := new([events]atomic.Int32)
		var group sync.WaitGroup
		for _, j := range journals {
			group.Go(func() {
				for i := range events {
					got, _, err := j.Claim(t.Context(), fmt.Sprintf("%032x", i))
					if got != nil {
						claims[i].Add(1)
					} else if _, held := errors.AsType[*journal.Held](err); !held {
						t.Errorf("got %v, want a claim or Held", err)
					}
				}
			})
		}
		group.Wait()
		return claims
	}
	for round := range 3 {
		c.set(noon.Add(time.Duration(round) * journal.Lease)) // each lease ends without a result
		claims := race()
		for i := range claims {
			if n := claims[i].Load(); n != 1 {
				t.Errorf("round %d: event %d was claimed %d times, want 1", round, i, n)
			}
		}
	}
}

// allow claims an event and counts its mail.
func allow(t *testing.T, j *journal.Journal, key string, purpose event.Purpose, to string) bool {
	t.Helper()
	ok, err := claim(t, j, key).Allow(t.Context(), purpose, to)
	must(t, err)
	return ok
}

func TestAllow_Windows(t *testing.T) {
	t.Parallel()
	j, c, _ := setup(t)
	sent := 0
	for hour := range 24 {
		c.set(noon.Add(-12 * time.Hour).Add(time.Duration(hour) * time.Hour))
		inHour := 0
		for i := range 5 {
			if allow(t, j, fmt.Sprintf("%032x", hour*5+i), event.Recovery, "ann@example.com") {
				inHour++
			}
		}
		sent += inHour
		if want := min(3, 10-(sent-inHour)); inHour != want {
			t.Errorf("hour %d: %d mails are allowed, want %d", hour, inHour, want)
		}
		if other := allow(t, j, fmt.Sprintf("f%031x", hour), event.PasswordNotice, "ann@example.com"); other != (hour < 10) {
			t.Errorf("hour %d: a mail of another purpose is allowed: %t, want %t", hour, other, hour < 10)
		}
		if !allow(t, j, fmt.Sprintf("e%031x", hour), event.Recovery, fmt.Sprintf("u%d@example.com", hour)) {
			t.Errorf("hour %d: a mail to another recipient is not allowed", hour)
		}
	}
	c.set(noon.Add(12 * time.Hour))
	if sent != 10 || !allow(t, j, "d0", event.Recovery, "ann@example.com") {
		t.Errorf("got %d mails in the day, want 10 and one the next day", sent)
	}
}

// A mail that is sent after several attempts counts once.
func TestAllow_CountsEachEventOnce(t *testing.T) {
	t.Parallel()
	j, _, _ := setup(t)
	for range 5 {
		c := claim(t, j, "a1")
		for range 2 {
			if ok, err := c.Allow(t.Context(), event.Recovery, "ann@example.com"); !ok || err != nil {
				t.Fatalf("a repeated attempt: got %t and %v, want true", ok, err)
			}
		}
		must(t, c.Release(t.Context(), false))
	}
	for i, want := range []bool{true, true, false} {
		if got := allow(t, j, fmt.Sprintf("b%d", i), event.Recovery, "ann@example.com"); got != want {
			t.Errorf("event %d: got %t, want %t", i, got, want)
		}
	}
	must(t, claim(t, j, "c1").Release(t.Context(), false))
	if ok, err := claim(t, j, "a1").Allow(t.Context(), event.Recovery, "ann@example.com"); !ok || err != nil {
		t.Errorf("an attempt at the limit of an event that was counted before it: got %t and %v, want true", ok, err)
	}
}

// 1,000 events for one recipient, counted by four processes at the same time.
func TestAllow_Race(t *testing.T) {
	t.Parallel()
	_, c, uri := setup(t)
	const events, processes = 1000, 4
	var allowed atomic.Int32
	var group sync.WaitGroup
	for p := range processes {
		j := open(t, uri, c.now)
		group.Go(func() {
			for i := p; i < events; i += processes {
				ok, err := journal.Unstored(j, fmt.Sprintf("%032x", i)).Allow(t.Context(), event.Recovery, "ann@example.com")
				if err != nil {
					t.Error(err)
				}
				if ok {
					allowed.Add(1)
				}
			}
		})
	}
	group.Wait()
	if n := allowed.Load(); n != 3 {
		t.Errorf("%d of %d mails are allowed, want 3", n, events)
	}
}
