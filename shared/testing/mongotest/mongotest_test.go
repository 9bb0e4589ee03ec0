package mongotest

import (
	"context"
	"crypto/rand"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"
)

// connect returns the collection "c" in the database of a URI.
func connect(t *testing.T, uri string) *mongo.Collection {
	t.Helper()
	parsed, err := connstring.ParseAndValidate(uri)
	if err != nil {
		t.Fatal(err)
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		client.Disconnect(ctx)
	})
	return client.Database(parsed.Database).Collection("c")
}

func count(t *testing.T, c *mongo.Collection) int64 {
	t.Helper()
	n, err := c.CountDocuments(t.Context(), bson.M{})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func insert(t *testing.T, c *mongo.Collection) {
	t.Helper()
	if _, err := c.InsertOne(t.Context(), bson.M{}); err != nil {
		t.Fatal(err)
	}
}

func TestURI_SeparateDatabases(t *testing.T) {
	t.Parallel()
	one, other := connect(t, URI(t)), connect(t, URI(t))
	insert(t, one)
	if count(t, one) != 1 || count(t, other) != 0 {
		t.Errorf("counted %d and %d, want 1 and 0", count(t, one), count(t, other))
	}
}

func TestReused(t *testing.T) {
	t.Parallel()
	if os.Getenv("MONGODB_URI") != "" {
		t.Skip("only databases of the embedded server are reused")
	}
	one, other := rand.Text(), rand.Text()
	use := func(schema string, test func(t *testing.T, uri string, prepared bool)) {
		t.Run(schema, func(t *testing.T) {
			uri, prepared := Reused(t, schema)
			test(t, uri, prepared)
		})
	}
	var first string
	use(one, func(t *testing.T, uri string, prepared bool) {
		if prepared {
			t.Error("the first database is prepared")
		}
		first = uri
		insert(t, connect(t, uri))
		if second, _ := Reused(t, one); second == first {
			t.Error("two tests have the same database at the same time")
		}
	})
	use(other, func(t *testing.T, uri string, prepared bool) {
		if prepared || uri == first {
			t.Error("the database of another schema is reused")
		}
	})
	use(one, func(t *testing.T, uri string, prepared bool) {
		if !prepared || uri != first {
			t.Error("no database is reused")
		}
		if n := count(t, connect(t, uri)); n != 0 {
			t.Errorf("the reused database has %d documents, want 0", n)
		}
	})
}

func TestURI_DropsDatabase(t *testing.T) {
	t.Parallel()
	server, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	var name string
	t.Run("a test", func(t *testing.T) {
		c := connect(t, URI(t))
		insert(t, c)
		name = c.Database().Name()
	})
	left, err := connect(t, server+"/admin").Database().Client().
		ListDatabaseNames(t.Context(), bson.M{"name": name})
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("databases %v after the test, want none", left)
	}
}

func TestURI_ServerOfEnvironment(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	if os.Getenv("MONGODB_URI") != "" {
		t.Skip("MONGODB_URI is set")
	}
	t.Parallel()
	private := Server(t)
	uri, err := withDatabase(private.URI()+"?appName=test", "chosen")
	if err != nil {
		t.Fatal(err)
	}
	got := database(t, uri)
	if !strings.HasSuffix(got, "?appName=test") || strings.Contains(got, "chosen") {
		t.Errorf("database(%s) = %s, want another database and the same query", uri, got)
	}
	insert(t, connect(t, got))
}

func TestInstance_RestartKeepsDataAndAddress(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	for name, end := range map[string]func(*Instance){
		"after a stop": (*Instance).Stop,
		"after a kill": (*Instance).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := Server(t)
			uri := server.URI()
			c := connect(t, uri+"?serverSelectionTimeoutMS=10000")
			insert(t, c)

			end(server)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := c.InsertOne(ctx, bson.M{}); err == nil {
				t.Error("a stopped server accepted a write, want an error")
			}

			server.Start()
			if server.URI() != uri {
				t.Errorf("URI after the restart = %s, want %s", server.URI(), uri)
			}
			if n := count(t, c); n != 1 { // the same client has reconnected
				t.Errorf("%d documents after the restart, want 1", n)
			}
		})
	}
}

func TestInstance_RepeatedStopAndStart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	t.Parallel()
	server := Server(t)
	server.Start()
	server.Kill()
	server.Kill()
	server.Stop()
	server.Start()
	insert(t, connect(t, server.URI()))
}

func TestDatabaseName(t *testing.T) {
	allowed := regexp.MustCompile(`^[a-z0-9_]{1,62}$`)
	for test, begins := range map[string]string{
		"TestSignup/refuses_a_used_email":   "t_signup_refuses_a_used_email_",
		"TestÜmläut/$quoted \"name\"#01":    "t__ml_ut__quoted__name__01_",
		"Test":                              "t__",
		"Test" + strings.Repeat("Long", 99): "t_longlong",
	} {
		name, again := databaseName(test), databaseName(test)
		if !allowed.MatchString(name) || !strings.HasPrefix(name, begins) {
			t.Errorf("databaseName(%s) = %q, want the prefix %q", test, name, begins)
		}
		if name == again {
			t.Errorf("databaseName(%s) = %q twice, want different names", test, name)
		}
	}
}

func TestWithDatabase(t *testing.T) {
	for given, want := range map[string]string{
		"mongodb://localhost":                                  "mongodb://localhost/db",
		"mongodb://localhost/":                                 "mongodb://localhost/db",
		"mongodb://localhost/other":                            "mongodb://localhost/db",
		"mongodb://localhost?w=majority":                       "mongodb://localhost/db?w=majority",
		"mongodb://a:1,b:2,[::1]:3/?replicaSet=rs0&w=majority": "mongodb://a:1,b:2,[::1]:3/db?replicaSet=rs0&w=majority",
		"mongodb+srv://cluster.example.com/other?tls=true":     "mongodb+srv://cluster.example.com/db?tls=true",
		"mongodb://me:pw@host":                                 "mongodb://me:pw@host/db?authSource=admin",
		"mongodb://me:p%2Fw@host/other":                        "mongodb://me:p%2Fw@host/db?authSource=other",
		"mongodb://me:pw@host/other?authSource=a":              "mongodb://me:pw@host/db?authSource=a",
		"mongodb://me:pw@host/?tls=true":                       "mongodb://me:pw@host/db?tls=true&authSource=admin",
		"mongodb://me:pw@host/?authMechanism=SCRAM-SHA-256":    "mongodb://me:pw@host/db?authMechanism=SCRAM-SHA-256&authSource=admin",
		"mongodb://me@host/?authMechanism=MONGODB-X509":        "mongodb://me@host/db?authMechanism=MONGODB-X509",
	} {
		got, err := withDatabase(given, "db")
		if err != nil || got != want {
			t.Errorf("withDatabase(%s)\n got  %s, %v\n want %s", given, got, err, want)
		}
	}
	for _, given := range []string{"", "localhost:27017", "http://localhost"} {
		if got, err := withDatabase(given, "db"); err == nil {
			t.Errorf("withDatabase(%q) = %s, want an error", given, got)
		}
	}
}
