package mongodb_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/testing/mongotest"
)

// budget is that of a request.
const budget = 4500 * time.Millisecond

// pooled returns a collection, behind a tap, with n connections in its pool.
func pooled(t *testing.T, n int) (*mongotest.Tap, *mongo.Collection) {
	t.Helper()
	tap := mongotest.NewTap(t)
	connection, err := mongodb.New(tap.URI)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close(context.Background()) })
	c, err := connection.Collection(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.InsertOne(t.Context(), bson.D{{Key: "_id", Value: "x"}, {Key: "n", Value: 0}}); err != nil {
		t.Fatal(err)
	}
	fill(t, tap, c, n)
	return tap, c
}

// fill opens connections until the pool has n: each command in flight needs one.
func fill(t *testing.T, tap *mongotest.Tap, c *mongo.Collection, n int) {
	t.Helper()
	tap.RoundTrip(30 * time.Millisecond)
	defer tap.RoundTrip(0)
	for tap.Open() < n+1 { // one is the heartbeat's
		together(n, func(int) {
			if err := c.FindOne(t.Context(), bson.D{{Key: "_id", Value: "x"}}).Err(); err != nil {
				t.Error(err)
			}
		})
	}
	tap.Commands()
	tap.Writes()
}

func together(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// commands are those of the store: all that a request asks of the database.
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

// timed runs a command in the budget of a request.
func timed(t *testing.T, c *mongo.Collection, command func(context.Context, *mongo.Collection) error) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), budget)
	defer cancel()
	began := time.Now()
	if err := command(ctx, c); err != nil {
		t.Error(err)
	}
	return time.Since(began)
}

// slow is above what a command takes on a busy machine, and below what one takes on a
// dropped connection.
const slow = 1200 * time.Millisecond

func TestDroppedConnections_OneSlowCommand(t *testing.T) {
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
				t.Errorf("one command after the other took %v, want the first to be slow at most", took)
			}
			t.Log(took)
		})
	}
}

func TestDroppedConnections_AtOnce(t *testing.T) {
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap, c := pooled(t, 12)
			tap.Drop()
			together(12, func(int) { timed(t, c, command) })
			if took := timed(t, c, command); took > slow {
				t.Errorf("the next took %v", took)
			}
		})
	}
}

// TestDroppedConnections_WriteIsExecutedOnce has the database execute a write and its
// reply get lost. The driver sends the write again, as the same one.
func TestDroppedConnections_WriteIsExecutedOnce(t *testing.T) {
	for _, name := range []string{"update", "findAndModify"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap, c := pooled(t, 2)
			tap.Mute()
			timed(t, c, commands[name])
			if writes := tap.Writes(); len(writes) != 2 || writes[0] != writes[1] {
				t.Errorf("%q, want the same session and number twice", writes)
			}
			var found struct{ N int }
			if err := c.FindOne(t.Context(), bson.D{{Key: "_id", Value: "x"}}).Decode(&found); err != nil || found.N != 1 {
				t.Errorf("executed %d times (%v), want 1", found.N, err)
			}
		})
	}
}

// TestSlowReplies_AreWaitedFor has every reply take a second: that is no dropped
// connection.
func TestSlowReplies_AreWaitedFor(t *testing.T) {
	t.Parallel()
	tap, c := pooled(t, 2)
	before := tap.Accepted()
	tap.RoundTrip(time.Second)
	timed(t, c, commands["update"])
	if n := len(tap.Writes()); n != 1 || tap.Accepted() > before {
		t.Errorf("%d writes, and %d connections more, want 1 and 0", n, tap.Accepted()-before)
	}
}

// TestRetries_ArePaced has the database reply for good with an error that it calls
// retryable. The driver tries again until the deadline.
func TestRetries_ArePaced(t *testing.T) {
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
				t.Error("no error")
			}
			if n := strings.Count(tap.Commands(), name+" c"); n < 2 || n > 20 {
				t.Errorf("sent %d times in a second, want 2 to 20", n)
			}
		})
	}
}

// TestClose_IsBounded closes a connection to a database that does not reply.
func TestClose_IsBounded(t *testing.T) {
	for name, limit := range map[string]time.Duration{"by its context": 300 * time.Millisecond, "by itself": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tap := mongotest.NewTap(t)
			connection, err := mongodb.New(tap.URI)
			if err != nil {
				t.Fatal(err)
			}
			c, err := connection.Collection(t.Context(), "c")
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
			began := time.Now()
			connection.Close(ctx)
			if took := time.Since(began); took > min(limit, 3*time.Second)+time.Second {
				t.Errorf("it took %v", took)
			}
			if err := <-pending; err == nil {
				t.Error("a command that was in flight has a reply")
			}
		})
	}
}
