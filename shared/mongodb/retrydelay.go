package mongodb

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// retryDelay is the mean time before the driver sends a command again after an error that the
// server labels retryable.
const retryDelay = 100 * time.Millisecond

// retryMonitor returns a monitor that waits before each such retry. The driver itself retries
// without a delay until the deadline of the request. Without the monitor, one request would
// send tens of thousands of commands to a failing database.
func retryMonitor() *event.CommandMonitor {
	return &event.CommandMonitor{
		Failed: func(ctx context.Context, e *event.CommandFailedEvent) {
			labeled, is := errors.AsType[mongo.LabeledError](e.Failure)
			if is && labeled.HasErrorLabel("RetryableWriteError") || slices.ContainsFunc(mongo.ErrorCodes(e.Failure), isTransientCode) {
				delay(ctx)
			}
		},
		Succeeded: func(ctx context.Context, e *event.CommandSucceededEvent) { // the reply may still hold a write concern error
			if bytes.Contains(e.Reply.Lookup("errorLabels").Value, []byte("RetryableWriteError")) {
				delay(ctx)
			}
		},
	}
}

func delay(ctx context.Context) {
	select {
	case <-time.After(retryDelay/2 + rand.N(retryDelay)):
	case <-ctx.Done():
	}
}
