package mongodb_test

import (
	"context"
	"flag"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestMain runs more tests at the same time than there are cores, because they wait for replies.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "16")
	os.Exit(m.Run())
}

// budget is the time limit of a request.
const budget = 4500 * time.Millisecond

// pooled returns a collection behind a tap, with n connections in its pool.
func pooled(t *testing.T, n int) (*mongotest.Tap, *mongo.Collection) {
	t.Helper()
	tap := mongotest.NewTap(t)
	connection, err := mongodb.New(tap.URI)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close(context.Background()) })
	c, err := connection.Collection(t.Context(), &endpoint.Collection{Database: "users", Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "x"}, {Key: "n", Value: 0}}); err != nil {
		t.Fatal(err)
	}
	fill(t, tap, c, n)
	return tap, c
}

// fill opens connections until the pool has n. Each command in flight needs one.
func fill(t *testing.T, tap *mongotest.Tap, c *mongo.Collection, n int) {
	t.Helper()
	tap.RoundTrip(30 * time.Millisecond)
	defer tap.RoundTrip(0)
	for tap.Open() < n+1 { // the heartbeat has one more
		inParallel(n, func(int) {
			if err := c.FindOne(t.Context(), bson.D{{Key: "_id", Value: "x"}}).Err(); err != nil {
				t.Error(err)
			}
		})
	}
	tap.Commands()
	tap.Writes()
}

func inParallel(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// commands are all commands that the store sends to the database.
var commands = map[string]func(context.Context, *mongo.Collection) error{
	"find": func(ctx context.Context, c *mongo.Collection) error {
		return c.FindOne(ctx, bson.D{{Key: "_id", Value: "x"}}).Err()
	},
	"update": func(ctx context.Context, c *mongo.Collection) error {
		_, err := c.UpdateOne(ctx, bson.D{{Key: "_id", Value: "x"}}, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}})
		return err
	},
	"findAndModify": func(ctx context.Context, c *mongo.Collection) error {
		return c.FindOneAndUpdate(ctx, bson.D{{Key: "_id", Value: "x"}}, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}}).Err()
	},
	"insert": func(ctx context.Context, c *mongo.Collection) error {
		_, err := c.InsertOne(ctx, bson.D{{Key: "of", Value: "x"}})
		return err
	},
}

// timed runs a command within the budget of a request and returns its duration.
func timed(t *testing.T, c *mongo.Collection, command func(context.Context, *mongo.Collection) error) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), budget)
	defer cancel()
	start := time.Now()
	if err := command(ctx, c); err != nil {
		t.Errorf("a command within the budget: got error %v, want none", err)
	}
	return time.Since(start)
}

// slow is longer than a command takes on a busy machine, and shorter than on a dropped
// connection.
const slow = 1200 * time.Millisecond

func TestDroppedConnections_OneSlowCommand(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for lost replies")
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap, c := pooled(t, 12)
			tap.Drop()
			var took []time.Duration
			for range 12 {
				took = append(took, timed(t, c, command))
			}
			if slices.ContainsFunc(took[1:], func(d time.Duration) bool { return d > slow }) {
				t.Errorf("sequential commands took %v, want at most the first above %v", took, slow)
			}
			t.Log(took)
		})
	}
}

func TestDroppedConnections_ConcurrentCommands(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for lost replies")
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap, c := pooled(t, 12)
			tap.Drop()
			inParallel(12, func(int) { timed(t, c, command) })
			if took := timed(t, c, command); took > slow {
				t.Errorf("the next command took %v, want at most %v", took, slow)
			}
		})
	}
}

// The database executes a write, but its reply is lost. The driver sends the same write again,
// and the database must not execute it twice.
func TestDroppedConnections_WriteIsExecutedOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for lost replies")
	}
	for _, name := range []string{"update", "findAndModify"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap, c := pooled(t, 2)
			tap.Mute()
			timed(t, c, commands[name])
			if writes := tap.Writes(); len(writes) != 2 || writes[0] != writes[1] {
				t.Errorf("got writes %q, want the same session and number twice", writes)
			}
			var found struct{ N int }
			if err := c.FindOne(t.Context(), bson.D{{Key: "_id", Value: "x"}}).Decode(&found); err != nil || found.N != 1 {
				t.Errorf("the write was executed %d times (error %v), want 1", found.N, err)
			}
		})
	}
}

// A reply that takes a second is not a dropped connection.
func TestSlowReplies_NoReconnect(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for lost replies")
	}
	t.Parallel()
	tap, c := pooled(t, 2)
	before := tap.Accepted()
	tap.RoundTrip(time.Second)
	timed(t, c, commands["update"])
	if n := len(tap.Writes()); n != 1 || tap.Accepted() > before {
		t.Errorf("got %d writes and %d new connections, want 1 and 0", n, tap.Accepted()-before)
	}
}

// The database always replies with a retryable error. The driver retries until the deadline.
func TestRetries_AreDelayed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for retries")
	}
	failed := bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: 262}, {Key: "errmsg", Value: "x"}}
	label := bson.E{Key: "errorLabels", Value: bson.A{"RetryableWriteError"}}
	for name, reply := range map[string]bson.D{
		"find":   failed,
		"insert": append(slices.Clip(failed), label),
		"update": {{Key: "ok", Value: 1.0}, {Key: "n", Value: 1}, {Key: "nModified", Value: 1},
			{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 262}, {Key: "errmsg", Value: "x"}}}, label},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap, c := pooled(t, 1)
			tap.Reply(name+" c", reply)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := commands[name](ctx, c); err == nil {
				t.Error("got no error, want that of the reply")
			}
			if n := strings.Count(tap.Commands(), name+" c"); n < 2 || n > 20 {
				t.Errorf("the command was sent %d times in a second, want 2 to 20", n)
			}
		})
	}
}

// The database does not reply, and a command is in flight.
func TestClose_EndsWithoutReply(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for lost replies")
	}
	for name, limit := range map[string]time.Duration{"by the context": 300 * time.Millisecond, "by connectTimeout": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap := mongotest.NewTap(t)
			connection, err := mongodb.New(tap.URI)
			if err != nil {
				t.Fatal(err)
			}
			c, err := connection.Collection(t.Context(), &endpoint.Collection{Database: "users", Name: "c"})
			if err != nil {
				t.Fatal(err)
			}
			if err := commands["insert"](t.Context(), c); err != nil {
				t.Fatal(err)
			}
			tap.Commands()
			tap.Drop()
			pending := make(chan error, 1)
			go func() { pending <- commands["find"](context.Background(), c) }()
			for tap.Commands() != "find c" {
				time.Sleep(time.Millisecond)
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			connection.Close(ctx)
			if took := time.Since(start); took > min(limit, 3*time.Second)+time.Second {
				t.Errorf("Close took %v, want at most %v", took, min(limit, 3*time.Second)+time.Second)
			}
			if err := <-pending; err == nil {
				t.Error("the command in flight: got no error, want one")
			}
		})
	}
}
