package user_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

// A sink answers events with the result of a function.
type sink struct{ send func(event.Event) error }

func (s *sink) Send(_ context.Context, e event.Event) error { return s.send(e) }

func (*sink) Timeout() time.Duration { return time.Minute }

func refuse(event.Event) error { return event.ErrRefused }

func fail(event.Event) error { return errors.New("the sink is down") }

// openRelay returns a prepared store with a sink that fails, and its clock.
func openRelay(t *testing.T) (s *user.Store, to *sink, now *time.Time) {
	t.Helper()
	db, err := mongodb.New(mongotest.URI(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	clock := noon
	to = &sink{fail}
	s = user.New(user.Config{Database: db, Sessions: 100, Sink: to, Now: func() time.Time { return clock }})
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, to, &clock
}

func stored(t *testing.T, s *user.Store, id string) user.Account {
	t.Helper()
	a, err := s.AccountByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// undelivered returns the only account with undelivered events.
func undelivered(t *testing.T, s *user.Store) user.Account {
	t.Helper()
	accounts, _, _, err := s.Undelivered(t.Context(), user.Position{}, 2)
	if err != nil || len(accounts) != 1 {
		t.Fatalf("got %d accounts with undelivered events and error %v, want 1", len(accounts), err)
	}
	return accounts[0]
}

// due returns the only account that is due for a retry.
func due(t *testing.T, s *user.Store, now time.Time) user.Account {
	t.Helper()
	accounts, _, _, err := s.DueForRetry(t.Context(), user.Position{}, now, 2)
	if err != nil || len(accounts) != 1 {
		t.Fatalf("got %d accounts that are due and error %v, want 1", len(accounts), err)
	}
	return accounts[0]
}

func signIn(t *testing.T, s *user.Store, id, sid string, now time.Time) {
	t.Helper()
	if err := s.Open(t.Context(), stored(t, s, id), record(sid, now), ""); err != nil {
		t.Fatal(err)
	}
}

// Deliver removes the delivered events and counts no failure of the sink.
func TestDeliver_ContextEnds(t *testing.T) {
	for name, result := range map[string]error{"after an event": nil, "during an event": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			s, to, now := openRelay(t)
			create(t, s, "ann")
			for i := range 4 {
				*now = now.Add(time.Second)
				signIn(t, s, "ann", fmt.Sprint("s", i), *now)
			}
			ctx, cancel := context.WithCancel(t.Context())
			calls := 0
			to.send = func(event.Event) error {
				if calls++; calls < 3 {
					return nil
				}
				cancel()
				return result
			}
			want := map[bool]int{true: 3, false: 2}[result == nil]
			sent, failed, err := s.Deliver(ctx, undelivered(t, s), now.Add(time.Minute))
			if sent != want || failed || err != nil {
				t.Errorf("got %d delivered, failed: %v, error %v; want %d, false, nil", sent, failed, err, want)
			}
			a := stored(t, s, "ann")
			for id, e := range a.Events {
				if e.Tries != 0 {
					t.Errorf("event %s has %d failed deliveries, want 0", id, e.Tries)
				}
			}
			if len(a.Events) != 5-want || calls != 3 {
				t.Errorf("%d events remain after %d calls of the sink, want %d after 3", len(a.Events), calls, 5-want)
			}
		})
	}
}

// Retry removes the delivered events.
func TestRetry_ContextEnds(t *testing.T) {
	s, to, now := openRelay(t)
	create(t, s, "ann")
	to.send = refuse
	if _, _, err := s.Deliver(t.Context(), undelivered(t, s), now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	to.send = func(event.Event) error { cancel(); return nil }
	if sent, failed, err := s.Retry(ctx, due(t, s, *now), now.Add(time.Minute)); sent != 1 || failed || err != nil {
		t.Errorf("got %d delivered, failed: %v, error %v; want 1, false, nil", sent, failed, err)
	}
	if a := stored(t, s, "ann"); len(a.Refused) != 0 || !a.RetryAt.IsZero() {
		t.Errorf("got the refused events %v and retryAt %v, want none", a.Refused, a.RetryAt)
	}
}

// Another relay moves an event to the retry queue while Retry sends one whose delay is long.
func TestRetry_ConcurrentRefusal(t *testing.T) {
	for name, answer := range map[string]func(event.Event) error{
		"the sink accepts the event": func(event.Event) error { return nil },
		"the sink refuses the event": refuse,
		"the sink fails":             fail,
	} {
		t.Run(name, func(t *testing.T) {
			s, to, now := openRelay(t)
			create(t, s, "ann")
			to.send = refuse
			until := now.Add(24 * time.Hour)
			if _, _, err := s.Deliver(t.Context(), undelivered(t, s), until); err != nil {
				t.Fatal(err)
			}
			for range 5 { // now the delay is 32 minutes
				*now = stored(t, s, "ann").RetryAt
				if _, _, err := s.Retry(t.Context(), due(t, s, *now), until); err != nil {
					t.Fatal(err)
				}
			}
			*now = stored(t, s, "ann").RetryAt
			to.send = fail
			signIn(t, s, "ann", "s1", *now)
			retried := due(t, s, *now)
			to.send = func(e event.Event) error {
				to.send = refuse
				if _, _, err := s.Deliver(t.Context(), undelivered(t, s), until); err != nil {
					t.Error(err)
				}
				return answer(e)
			}
			if _, _, err := s.Retry(t.Context(), retried, until); err != nil {
				t.Fatal(err)
			}
			a := stored(t, s, "ann")
			if latest := now.Add(time.Minute); a.RetryAt.IsZero() || a.RetryAt.After(latest) {
				t.Errorf("got retryAt %v, want at most %v", a.RetryAt, latest)
			}
			want := 2
			if answer(event.Event{}) == nil {
				want = 1
			}
			if len(a.Refused) != want {
				t.Errorf("%d refused events are stored, want %d", len(a.Refused), want)
			}
			*now = now.Add(time.Minute)
			to.send = func(event.Event) error { return nil }
			if sent, _, err := s.Retry(t.Context(), due(t, s, *now), until); sent != want || err != nil {
				t.Errorf("the next run delivered %d events with error %v, want %d", sent, err, want)
			}
		})
	}
}
