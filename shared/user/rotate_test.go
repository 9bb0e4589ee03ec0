package user_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/user"
)

// A family is a model of one session: every refresh token issued for it, and the time of each
// exchange.
type family struct {
	store     *user.Store
	tokens    []session.Refresh
	exchanged []time.Time // of each token except the newest
	ended     bool
}

func newFamily(t *testing.T, s *user.Store, id string) *family {
	t.Helper()
	first, refresh := session.Open(id, noon, time.Hour)
	if err := s.Create(t.Context(), user.Registration{User: user.User{ID: id, Email: id + "@example.com"}, Password: "hash", First: &first}); err != nil {
		t.Fatal(err)
	}
	return &family{store: s, tokens: []session.Refresh{refresh}}
}

// present exchanges the nth token at a time and returns the new token.
func (f *family) present(t *testing.T, n int, at time.Time) (session.Refresh, error) {
	exchange, err := f.store.Rotate(t.Context(), f.tokens[n].Rotation(at, 24*time.Hour, 0), at)
	return f.tokens[n].Next(exchange.Salt), err
}

// expect returns the error that the contract specifies for presenting the nth token.
func (f *family) expect(n int, at time.Time) error {
	newest := len(f.tokens) - 1
	switch {
	case f.ended:
		return user.ErrSessionEnded
	case n == newest:
		return nil
	case newest-n > 64:
		return user.ErrTokenReused
	case at.Sub(f.exchanged[n]) <= user.ReplayWindow:
		return nil
	case n == newest-1 && at.Sub(f.exchanged[n]) <= user.LostAnswerWindow:
		return nil
	}
	return user.ErrTokenReused
}

// Clients lose responses and repeat requests, also concurrently. Attackers present tokens of any
// age. For each random history, every result must be that of the contract.
func TestRotate_RandomHistories(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	histories := 60
	if testing.Short() {
		histories = 6
	}
	for history := range histories {
		t.Run(fmt.Sprint(history), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, uint64(history)))
			f := newFamily(t, s, fmt.Sprintf("u%d", history))
			now, log := noon, ""
			for range 40 {
				steps := []time.Duration{0, time.Millisecond, 4 * time.Second, 9 * time.Second, 11 * time.Second, time.Minute, 121 * time.Second}
				now = now.Add(steps[random.IntN(len(steps))])
				newest := len(f.tokens) - 1
				n := max(0, newest-random.IntN(3)*random.IntN(3)) // usually the newest token or the one before
				if random.IntN(40) == 0 {
					n = random.IntN(newest + 1)
				}
				want := f.expect(n, now)
				got, err := f.present(t, n, now)
				log += fmt.Sprintf("\n%v: token %d of %d: %v", now.Sub(noon), n, newest, err)
				if !errors.Is(err, want) || want == nil && err != nil {
					t.Fatalf("got %v, want %v%s", err, want, log)
				}
				switch {
				case err != nil:
					f.ended = true
				case n == newest:
					f.tokens, f.exchanged = append(f.tokens, got), append(f.exchanged, now)
				case got.String() != f.tokens[n+1].String():
					t.Fatalf("got another token than at the first exchange, want the same%s", log)
				}
				checkUsed(t, s, fmt.Sprintf("u%d", history), now)
			}
		})
	}
}

// checkUsed fails the test if the last exchange has not removed all outdated used tokens.
func checkUsed(t *testing.T, s *user.Store, id string, now time.Time) {
	t.Helper()
	a, err := s.AccountByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range a.Sessions {
		if len(open.Used) > 64 {
			t.Errorf("got %d stored used tokens, want at most 64", len(open.Used))
		}
		for _, used := range open.Used {
			if open.RotatedAt.Sub(used.At) > user.ReplayWindow {
				t.Errorf("a used token is stored %v after its exchange, want at most %v", open.RotatedAt.Sub(used.At), user.ReplayWindow)
			}
		}
	}
}

// The owner and an attacker with a stolen token refresh concurrently. In either order of the
// writes, the session ends and none of its tokens remains valid.
func TestRotate_TheftConcurrentWithRefresh(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	for i := range 20 {
		f := newFamily(t, s, fmt.Sprint("u", i))
		next, err := f.present(t, 0, noon)
		if err != nil {
			t.Fatal(err)
		}
		f.tokens = append(f.tokens, next)
		now := noon.Add(user.LostAnswerWindow + time.Millisecond)
		var group sync.WaitGroup
		var owner, attacker error
		group.Go(func() { next, owner = f.present(t, 1, now) })
		group.Go(func() { _, attacker = f.present(t, 0, now) })
		group.Wait()
		if !errors.Is(attacker, user.ErrTokenReused) || owner != nil && !errors.Is(owner, user.ErrSessionEnded) {
			t.Errorf("the attacker got %v, want ErrTokenReused; the owner got %v, want nil or ErrSessionEnded", attacker, owner)
		}
		if _, err := s.Session(t.Context(), fmt.Sprint("u", i), f.tokens[0].Session, now); !errors.Is(err, user.ErrSessionEnded) {
			t.Errorf("the session: got %v, want ErrSessionEnded", err)
		}
	}
}

func TestAccount_ReadsNoSessions(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	create(t, s, "ann")
	a, err := s.Account(t.Context(), "ann@example.com")
	if err != nil || a.ID != "ann" || a.Password != "hash" || a.CreatedAt.IsZero() || a.Sessions != nil || a.Events != nil {
		t.Errorf("got %+v, %v; want the credentials without sessions and events", a, err)
	}
}

func TestStore_InvalidIDs(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	create(t, s, "ann")
	for _, sid := range []string{"", ".", "ann0.expiresAt", "$where", "ann0\x00", "ann0 ", "é"} {
		if _, err := s.Session(t.Context(), "ann", sid, noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Errorf("Session(%q): got %v, want ErrSessionEnded", sid, err)
		}
		if err := s.End(t.Context(), "ann", sid); err != nil {
			t.Errorf("End(%q): got %v, want nil", sid, err)
		}
		if _, err := s.Rotate(t.Context(), rotation("ann", sid, "1", "2"), noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Errorf("Rotate(%q): got %v, want ErrSessionEnded", sid, err)
		}
	}
	for _, id := range []string{"\x00", "a\x00b", "$ne", ".", "\u2028"} {
		if _, err := s.Session(t.Context(), id, "ann0", noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Errorf("Session of user %q: got %v, want ErrSessionEnded", id, err)
		}
		if _, err := s.Rotate(t.Context(), rotation(id, "ann0", "1", "2"), noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Errorf("Rotate of user %q: got %v, want ErrSessionEnded", id, err)
		}
		if err := s.End(t.Context(), id, "ann0"); err != nil {
			t.Errorf("End of user %q: got %v, want nil", id, err)
		}
	}
	if _, err := s.Session(t.Context(), "ann", "ann0", noon); err != nil {
		t.Errorf("the session: got error %v, want none", err)
	}
}
