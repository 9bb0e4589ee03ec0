// Package mongotest gives a test a database: a real server that speaks
// MongoDB's wire protocol, and on it a database nobody else uses, so that
// tests run in parallel and against the code that runs in production.
//
// Without any setting the server is the embedded one, started once per test
// process at the first use. With MONGODB_URI in the environment it is the one
// named there, and the same tests run unchanged against a replica set.
//
// It is a test bench and imported by tests alone.
package mongotest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/testing/devdb"
)

const (
	// startup bounds the first start, which may have to compile the server.
	startup = 10 * time.Minute

	// cleanup bounds the dropping of a database.
	cleanup = 30 * time.Second
)

// URI gives a MongoDB URI whose path names a database of this call's own. The
// database is dropped when the test ends. A server that cannot be had fails
// the test.
func URI(t testing.TB) string {
	t.Helper()
	server, err := shared()
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	return database(t, server)
}

// shared is the server of this test process. Nobody stops the embedded one: it
// ends with the process, and deletes its data itself, because a test process
// has no last moment of its own.
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
	ctx, cancel := context.WithTimeout(context.Background(), startup)
	defer cancel()
	o.Progress = func(sentence string) { fmt.Fprintln(os.Stderr, "mongotest:", sentence) }
	return devdb.Start(ctx, o)
}

// database names a fresh database on a server and sees to its end.
func database(t testing.TB, server string) string {
	t.Helper()
	name := databaseName(t.Name())
	uri, err := withDatabase(server, name)
	if err != nil {
		t.Fatalf("mongotest: %v", err)
	}
	t.Cleanup(func() {
		if err := drop(uri, name); err != nil {
			t.Errorf("mongotest: drop %s: %v", name, err)
		}
	})
	return uri
}

// drop removes a database with all it holds. Embedded, that is a file and its
// open handles, so a thousand tests do not end as a thousand files.
func drop(uri, name string) error {
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanup)
	defer cancel()
	defer client.Disconnect(ctx)
	return client.Database(name).Drop(ctx)
}

// databaseName makes a name from that of the test, so that a database which
// was left behind tells whose it is, and a random part, so that no two are
// alike, whoever else runs tests on the same server.
//
// It uses lower-case letters, digits and underscores, as MongoDB's names must
// differ by more than case and FerretDB takes few other characters, and keeps
// below the 63 bytes that both allow.
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
