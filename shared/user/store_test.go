package user_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// open returns a prepared store on a database of its own. On a busy machine fifty writes at
// the same time take long; the tests ask what they do.
func open(t *testing.T, sessions int) *user.Store {
	t.Helper()
	uri, err := url.Parse(mongotest.URI(t))
	if err != nil {
		t.Fatal(err)
	}
	query := uri.Query()
	query.Set("serverSelectionTimeoutMS", "120000")
	query.Set("connectTimeoutMS", "120000")
	uri.RawQuery = query.Encode()
	s := connect(t, uri.String(), sessions)
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
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
	if err := s.Create(t.Context(), user.User{ID: id, Email: id + "@example.com"}, "hash", first(id+"0")); err != nil {
		t.Fatal(err)
	}
	a, err := s.AccountByID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// together calls f n times at once and counts how often it returned nil; all
// other errors must be the expected one.
func together(t *testing.T, n int, expected error, f func(i int) error) int {
	t.Helper()
	var won atomic.Int64
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := f(i); err == nil {
				won.Add(1)
			} else if !errors.Is(err, expected) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	return int(won.Load())
}

func TestPrepareMayBeRepeatedAndRacedAndKeepsWhatIsThere(t *testing.T) {
	s := open(t, 5)
	create(t, s, "ann")
	together(t, 5, nil, func(int) error { return s.Prepare(t.Context()) })
	create(t, s, "bob")
}

func TestPrepare_DropsTheIndexOfEarlierVersions(t *testing.T) {
	uri := mongotest.URI(t)
	db, err := mongodb.New(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	users, err := db.Collection(t.Context(), "users")
	if err != nil {
		t.Fatal(err)
	}
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
			t.Errorf("the indexes are %v", names)
		}
	}
}

func TestOfManyUsersWithOneEmailOneIsCreated(t *testing.T) {
	s := open(t, 5)
	won := together(t, 100, user.ErrDuplicate, func(i int) error {
		return s.Create(t.Context(), user.User{ID: fmt.Sprint(i), Email: "ann@example.com"}, "hash", first("a"))
	})
	if won != 1 {
		t.Errorf("%d were created", won)
	}
}

func TestAnUnknownEmailHasNoAccount(t *testing.T) {
	s := open(t, 5)
	for _, email := range []string{"", "nobody@example.com", `{"$gt":""}`, "$where"} {
		if _, err := s.Account(t.Context(), email); !errors.Is(err, user.ErrNotFound) {
			t.Errorf("%q: %v", email, err)
		}
	}
}

func TestASessionLivesUntilItExpires(t *testing.T) {
	s := open(t, 5)
	create(t, s, "ann")
	for after, want := range map[time.Duration]error{0: nil, time.Hour - time.Millisecond: nil, time.Hour: user.ErrSessionEnded} {
		if _, err := s.Session(t.Context(), "ann", "ann0", noon.Add(after)); !errors.Is(err, want) {
			t.Errorf("after %v: %v", after, err)
		}
	}
	for _, other := range [][2]string{{"ann", "bob0"}, {"bob", "ann0"}, {"", ""}} {
		if _, err := s.Session(t.Context(), other[0], other[1], noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Errorf("%v: %v", other, err)
		}
	}
}

func TestASessionOpensOnlyOnThePasswordThatWasChecked(t *testing.T) {
	s := open(t, 5)
	a := create(t, s, "ann")
	if err := s.Open(t.Context(), a, record("b", noon), "another hash"); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context(), a, record("c", noon), ""); !errors.Is(err, user.ErrChanged) {
		t.Errorf("with the old hash: %v", err)
	}
	a, _ = s.AccountByID(t.Context(), a.ID)
	if len(a.Sessions) != 2 || a.Password != "another hash" {
		t.Errorf("account %+v", a)
	}
}

func TestTheBoundOfSessionsIsExactWhenRaced(t *testing.T) {
	s := open(t, 4)
	a := create(t, s, "ann")
	if won := together(t, 60, nil, func(i int) error { return s.Open(t.Context(), a, record(fmt.Sprint("s", i), noon), "") }); won != 60 {
		t.Errorf("%d were opened", won)
	}
	a, err := s.AccountByID(t.Context(), a.ID)
	if err != nil || len(a.Sessions) != 4 || a.Opened != 61 {
		t.Errorf("%d sessions of %d, %v", len(a.Sessions), a.Opened, err)
	}
}

