package database

import (
	"context"
	"io"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/shared/fault"
)

// An error that may not occur again is 503 with Retry-After; any other is 500.
func TestTranslate_TransientErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"network error of the server":         {mongo.CommandError{Code: 6}, fault.Unavailable},
		"lock timeout":                        {mongo.CommandError{Code: 24}, fault.Unavailable},
		"time limit":                          {mongo.CommandError{Code: 50}, fault.Unavailable},
		"write conflict":                      {mongo.CommandError{Code: 112}, fault.Unavailable},
		"no member for the read preference":   {mongo.CommandError{Code: 133}, fault.Unavailable},
		"temporarily unavailable":             {mongo.CommandError{Code: 365}, fault.Unavailable},
		"rate limit of the server":            {mongo.CommandError{Code: 462}, fault.Unavailable},
		"full queue of the server":            {mongo.CommandError{Code: 433}, fault.Unavailable},
		"not primary":                         {mongo.CommandError{Code: 10107}, fault.Unavailable},
		"interrupted":                         {mongo.CommandError{Code: 11601}, fault.Unavailable},
		"disk full":                           {mongo.CommandError{Code: 14031}, fault.Unavailable},
		"write concern timeout":               {mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}}, fault.Unavailable},
		"conflict of a write":                 {mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 112}}}, fault.Unavailable},
		"label of a command":                  {mongo.CommandError{Code: 8, Labels: []string{"RetryableError"}}, fault.Unavailable},
		"label of overload":                   {mongo.CommandError{Code: 8, Labels: []string{"SystemOverloadedError"}}, fault.Unavailable},
		"label of a write":                    {mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 8}}, Labels: []string{"RetryableWriteError"}}, fault.Unavailable},
		"label of a bulk write":               {mongo.BulkWriteException{Labels: []string{"RetryableWriteError"}, WriteErrors: []mongo.BulkWriteError{{WriteError: mongo.WriteError{Code: 8}}}}, fault.Unavailable},
		"error of the driver, with no code":   {mongo.CommandError{Message: "connection pool cleared"}, fault.Unavailable},
		"lost connection":                     {io.ErrUnexpectedEOF, fault.Unavailable},
		"deadline":                            {context.DeadlineExceeded, fault.Unavailable},
		"client that is gone":                 {context.Canceled, fault.Internal},
		"invalid value":                       {mongo.CommandError{Code: 2}, fault.Internal},
		"not authorized":                      {mongo.CommandError{Code: 13}, fault.Internal},
		"authentication":                      {mongo.CommandError{Code: 18}, fault.Internal},
		"path that does not fit the document": {mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 28}}}, fault.Internal},
		"duplicate key":                       {mongo.WriteException{WriteErrors: mongo.WriteErrors{{Code: 11000}}}, fault.Internal},
		"unknown command":                     {mongo.CommandError{Code: 59, Labels: []string{"SomethingElse"}}, fault.Internal},
	} {
		got := fault.From(Translate("do it", c.err))
		if got.Kind() != c.want {
			t.Errorf("%s: got kind %v (%v), want %v", name, got.Kind(), got, c.want)
		}
		if retry := len(got.Headers()) > 0; retry != (c.want == fault.Unavailable) {
			t.Errorf("%s: got headers %v", name, got.Headers())
		}
	}
}
