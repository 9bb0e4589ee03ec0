package user_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// open returns a prepared store with an empty database of its own. Fifty concurrent writes take long on a
// busy machine.
func open(t *testing.T, sessions int) *user.Store {
	t.Helper()
	uri, prepared := mongotest.Reused(t, "users")
	s := connect(t, mongotest.Slow(t, uri), sessions)
	if !prepared {
		if err := s.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func connect(t *testing.T, uri string, sessions int) *user.Store {
	t.Helper()
	db, err := mongodb.New(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return user.New(user.Config{Database: db, Sessions: sessions})
}

// openWithMails returns a store whose sink takes every event.
func openWithMails(t *testing.T) *user.Store {
	t.Helper()
	s := open(t, 20)
	s.Outbox().Sink = discard{}
	return s
}

// discard is a sink that accepts every event.
type discard struct{}

func (discard) Send(context.Context, event.Event) error { return nil }
func (discard) Takes(*event.Type) bool                  { return true }
func (discard) Timeout() time.Duration                  { return time.Second }

func record(id string, at time.Time) user.Session {
	return user.Session{ID: id, Family: []byte("family of " + id), Token: []byte("1"),
		CreatedAt: at, RotatedAt: at, ExpiresAt: at.Add(time.Hour)}
}

func first(id string) *user.Session {
	s := record(id, noon)
	return &s
}

func create(t *testing.T, s *user.Store, id string) user.Account {
	t.Helper()
	if err := s.Create(t.Context(), user.Registration{User: user.User{ID: id, Email: id + "@example.com"}, Password: "hash", First: first(id + "0")}); err != nil {
		t.Fatal(err)
	}
	a, err := s.AccountByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// inParallel calls f n times concurrently and returns the number of calls that succeeded. The
// others must return the expected error.
func inParallel(t *testing.T, n int, expected error, f func(i int) error) int {
	t.Helper()
	var succeeded atomic.Int64
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := f(i); err == nil {
				succeeded.Add(1)
			} else if !errors.Is(err, expected) {
				t.Errorf("got error %v, want nil or %v", err, expected)
			}
		})
	}
	group.Wait()
	return int(succeeded.Load())
}

// collection returns the collection of the users, for documents and indexes that no Store creates.
func collection(t *testing.T, uri string) *mongo.Collection {
	t.Helper()
	db, err := mongodb.New(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	users, err := db.Collection(t.Context(), user.Collection)
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func TestPrepare_ConcurrentAndRepeated(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	create(t, s, "ann")
	inParallel(t, 5, nil, func(int) error { return s.Prepare(t.Context()) })
	create(t, s, "bob")
}

func TestPrepare_DropsFormerIndex(t *testing.T) {
	t.Parallel()
	uri := mongotest.URI(t)
	users := collection(t, uri)
	if _, err := users.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "undelivered", Value: 1}}}); err != nil {
		t.Fatal(err)
	}
	s := connect(t, uri, 5)
	create(t, s, "ann")
	for range 2 {
		if err := s.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		indexes, err := users.Indexes().ListSpecifications(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, index := range indexes {
			names = append(names, index.Name)
		}
		if slices.Contains(names, "undelivered_1") || !slices.Contains(names, "email_1") {
			t.Errorf("got indexes %v, want email_1 and not undelivered_1", names)
		}
	}
}

func TestCreate_ConcurrentDuplicateEmail(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	created := inParallel(t, 100, user.ErrDuplicate, func(i int) error {
		return s.Create(t.Context(), user.Registration{User: user.User{ID: fmt.Sprint(i), Email: "ann@example.com"}, Password: "hash", First: first("a")})
	})
	if created != 1 {
		t.Errorf("got %d users, want 1", created)
	}
}

func TestAccount_UnknownEmail(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	for _, email := range []string{"", "unknown@example.com", `{"$gt":""}`, "$where"} {
		if _, err := s.Account(t.Context(), email); !errors.Is(err, user.ErrNotFound) {
			t.Errorf("%q: got %v, want ErrNotFound", email, err)
		}
	}
}

func TestSession_Expiry(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	create(t, s, "ann")
	for after, want := range map[time.Duration]error{0: nil, time.Hour - time.Millisecond: nil, time.Hour: user.ErrSessionEnded} {
		if _, err := s.Session(t.Context(), "ann", "ann0", noon.Add(after)); !errors.Is(err, want) {
			t.Errorf("after %v: got %v, want %v", after, err, want)
		}
	}
	for _, other := range [][2]string{{"ann", "bob0"}, {"bob", "ann0"}, {"", ""}} {
		if _, err := s.Session(t.Context(), other[0], other[1], noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Errorf("user and session %q: got %v, want ErrSessionEnded", other, err)
		}
	}
}

func TestOpen_PasswordChanged(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	a := create(t, s, "ann")
	if err := s.Open(t.Context(), a, record("b", noon), "", "another hash"); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context(), a, record("c", noon), "", ""); !errors.Is(err, user.ErrChanged) {
		t.Errorf("with the old hash: got %v, want ErrChanged", err)
	}
	a, _ = s.AccountByID(t.Context(), a.ID)
	if len(a.Sessions) != 2 || a.Password != "another hash" {
		t.Errorf("got %d sessions and the hash %q, want 2 and the new hash", len(a.Sessions), a.Password)
	}
}

func TestOpen_ConcurrentSignInsAtSessionLimit(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("opens many sessions at the same time")
	}
	s := open(t, 4)
	a := create(t, s, "ann")
	if opened := inParallel(t, 25, nil, func(i int) error { return s.Open(t.Context(), a, record(fmt.Sprint("s", i), noon), "", "") }); opened != 25 {
		t.Errorf("got %d opened sessions, want 25", opened)
	}
	a, err := s.AccountByID(t.Context(), a.ID)
	if err != nil || len(a.Sessions) != 4 || a.Opened != 26 {
		t.Errorf("got %d sessions, %d ever opened (error %v), want 4 and 26", len(a.Sessions), a.Opened, err)
	}
}

