package signout_test

import (
	"net/http"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/signout"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestSignout_DatabaseErrors has the database answer the write with each form of error: a
// command error, a write error and a write concern error.
func TestSignout_DatabaseErrors(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for retries")
	}
	tap := mongotest.NewTap(t)
	// The driver retries some errors until the time limit.
	call := func(limit time.Duration) func(testing.TB) endpointtest.Answer {
		b := endpointtest.New(t, endpointtest.WithBudget(signout.Function, limit), "MONGODB_URI="+tap.URI)
		bearer := endpointtest.Bearer(b.Given(t, "ann-"+limit.String()+"@example.com", "a password").Token)
		return func(t testing.TB) endpointtest.Answer { return b.Do(t, endpointtest.Call{Header: bearer}) }
	}
	usual, brief := call(0), call(time.Second)
	failure := func(code int32) bson.D { return bson.D{{Key: "code", Value: code}, {Key: "errmsg", Value: "x"}} }
	command := func(code int32) bson.D { return append(bson.D{{Key: "ok", Value: 0.0}}, failure(code)...) }
	write := func(code int32) bson.D {
		return bson.D{{Key: "ok", Value: 1.0}, {Key: "n", Value: 0}, {Key: "nModified", Value: 0},
			{Key: "writeErrors", Value: bson.A{append(bson.D{{Key: "index", Value: 0}}, failure(code)...)}}}
	}
	concern := func(code int32) bson.D {
		return bson.D{{Key: "ok", Value: 1.0}, {Key: "n", Value: 1}, {Key: "nModified", Value: 1}, {Key: "writeConcernError", Value: failure(code)}}
	}
	labelled := func(reply bson.D, label string) bson.D {
		return append(reply, bson.E{Key: "errorLabels", Value: bson.A{label}})
	}
	for name, c := range map[string]struct {
		reply bson.D
		want  int
		do    func(testing.TB) endpointtest.Answer
	}{
		"an interrupted command":                             {command(11601), http.StatusServiceUnavailable, usual},
		"an unauthorized command":                            {command(13), http.StatusInternalServerError, usual},
		"a write conflict":                                   {write(112), http.StatusServiceUnavailable, usual},
		"a failed validation":                                {write(121), http.StatusInternalServerError, usual},
		"a failed validation on a retry":                     {labelled(write(121), "NoWritesPerformed"), http.StatusInternalServerError, usual},
		"a write concern that times out":                     {concern(64), http.StatusServiceUnavailable, usual},
		"a primary that steps down before the write concern": {labelled(concern(189), "RetryableWriteError"), http.StatusServiceUnavailable, brief},
		"an unknown code with the label RetryableWriteError": {labelled(concern(987654), "RetryableWriteError"), http.StatusServiceUnavailable, brief},
		"an unknown write concern":                           {concern(79), http.StatusInternalServerError, usual},
		"a write concern without enough members":             {concern(100), http.StatusServiceUnavailable, usual},
	} {
		t.Run(name, func(t *testing.T) {
			tap.Reply("update users", c.reply)
			a := c.do(t)
			if after := a.Header.Get("Retry-After") != ""; a.Status != c.want || after != (c.want == http.StatusServiceUnavailable) {
				t.Errorf("got %d %v %s, want %d, and Retry-After for 503 only", a.Status, a.Header, a.Body, c.want)
			}
		})
	}
	tap.Reply("update users", nil)
	if a := usual(t); a.Status != http.StatusOK {
		t.Errorf("after the errors: got status %d, want 200: %s", a.Status, a.Body)
	}
}
