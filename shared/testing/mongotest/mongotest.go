// Package mongotest provides databases for tests. Each test has its own database on a real
// server with MongoDB's wire protocol. So tests run in parallel, and with the same database
// code as in production.
//
// By default, the server is the embedded one. The first use in a test process starts it. With
// MONGODB_URI in the environment, the tests use that server, so they also run against a
// replica set.
//
// Only tests import this package.
package mongotest

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/testing/devdb"
)

const (
	// startTimeout bounds the first start, which may compile the server.
	startTimeout = 10 * time.Minute

	// cleanTimeout bounds the commands that drop or empty a database.
	cleanTimeout = 30 * time.Second
)

// URI returns a MongoDB URI with a new database in its path. The end of the test drops the
// database. URI fails the test if the server does not start.
func URI(t testing.TB) string {
	t.Helper()
	server, err := shared()
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	return database(t, server)
}

// SlowURI is like URI, with timeouts for many concurrent commands on a busy machine.
func SlowURI(t testing.TB) string { return Slow(t, URI(t)) }

// Slow returns a URI with the timeouts of SlowURI.
func Slow(t testing.TB, text string) string {
	t.Helper()
	uri, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	query := uri.Query()
	query.Set("serverSelectionTimeoutMS", "120000")
	query.Set("connectTimeoutMS", "120000")
	uri.RawQuery = query.Encode()
	return uri.String()
}

// shared returns the URI of the server of this test process. The package does not stop the
// embedded server, because a test process has no hook at its end. The server exits with the
// process and deletes its data itself.
var shared = sync.OnceValues(func() (string, error) {
	if uri := strings.TrimSpace(os.Getenv("MONGODB_URI")); uri != "" {
		return uri, nil
	}
	server, err := start(devdb.Options{})
	if err != nil {
		return "", err
	}
	return server.URI(), nil
})

func start(o devdb.Options) (*devdb.Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	o.Progress = func(message string) { fmt.Fprintln(os.Stderr, "mongotest:", message) }
	return devdb.Start(ctx, o)
}

// database returns a URI with a new database on a server. The end of the test drops the
// database.
func database(t testing.TB, server string) string {
	t.Helper()
	name := databaseName(t.Name())
	uri, err := withDatabase(server, name)
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	t.Cleanup(func() {
		// On the embedded server, a database is a file with open handles, so a thousand tests
		// would leave a thousand files.
		if err := each(name, func(ctx context.Context, d *mongo.Database) error { return d.Drop(ctx) }); err != nil {
			t.Errorf("mongotest: drop %s: %v", name, err)
		}
	})
	return uri
}

// Reused is like URI, but the database can be that of an earlier test of this process with the same
// schema, without its documents. Reused reports whether it is: then it has the indexes. A new
// database with indexes takes longer than most tests.
func Reused(t testing.TB, schema string) (uri string, prepared bool) {
	t.Helper()
	if os.Getenv("MONGODB_URI") != "" {
		return URI(t), false // no process would drop a database that is kept for the next test
	}
	server, err := shared()
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	name, prepared := free.take(schema)
	uri, err = withDatabase(server, name)
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	t.Cleanup(func() {
		if err := each(name, empty); err != nil {
			t.Errorf("mongotest: empty %s: %v", name, err)
		} else if !t.Failed() {
			free.add(schema, name)
		}
	})
	return uri, prepared
}

// free has the databases that no test uses now, by schema.
var free = databases{names: map[string][]string{}}

type databases struct {
	mu    sync.Mutex
	names map[string][]string
}

func (d *databases) add(schema, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[schema] = append(d.names[schema], name)
}

// take returns the name of a free database, or else a new name.
func (d *databases) take(schema string) (name string, found bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := len(d.names[schema]) - 1
	if last < 0 {
		return databaseName("reused"), false
	}
	name = d.names[schema][last]
	d.names[schema] = d.names[schema][:last]
	return name, true
}

// empty deletes all documents of a database.
func empty(ctx context.Context, d *mongo.Database) error {
	collections, err := d.ListCollectionNames(ctx, bson.D{})
	for _, c := range collections {
		_, failed := d.Collection(c).DeleteMany(ctx, bson.D{})
		err = cmp.Or(err, failed)
	}
	return err
}

// client returns the client that cleans the server of this test process.
var client = sync.OnceValues(func() (*mongo.Client, error) {
	server, err := shared()
	if err != nil {
		return nil, err
	}
	return mongo.Connect(options.Client().ApplyURI(server))
})

// each calls a function for the databases of a test: the one with the name, and those of
// mongodb.Connection.Collection.
func each(name string, do func(context.Context, *mongo.Database) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
	defer cancel()
	client, err := client()
	if err != nil {
		return err
	}
	all, err := client.ListDatabaseNames(ctx, bson.D{})
	if err != nil {
		return err
	}
	for _, other := range all {
		if other == name || strings.HasPrefix(other, name+"_") {
			err = cmp.Or(err, do(ctx, client.Database(other)))
		}
	}
	return err
}

// databaseName returns a database name from the name of the test and a random part. The name
// of the test identifies a database that was not dropped. The random part makes the name unique
// among all test processes on the same server.
//
// The name has lower-case letters, digits and underscores, and fewer than the 63 bytes that
// MongoDB and FerretDB allow. MongoDB requires names to differ by more than case, and FerretDB
// accepts few other characters.
func databaseName(test string) string {
	const longest = 40
	readable := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '_'
		}
	}, strings.TrimPrefix(test, "Test"))
	readable = readable[:min(len(readable), longest)]
	return fmt.Sprintf("t_%s_%s", readable, strings.ToLower(rand.Text()[:16]))
}