func TestOpen_EndsSessionWithOldestRefreshAtLimit(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	a := create(t, s, "ann")
	for i, id := range []string{"b", "c"} {
		if err := s.Open(t.Context(), a, record(id, noon.Add(time.Duration(i+1)*time.Minute)), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Rotate(t.Context(), rotation("ann", "ann0", "1", "2"), noon.Add(5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	a, _ = s.AccountByID(t.Context(), a.ID)
	if err := s.Open(t.Context(), a, record("d", noon.Add(6*time.Minute)), "", ""); err != nil {
		t.Fatal(err)
	}
	a, _ = s.AccountByID(t.Context(), a.ID)
	if _, exists := a.Sessions["b"]; exists || len(a.Sessions) != 3 {
		t.Errorf("got sessions %v, want 3 without b", a.Sessions)
	}
}

func rotation(id, sid, used, next string) user.Rotation {
	return user.Rotation{User: id, Session: sid, Family: []byte("family of " + sid), Used: []byte(used), Token: []byte(next),
		Salt: []byte(rand.Text()), ExpiresAt: noon.Add(2 * time.Hour)}
}

func TestIssued(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	create(t, s, "ann")
	newest := rotation("ann", "ann0", "1", "2")
	if _, err := s.Rotate(t.Context(), newest, noon); err != nil {
		t.Fatal(err)
	}
	forged := rotation("ann", "ann0", "1", "2")
	forged.Family = []byte("another")
	for _, c := range []struct {
		name  string
		r     user.Rotation
		after time.Duration
		want  error
	}{
		{"the newest token", rotation("ann", "ann0", "2", "3"), 0, nil},
		{"a used token", newest, time.Minute, nil},
		{"before the expiry of the session", newest, 2*time.Hour - time.Millisecond, nil},
		{"at the expiry of the session", newest, 2 * time.Hour, user.ErrSessionEnded},
		{"a token without the family secret", forged, 0, user.ErrSessionEnded},
		{"a token of another session", rotation("ann", "ann1", "1", "2"), 0, user.ErrSessionEnded},
		{"a token of another user", rotation("bob", "ann0", "1", "2"), 0, user.ErrSessionEnded},
	} {
		if err := s.Issued(t.Context(), c.r, noon.Add(c.after)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRotate_ConcurrentExchangesReturnOneResult(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	create(t, s, "ann")
	var salts sync.Map
	succeeded := inParallel(t, 50, nil, func(int) error {
		r := rotation("ann", "ann0", "1", "2")
		got, err := s.Rotate(t.Context(), r, noon.Add(time.Minute))
		salts.Store(string(got.Salt), got.Session.Generation)
		return err
	})
	n := 0
	salts.Range(func(_, generation any) bool { n++; return generation == 1 })
	if succeeded != 50 || n != 1 {
		t.Errorf("%d of 50 exchanges succeeded with %d different salts, want 50 with 1", succeeded, n)
	}
}

func TestEnd_ConcurrentWithRotate(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	for i := range 20 {
		id := fmt.Sprint("u", i)
		create(t, s, id)
		var group sync.WaitGroup
		group.Go(func() { s.Rotate(t.Context(), rotation(id, id+"0", "1", "2"), noon) })
		group.Go(func() { s.End(t.Context(), id, id+"0") })
		group.Wait()
		if _, err := s.Session(t.Context(), id, id+"0", noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Fatalf("session of %s: got %v, want ErrSessionEnded", id, err)
		}
	}
}

func TestRotate_WrongFamilyChangesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	create(t, s, "ann")
	r := rotation("ann", "ann0", "0", "2")
	r.Family = []byte("another")
	if _, err := s.Rotate(t.Context(), r, noon); !errors.Is(err, user.ErrSessionEnded) {
		t.Errorf("Rotate: got %v, want ErrSessionEnded", err)
	}
	if _, err := s.Session(t.Context(), "ann", "ann0", noon); err != nil {
		t.Errorf("the session: got error %v, want none", err)
	}
}

func TestStore_DatabaseUnavailable(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two servers and waits for the server selection")
	}
	t.Parallel()
	server := mongotest.Server(t)
	s := connect(t, server.URI()+"?serverSelectionTimeoutMS=1500", 5)
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, s, "ann")
	server.Kill()
	var calls sync.WaitGroup
	for name, call := range map[string]func() error{
		"create": func() error {
			return s.Create(t.Context(), user.Registration{User: user.User{ID: "b", Email: "b"}, Password: "hash", First: first("b")})
		},
		"account": func() error { _, err := s.Account(t.Context(), "ann@example.com"); return err },
		"open": func() error {
			return s.Open(t.Context(), user.Account{Profile: user.Profile{User: user.User{ID: "ann"}}}, record("b", noon), "", "")
		},
		"session": func() error { _, err := s.Session(t.Context(), "ann", "ann0", noon); return err },
		"end":     func() error { return s.End(t.Context(), "ann", "ann0") },
		"rotate": func() error {
			_, err := s.Rotate(t.Context(), rotation("ann", "ann0", "1", "2"), noon)
			return err
		},
	} {
		calls.Go(func() {
			if err := call(); apierror.From(err).Kind() != apierror.Unavailable {
				t.Errorf("%s: got %v, want one of kind Unavailable", name, err)
			}
		})
	}
	calls.Wait()
	server.Start()
	if _, err := s.Session(t.Context(), "ann", "ann0", noon); err != nil {
		t.Errorf("a session acknowledged before the kill of the database: got error %v, want none", err)
	}
}
