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
		"migrated by several at once": func(t *testing.T, uri string) {
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
			users := collection(t, uri)
			for _, u := range []struct {
				id, email string
				used      bool
			}{{"1", "ann@example.com", false}, {"2", "bob@example.com", false}, {"3", "ann@example.com", true}} {
				_, err := users.InsertOne(t.Context(), bson.D{{Key: "_id", Value: u.id}, {Key: "email", Value: u.email}})
				if mongo.IsDuplicateKeyError(err) != u.used || (err != nil) != u.used {
					t.Errorf("%s for user %s: %v", u.email, u.id, err)
				}
			}
			runMigrate(t, uri) // with users in it
			if n, err := users.CountDocuments(t.Context(), bson.D{}); n != 2 || err != nil {
				t.Errorf("%d users, %v", n, err)
			}
		})
	}
}

func runMigrate(t testing.TB, uri string) {
	t.Helper()
	code, stderr := e2e.Run(t, []string{"MONGODB_URI=" + uri}, "migrate")
	if code != 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, indexMessage) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestMigrate_InvalidSettings(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings []string
		want     string
	}{
		{"nothing is set", nil, "  MONGODB_URI is not set\n"},
		{"all is wrong", []string{"MONGODB_URI=postgres://admin:hunter2@127.0.0.1/users", "SESSION_LIMIT=many", "LOG_LEVEL=loud"},
			"  LOG_LEVEL must be debug, info, warn or error\n" +
				"  SESSION_LIMIT must be a whole number from 1 to 1000\n" +
				"  MONGODB_URI is not a connection string (mongodb://host[:port]/database)\n"},
		{"an option that the driver does not take", []string{"MONGODB_URI=mongodb://127.0.0.1/?directConnection=true&loadBalanced=true"},
			"  MONGODB_URI has an option or a host that the driver does not accept\n"},
	} {
		if code, stderr := e2e.MustFail(t, c.settings, "migrate"); code != 2 || stderr != "migrate cannot start:\n"+c.want {
			t.Errorf("%s: exit code %d: %s", c.name, code, stderr)
		}
	}
}

// A Job that cannot do its work must fail, and soon, or Kubernetes would not try
// again.
func TestMigrate_Failure(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // its connections are never taken up
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	twice := mongotest.URI(t)
	for _, id := range []string{"1", "2"} {
		if _, err := collection(t, twice).InsertOne(t.Context(), bson.D{{Key: "_id", Value: id}, {Key: "email", Value: "ann@example.com"}}); err != nil {
			t.Fatal(err)
		}
	}
	const soon = "/users?serverSelectionTimeoutMS=200&connectTimeoutMS=200"
	for name, uri := range map[string]string{
		"nobody listens":                  "mongodb://admin:hunter2@" + gone.Addr().String() + soon,
		"nobody answers":                  "mongodb://admin:hunter2@" + silent.Addr().String() + soon,
		"there are two users of an email": twice,
	} {
		code, stderr := e2e.MustFail(t, []string{"MONGODB_URI=" + uri}, "migrate")
		if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, `"level":"ERROR"`) || strings.Contains(stderr, indexMessage) {
			t.Errorf("%s: exit code %d: %s", name, code, stderr)
		}
		for _, secret := range []string{"hunter2", "ann@example.com"} {
			if strings.Contains(stderr, secret) {
				t.Errorf("%s: the log holds %s: %s", name, secret, stderr)
			}
		}
	}
}
