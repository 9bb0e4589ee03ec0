package e2e_test

import (
	"net"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

const indexMessage = `"msg":"indexes are in place"`

func TestMigrate_UniqueEmail(t *testing.T) {
	for name, migrate := range map[string]func(t *testing.T, uri string){
		"migrated once":  func(t *testing.T, uri string) { runMigrate(t, uri) },
		"migrated twice": func(t *testing.T, uri string) { runMigrate(t, uri); runMigrate(t, uri) },
		"migrated by several processes": func(t *testing.T, uri string) {
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() { runMigrate(t, uri) })
			}
			group.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			uri := mongotest.URI(t)
			migrate(t, uri)
			users := usersCollection(t, uri)
			for _, u := range []struct {
				id, email string
				duplicate bool
			}{{"1", "ann@example.com", false}, {"2", "bob@example.com", false}, {"3", "ann@example.com", true}} {
				_, err := users.InsertOne(t.Context(), bson.D{{Key: "_id", Value: u.id}, {Key: "email", Value: u.email}})
				if mongo.IsDuplicateKeyError(err) != u.duplicate || (err != nil) != u.duplicate {
					t.Errorf("insert user %s with %s: got %v, want a duplicate key: %v", u.id, u.email, err, u.duplicate)
				}
			}
			runMigrate(t, uri) // a database with users
			if n, err := users.CountDocuments(t.Context(), bson.D{}); n != 2 || err != nil {
				t.Errorf("got %d users, %v; want 2", n, err)
			}
		})
	}
}

func runMigrate(t testing.TB, uri string) {
	t.Helper()
	code, stderr := e2e.Run(t, []string{"MONGODB_URI=" + uri}, "migrate")
	if code != 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, indexMessage) {
		t.Errorf("migrate: got exit code %d, stderr %q; want 0 and one line with %s", code, stderr, indexMessage)
	}
}

func TestMigrate_InvalidSettings(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings []string
		want     string
	}{
		{"no settings", nil, "  MONGODB_URI is not set\n"},
		{"all settings are invalid", []string{"MONGODB_URI=postgres://admin:hunter2@127.0.0.1/users", "LOG_LEVEL=loud"},
			"  LOG_LEVEL must be debug, info, warn or error\n" +
				"  MONGODB_URI is not a connection string (mongodb://host[:port]/database)\n"},
		{"an option that the driver does not accept", []string{"MONGODB_URI=mongodb://127.0.0.1/?directConnection=true&loadBalanced=true"},
			"  MONGODB_URI has an option or a host that the driver does not accept\n"},
	} {
		if code, stderr := e2e.MustFail(t, c.settings, "migrate"); code != 2 || stderr != "migrate cannot start:\n"+c.want {
			t.Errorf("%s: got exit code %d, stderr %q; want 2 and the problems %q", c.name, code, stderr, c.want)
		}
	}
}

// A migration that cannot run exits with an error soon. Otherwise Kubernetes does not retry
// the Job.
func TestMigrate_Failure(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // never accepts a connection
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	duplicates := mongotest.URI(t)
	for _, id := range []string{"1", "2"} {
		if _, err := usersCollection(t, duplicates).InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}, {Key: "email", Value: "ann@example.com"}}); err != nil {
			t.Fatal(err)
		}
	}
	const shortTimeouts = "/users?serverSelectionTimeoutMS=200&connectTimeoutMS=200"
	for name, uri := range map[string]string{
		"the port is closed":            "mongodb://admin:hunter2@" + closed.Addr().String() + shortTimeouts,
		"the server does not answer":    "mongodb://admin:hunter2@" + silent.Addr().String() + shortTimeouts,
		"two users have the same email": duplicates,
	} {
		code, stderr := e2e.MustFail(t, []string{"MONGODB_URI=" + uri}, "migrate")
		if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, `"level":"ERROR"`) || strings.Contains(stderr, indexMessage) {
			t.Errorf("%s: got exit code %d, stderr %q; want 1 and one line of level ERROR", name, code, stderr)
		}
		for _, secret := range []string{"hunter2", "ann@example.com"} {
			if strings.Contains(stderr, secret) {
				t.Errorf("%s: the log contains %s: %s", name, secret, stderr)
			}
		}
	}
}
