package currentuser_test

import (
	"net/http"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestCurrentuser_DatabaseErrors has the database answer the read with errors. An error of
// its state is 503: a later request can succeed. All others are 500.
func TestCurrentuser_DatabaseErrors(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for retries")
	}
	later := endpointtest.Case{Status: http.StatusServiceUnavailable, Want: http.Header{"Retry-After": {"1"}},
		JSON: endpointtest.Errors("The service is unavailable. Try again shortly.")}
	busy := endpointtest.Case{Status: http.StatusServiceUnavailable, Want: http.Header{"Retry-After": {"2"}},
		JSON: endpointtest.Errors("The service is busy. Try again shortly.")}
	never := endpointtest.Case{Status: http.StatusInternalServerError, JSON: endpointtest.Errors("Something went wrong.")}
	tap := mongotest.NewTap(t)
	// The driver retries some errors until the time limit.
	call := func(limit time.Duration) func(testing.TB) endpointtest.Answer {
		b := endpointtest.New(t, endpointtest.WithBudget(currentuser.Function, limit), "MONGODB_URI="+tap.URI)
		bearer := endpointtest.Bearer(b.Given(t, "ann-"+limit.String()+"@example.com", "a password").Token)
		return func(t testing.TB) endpointtest.Answer { return b.Do(t, endpointtest.Call{Header: bearer}) }
	}
	usual, brief := call(0), call(time.Second)
	for name, c := range map[string]struct {
		code   int32
		labels bson.A
		want   endpointtest.Case
		do     func(testing.TB) endpointtest.Answer
	}{
		"LockTimeout":                   {24, nil, later, usual},
		"WriteConflict":                 {112, nil, later, usual},
		"FailedToSatisfyReadPreference": {133, nil, later, usual},
		"TemporarilyUnavailable":        {365, nil, later, usual},
		"Interrupted":                   {11601, nil, later, usual},
		"NotWritablePrimary":            {10107, nil, later, brief},
		"InterruptedAtShutdown":         {11600, nil, later, brief},
		"MaxTimeMSExpired":              {50, nil, later, usual},
		"RateLimitExceeded":             {462, bson.A{"SystemOverloadedError", "RetryableError"}, busy, usual},
		"a label alone":                 {987654, bson.A{"RetryableError"}, later, usual},
		"overload by its label":         {987654, bson.A{"SystemOverloadedError"}, busy, usual},
		"Unauthorized":                  {13, nil, never, usual},
		"AuthenticationFailed":          {18, nil, never, usual},
		"BadValue":                      {2, nil, never, usual},
	} {
		t.Run(name, func(t *testing.T) {
			tap.Reply("find users", bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: c.code}, {Key: "codeName", Value: "X"},
				{Key: "errmsg", Value: "a text with secrets"}, {Key: "errorLabels", Value: c.labels}})
			endpointtest.Check(t, c.want, c.do(t))
		})
	}
	tap.Reply("find users", nil)
	if a := usual(t); a.Status != http.StatusOK {
		t.Errorf("after the errors: got status %d, want 200: %s", a.Status, a.Body)
	}
}
