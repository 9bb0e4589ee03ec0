package user_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

// both runs two functions at the same time and returns their errors.
func both(first, second func() error) (a, b error) {
	var group sync.WaitGroup
	group.Go(func() { a = first() })
	group.Go(func() { b = second() })
	group.Wait()
	return a, b
}

// rounds is the number of races in a test. Each has a new account.
const rounds = 20

func stored(t *testing.T, s *user.Store, id string) user.Account {
	t.Helper()
	a, err := s.AccountByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A sign-in with the earlier password never has a session after the change.
func TestChangePassword_ConcurrentWithSignIn(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	opened := 0
	for i := range rounds {
		a := create(t, s, fmt.Sprint("ann", i))
		late := record("late", noon)
		_, err := both(func() error { return s.Open(t.Context(), a, late, "", "") }, func() error {
			_, err := s.ChangePassword(t.Context(), a, a.ID+"0", "", "new hash", user.Origin{}, noon)
			return err
		})
		after := stored(t, s, a.ID)
		if _, exists := after.Sessions[a.ID+"0"]; err != nil || after.Password != "new hash" || len(after.Sessions) != 1 || !exists {
			t.Fatalf("round %d: got %v, the password %s and the sessions %v, want that of the change alone", i, err, after.Password, after.Sessions)
		}
		opened += after.Opened - 1
	}
	t.Logf("%d of %d sign-ins were first", opened, rounds)
}

func TestChangePassword_Concurrent(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	a := create(t, s, "ann")
	if n := inParallel(t, 20, user.ErrChanged, func(i int) error {
		_, err := s.ChangePassword(t.Context(), a, "ann0", "", fmt.Sprint("hash ", i), user.Origin{}, noon)
		return err
	}); n != 1 {
		t.Errorf("%d changes succeeded, want 1", n)
	}
}

// A client that knew the earlier password could have registered a device, which has a rate limit of its own.
func TestChangePassword_ForgetsOtherDevices(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	create(t, s, "ann")
	for _, device := range []string{"owner", "attacker"} {
		if err := s.Open(t.Context(), stored(t, s, "ann"), record("session"+device, noon), device, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.ChangePassword(t.Context(), stored(t, s, "ann"), "ann0", "owner", "new hash", user.Origin{}, noon); err != nil {
		t.Fatal(err)
	}
	if a := stored(t, s, "ann"); !a.HasDevice("owner", noon) || a.HasDevice("attacker", noon) {
		t.Errorf("got the devices %v, want that of the client alone", a.Devices)
	}
}

func TestChangePassword_EndsSessionsOfConcurrentSignOut(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	for i := range rounds {
		a := create(t, s, fmt.Sprint("ann", i))
		if err := s.Open(t.Context(), a, record("other", noon), "", ""); err != nil {
			t.Fatal(err)
		}
		ended := 0
		_, err := both(func() error { return s.End(t.Context(), a.ID, "other") }, func() (err error) {
			ended, err = s.ChangePassword(t.Context(), a, a.ID+"0", "", "new hash", user.Origin{}, noon)
			return err
		})
		if after := stored(t, s, a.ID); err != nil || len(after.Sessions) != 1 || after.Ended["other"].IsZero() || ended > 1 {
			t.Fatalf("round %d: got %v, %d sessions, %d ended, %v; want one session and one record", i, err, len(after.Sessions), ended, after.Ended)
		}
	}
}

func claim(t *testing.T, s *user.Store, id string, purpose event.Purpose) user.Claim {
	t.Helper()
	c, err := s.Claim(t.Context(), id, purpose, func(user.Pending) bool { return true }, noon)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// One of two recoveries with one token changes the password. The other one learns that it did not.
func TestConfirmRecovery_Concurrent(t *testing.T) {
	t.Parallel()
	s := openWithMails(t)
	a := create(t, s, "ann")
	if err := s.RequestRecovery(t.Context(), a.Email, noon); err != nil {
		t.Fatal(err)
	}
	c := claim(t, s, "ann", event.Recovery)
	if n := inParallel(t, 30, user.ErrChanged, func(i int) error {
		return s.ConfirmRecovery(t.Context(), c, fmt.Sprint("hash ", i), user.Origin{}, noon)
	}); n != 1 {
		t.Errorf("%d recoveries succeeded, want 1", n)
	}
	if after := stored(t, s, "ann"); after.Changes != 2 || len(after.Sessions) != 0 {
		t.Errorf("got %d changes and %d sessions, want 2 and 0", after.Changes, len(after.Sessions))
	}
}

// A change of the email and a recovery exclude each other: each ends the pending confirmation of the
// other.
func TestConfirm_EmailConcurrentWithRecovery(t *testing.T) {
	t.Parallel()
	s := openWithMails(t)
	for i := range rounds {
		a := create(t, s, fmt.Sprint("ann", i))
		to := fmt.Sprintf("new%d@example.com", i)
		if err := s.RequestEmailChange(t.Context(), a, a.ID+"0", to, user.Origin{}, noon); err != nil {
			t.Fatal(err)
		}
		if err := s.RequestRecovery(t.Context(), a.Email, noon); err != nil {
			t.Fatal(err)
		}
		change, recovery := claim(t, s, a.ID, event.EmailChange), claim(t, s, a.ID, event.Recovery)
		first, second := both(func() error { return s.ConfirmEmail(t.Context(), change, user.Origin{}, noon) },
			func() error { return s.ConfirmRecovery(t.Context(), recovery, "new hash", user.Origin{}, noon) })
		after := stored(t, s, a.ID)
		if (first == nil) == (second == nil) || !errors.Is(errors.Join(first, second), user.ErrNotPending) ||
			(after.Email == to) != (first == nil) || (after.Password == "new hash") != (second == nil) {
			t.Fatalf("round %d: got %v and %v, the email %s and the password %s; want one success", i, first, second, after.Email, after.Password)
		}
	}
}

func requestDeletion(t *testing.T, s *user.Store, a user.Account, grace time.Duration) {
	t.Helper()
	if _, err := s.RequestDeletion(t.Context(), a, a.ID+"0", grace, user.Origin{}, noon); err != nil {
		t.Fatal(err)
	}
}

// An attacker has changed the email and used up the mails of a recovery. The owner gets one after the undo.
func TestUndoEmail_AllowsRecovery(t *testing.T) {
	t.Parallel()
	s := openWithMails(t)
	a := create(t, s, "ann")
	if err := s.RequestEmailChange(t.Context(), a, "ann0", "attacker@example.com", user.Origin{}, noon); err != nil {
		t.Fatal(err)
	}
	if err := s.ConfirmEmail(t.Context(), claim(t, s, "ann", event.EmailChange), user.Origin{}, noon); err != nil {
		t.Fatal(err)
	}
	for s.RequestRecovery(t.Context(), "attacker@example.com", noon) == nil {
	}
	for nonce := range stored(t, s, "ann").Undo {
		if err := s.UndoEmail(t.Context(), "ann", nonce, func(user.Pending) bool { return true }, user.Origin{}, noon); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RequestRecovery(t.Context(), a.Email, noon); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// A sign-in that began before the deletion has no session after it.
func TestRequestDeletion_ConcurrentWithSignIn(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	for i := range rounds {
		a := create(t, s, fmt.Sprint("ann", i))
		_, err := both(func() error { return s.Open(t.Context(), a, record("late", noon), "", "") }, func() error {
			_, err := s.RequestDeletion(t.Context(), a, a.ID+"0", time.Hour, user.Origin{}, noon)
			return err
		})
		if after := stored(t, s, a.ID); err != nil || len(after.Sessions) != 0 || after.DeletesAt == nil {
			t.Fatalf("round %d: got %v, %d sessions, deletion at %v; want no session and a time", i, err, len(after.Sessions), after.DeletesAt)
		}
	}
}

func TestRestore_ConcurrentWithDeletion(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	for i := range rounds {
		a := create(t, s, fmt.Sprint("ann", i))
		first, second := both(func() error { return s.Restore(t.Context(), a, user.Origin{}, noon) }, func() error {
			_, err := s.RequestDeletion(t.Context(), a, a.ID+"0", time.Hour, user.Origin{}, noon)
			return err
		})
		after := stored(t, s, a.ID)
		restored := after.Changes == 2
		early := errors.Is(first, user.ErrNotDeleting) // before the request
		if first != nil && !early || early == restored || second != nil || restored == (after.DeletesAt != nil) || len(after.Sessions) != 0 {
			t.Fatalf("round %d: got %v and %v, %d changes, deletion at %v, %d sessions; want a consistent order", i, first, second, after.Changes, after.DeletesAt, len(after.Sessions))
		}
	}
}

// The clock of the restoration is before the end of the grace period, that of the erasure after it. An
// account is restored with everything, or erased.
func TestErase_ConcurrentWithRestore(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	erased := 0
	for i := range rounds {
		a := create(t, s, fmt.Sprint("ann", i))
		requestDeletion(t, s, a, time.Hour)
		first, second := both(func() error { return s.Erase(t.Context(), a.ID, noon.Add(time.Hour)) },
			func() error { return s.Restore(t.Context(), a, user.Origin{}, noon.Add(time.Hour-time.Millisecond)) })
		after := stored(t, s, a.ID)
		switch {
		case first == nil && second == nil && after.ErasedAt == nil && after.Email == a.Email && after.Password == a.Password && after.DeletesAt == nil:
		case first == nil && errors.Is(second, user.ErrNotFound) && after.ErasedAt != nil && after.Password == "" && len(after.History) == 0:
			erased++
		default:
			t.Fatalf("round %d: got %v, %v and %+v; want a restored or an erased account", i, first, second, after)
		}
	}
	t.Logf("%d of %d accounts were erased", erased, rounds)
}

func TestErase_Concurrent(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	a := create(t, s, "ann")
	requestDeletion(t, s, a, 0)
	if n := inParallel(t, 20, nil, func(int) error { return s.Erase(t.Context(), "ann", noon) }); n != 20 {
		t.Errorf("%d erasures succeeded, want 20", n)
	}
	if after := stored(t, s, "ann"); after.Changes != 2 || after.ErasedAt == nil {
		t.Errorf("got %d changes, erased at %v; want 2 and a time", after.Changes, after.ErasedAt)
	}
}

// A run erases the accounts that are due, and no others.
func TestEraseDue(t *testing.T) {
	t.Parallel()
	s := open(t, 20)
	for i := range 3 {
		requestDeletion(t, s, create(t, s, fmt.Sprint("due", i)), time.Hour)
	}
	requestDeletion(t, s, create(t, s, "later"), time.Hour+time.Millisecond)
	create(t, s, "ann")
	if err := s.EraseDue(t.Context(), noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"due0": true, "due1": true, "due2": true, "later": false, "ann": false} {
		if got := stored(t, s, id).ErasedAt != nil; got != want {
			t.Errorf("%s: erased: %v, want %v", id, got, want)
		}
	}
}

// One call erases at most 100 accounts. More accounts than that are unreadable; they do not delay the
// others.
func TestEraseDue_SkipsUnreadableAccounts(t *testing.T) {
	t.Parallel()
	uri := mongotest.URI(t)
	users, s := collection(t, uri), connect(t, uri, 20)
	var unreadable []any
	for i := range 101 {
		unreadable = append(unreadable, bson.D{{Key: "_id", Value: fmt.Sprint("a", i)}, {Key: "email", Value: i}, {Key: "deletesAt", Value: noon}})
	}
	unreadable = append(unreadable, bson.D{{Key: "_id", Value: 5}, {Key: "email", Value: "five"}, {Key: "deletesAt", Value: noon}})
	if _, err := users.InsertMany(t.Context(), unreadable); err != nil {
		t.Fatal(err)
	}
	requestDeletion(t, s, create(t, s, "due"), 0)
	if err := s.EraseDue(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if stored(t, s, "due").ErasedAt == nil {
		t.Error("the account is not erased, want it erased")
	}
}