func TestTheSessionLongestWithoutARefreshGivesWay(t *testing.T) {
	s := open(t, 3)
	a := create(t, s, "ann")
	for i, id := range []string{"b", "c"} {
		if err := s.Open(t.Context(), a, record(id, noon.Add(time.Duration(i+1)*time.Minute)), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Rotate(t.Context(), rotation("ann", "ann0", "1", "2"), noon.Add(5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	a, _ = s.AccountByID(t.Context(), a.ID)
	if err := s.Open(t.Context(), a, record("d", noon.Add(6*time.Minute)), ""); err != nil {
		t.Fatal(err)
	}
	a, _ = s.AccountByID(t.Context(), a.ID)
	if _, there := a.Sessions["b"]; there || len(a.Sessions) != 3 {
		t.Errorf("sessions %v", a.Sessions)
	}
}

func rotation(id, sid, used, next string) user.Rotation {
	return user.Rotation{User: id, Session: sid, Family: []byte("family of " + sid), Used: []byte(used), Token: []byte(next),
		Salt: []byte(rand.Text()), ExpiresAt: noon.Add(2 * time.Hour)}
}

func TestWhatWasIssuedForASessionThatLives(t *testing.T) {
	s := open(t, 5)
	create(t, s, "ann")
	newest := rotation("ann", "ann0", "1", "2")
	if _, _, err := s.Rotate(t.Context(), newest, noon); err != nil {
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
		{"the newest", rotation("ann", "ann0", "2", "3"), 0, nil},
		{"one that was used", newest, time.Minute, nil},
		{"just before the end", newest, 2*time.Hour - time.Millisecond, nil},
		{"at the end", newest, 2 * time.Hour, user.ErrSessionEnded},
		{"one that does not know the family", forged, 0, user.ErrSessionEnded},
		{"one of another session", rotation("ann", "ann1", "1", "2"), 0, user.ErrSessionEnded},
		{"one of another user", rotation("bob", "ann0", "1", "2"), 0, user.ErrSessionEnded},
	} {
		if err := s.Issued(t.Context(), c.r, noon.Add(c.after)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		}
	}
}

func TestOfManyRotationsOneWinsAndTheOthersLearnItsSalt(t *testing.T) {
	s := open(t, 5)
	create(t, s, "ann")
	var salts sync.Map
	won := together(t, 50, nil, func(int) error {
		r := rotation("ann", "ann0", "1", "2")
		_, got, err := s.Rotate(t.Context(), r, noon.Add(time.Minute))
		salts.Store(string(got.Salt), got.Generation)
		return err
	})
	n := 0
	salts.Range(func(_, generation any) bool { n++; return generation == 1 })
	if won != 50 || n != 1 {
		t.Errorf("%d of 50 were answered, with %d different salts", won, n)
	}
}

func TestAnEndBesideARotationIsFinal(t *testing.T) {
	s := open(t, 5)
	for i := range 20 {
		id := fmt.Sprint("u", i)
		create(t, s, id)
		var group sync.WaitGroup
		group.Go(func() { s.Rotate(t.Context(), rotation(id, id+"0", "1", "2"), noon) })
		group.Go(func() { s.End(t.Context(), id, id+"0") })
		group.Wait()
		if _, err := s.Session(t.Context(), id, id+"0", noon); !errors.Is(err, user.ErrSessionEnded) {
			t.Fatalf("session of %s: %v", id, err)
		}
	}
}

func TestARotationWithoutTheFamilyChangesNothing(t *testing.T) {
	s := open(t, 5)
	create(t, s, "ann")
	r := rotation("ann", "ann0", "0", "2")
	r.Family = []byte("another")
	if _, _, err := s.Rotate(t.Context(), r, noon); !errors.Is(err, user.ErrSessionEnded) {
		t.Error(err)
	}
	if _, err := s.Session(t.Context(), "ann", "ann0", noon); err != nil {
		t.Error(err)
	}
}

func TestADatabaseThatIsAwayIsUnavailableAndComesBack(t *testing.T) {
	server := mongotest.Server(t)
	s := connect(t, server.URI()+"?serverSelectionTimeoutMS=1500", 5)
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, s, "ann")
	server.Kill()
	var away sync.WaitGroup
	for name, call := range map[string]func() error{
		"create":  func() error { return s.Create(t.Context(), user.User{ID: "b", Email: "b"}, "hash", first("b")) },
		"account": func() error { _, err := s.Account(t.Context(), "ann@example.com"); return err },
		"open": func() error {
			return s.Open(t.Context(), user.Account{User: user.User{ID: "ann"}}, record("b", noon), "")
		},
		"session": func() error { _, err := s.Session(t.Context(), "ann", "ann0", noon); return err },
		"end":     func() error { return s.End(t.Context(), "ann", "ann0") },
		"rotate": func() error {
			_, _, err := s.Rotate(t.Context(), rotation("ann", "ann0", "1", "2"), noon)
			return err
		},
	} {
		away.Go(func() {
			if err := call(); apierror.From(err).Kind() != apierror.Unavailable {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	away.Wait()
	server.Start()
	if _, err := s.Session(t.Context(), "ann", "ann0", noon); err != nil {
		t.Errorf("what was acknowledged before the database was killed: %v", err)
	}
}
