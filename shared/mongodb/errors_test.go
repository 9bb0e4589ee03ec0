package mongodb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/apierror"
)

func TestTranslate(t *testing.T) {
	type errs = map[string]error
	cases := map[apierror.Kind]errs{
		apierror.Unavailable: {
			"a network error":         mongo.CommandError{Labels: []string{"NetworkError"}, Wrapped: io.EOF},
			"a lost connection":       fmt.Errorf("connection: %w", errLost),
			"no server":               errors.New("server selection error: server selection timeout"),
			"an expired deadline":     fmt.Errorf("find: %w", context.DeadlineExceeded),
			"a refused connection":    &net.OpError{Op: "dial", Err: errors.New("connection refused")},
			"a cleared pool":          mongo.CommandError{Labels: []string{"TransientTransactionError"}, Message: "connection pool was cleared"},
			"a closed client":         mongo.ErrClientDisconnected,
			"a write concern timeout": mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}},
			"two transient errors": mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 112}},
				WriteConcernError: &mongo.WriteConcernError{Code: 91}},
			"a write error with a label":            mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 1}}, Labels: []string{"RetryableWriteError"}},
			"a transient error of a bulk write":     mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{{WriteError: mongo.WriteError{Code: 11601}}}},
			"a write concern error of a bulk write": mongo.BulkWriteException{WriteConcernError: &mongo.WriteConcernError{Code: 189}},
			"a canceled connection":                 fmt.Errorf("connection() error occurred during connection handshake: %w", context.Canceled),
			"a network error and overload":          mongo.CommandError{Labels: []string{"SystemOverloadedError", "RetryableError", "NetworkError"}},
		},
		apierror.Internal: {
			"an internal error":                 mongo.CommandError{Code: 1},
			"a bad value":                       mongo.CommandError{Code: 2},
			"no rights":                         mongo.CommandError{Code: 13},
			"wrong credentials":                 fmt.Errorf("connection() error occurred during connection handshake: %w", mongo.CommandError{Code: 18}),
			"an unknown write concern":          mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 79}},
			"a validation that fails":           mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 121}}},
			"a duplicate key":                   mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 11000}}},
			"a permanent and a transient error": mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 121}}, WriteConcernError: &mongo.WriteConcernError{Code: 64}},
			"an unknown code":                   mongo.CommandError{Code: 987654},
			"a label that is not transient":     mongo.CommandError{Code: 2, Labels: []string{"NoWritesPerformed"}},
			"a permanent error of a bulk write": mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{{WriteError: mongo.WriteError{Code: 2}}}},
			"a nil document":                    mongo.ErrNilDocument,
			"a value that is not a document":    mongo.MarshalError{Value: 1, Err: errors.New("not a document")},
			"an unreadable document":            fmt.Errorf("%w: x", ErrUnreadable),
		},
	}
	for category, codes := range transientCodes {
		for _, code := range codes {
			cases[apierror.Unavailable][fmt.Sprint(category, " ", code)] = mongo.CommandError{Code: int32(code)}
			cases[apierror.Unavailable][fmt.Sprint(category, " ", code, " of a write")] = mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: code}}}
		}
	}
	for _, label := range transientLabels {
		cases[apierror.Unavailable]["the label "+label] = mongo.CommandError{Code: 987654, Labels: []string{label}}
	}
	for want, all := range cases {
		for name, err := range all {
			got := apierror.From(Translate("a step", err))
			if got.Kind() != want || !errors.Is(got, err) && !errors.As(got, new(mongo.ServerError)) {
				t.Errorf("%s: got %v of kind %v, want kind %v with the same cause", name, got, got.Kind(), want)
			}
			after := slices.ContainsFunc(got.Headers(), func(h apierror.Header) bool { return h.Name == "Retry-After" })
			if after != (want == apierror.Unavailable) {
				t.Errorf("%s: got headers %v, want Retry-After only for Unavailable", name, got.Headers())
			}
		}
	}
	if err := Translate("a step", nil); err != nil {
		t.Errorf("Translate of nil: got %v, want nil", err)
	}
}

// Clients wait longer for an overloaded database than for an unreachable one.
func TestTranslate_Overload(t *testing.T) {
	for want, all := range map[string][]error{
		"2": {mongo.CommandError{Code: 433}, mongo.CommandError{Code: 987654, Labels: []string{"SystemOverloadedError", "RetryableError"}}},
		"1": {mongo.CommandError{Code: 91}, mongo.CommandError{Labels: []string{"SystemOverloadedError", "RetryableError", "NetworkError"}}},
	} {
		for _, err := range all {
			if got := apierror.From(Translate("a step", err)).Headers(); !slices.Contains(got, apierror.Header{Name: "Retry-After", Value: want}) {
				t.Errorf("%v: got headers %v, want Retry-After %s", err, got, want)
			}
		}
	}
}
