package currentuser_test

import (
	"net/http"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/currentuser"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestCurrentuser_DatabaseErrors has the database answer the read with errors. An error of
// its state is 503: a later request can succeed. All others are 500.
func TestCurrentuser_DatabaseErrors(t *testing.T) {
	later := endpointtest.Case{Status: http.StatusServiceUnavailable, Want: http.Header{"Retry-After": {"1"}},
		JSON: endpointtest.Errors("The service is unavailable. Try again shortly.")}
	busy := endpointtest.Case{Status: http.StatusServiceUnavailable, Want: http.Header{"Retry-After": {"2"}},
		JSON: endpointtest.Errors("The service is busy. Try again shortly.")}
	never := endpointtest.Case{Status: http.StatusInternalServerError, JSON: endpointtest.Errors("Something went wrong.")}
	tap := mongotest.NewTap(t)
	b := endpointtest.New(t, currentuser.Function, "MONGODB_URI="+tap.URI)
	bearer := endpointtest.Bearer(b.Given(t, "ann@example.com", "a password").Token)
	for name, c := range map[string]struct {
		code   int32
		labels bson.A
		want   endpointtest.Case
	}{
		"LockTimeout":                   {24, nil, later},
		"WriteConflict":                 {112, nil, later},
		"FailedToSatisfyReadPreference": {133, nil, later},
		"TemporarilyUnavailable":        {365, nil, later},
		"Interrupted":                   {11601, nil, later},
		"NotWritablePrimary":            {10107, nil, later},
		"InterruptedAtShutdown":         {11600, nil, later},
		"MaxTimeMSExpired":              {50, nil, later},
		"RateLimitExceeded":             {462, bson.A{"SystemOverloadedError", "RetryableError"}, busy},
		"a label alone":                 {987654, bson.A{"RetryableError"}, later},
		"overload by its label":         {987654, bson.A{"SystemOverloadedError"}, busy},
		"Unauthorized":                  {13, nil, never},
		"AuthenticationFailed":          {18, nil, never},
		"BadValue":                      {2, nil, never},
	} {
		t.Run(name, func(t *testing.T) {
			tap.Reply("find users", bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: c.code}, {Key: "codeName", Value: "X"},
				{Key: "errmsg", Value: "a text with secrets"}, {Key: "errorLabels", Value: c.labels}})
			endpointtest.Check(t, c.want, b.Do(t, endpointtest.Call{Header: bearer}))
		})
	}
	tap.Reply("find users", nil)
	if a := b.Do(t, endpointtest.Call{Header: bearer}); a.Status != http.StatusOK {
		t.Errorf("after the errors: got status %d, want 200: %s", a.Status, a.Body)
	}
}
