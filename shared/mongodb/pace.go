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

// pause is the mean time before the driver sends a command again after an error that the
// server calls retryable.
const pause = 100 * time.Millisecond

// paced returns a monitor that waits before each such retry. The driver itself retries at
// once, and until the deadline of the request where that has one: one request would send
// tens of thousands of commands to a database in trouble.
func paced() *event.CommandMonitor {
	return &event.CommandMonitor{
		Failed: func(ctx context.Context, e *event.CommandFailedEvent) {
			labeled, is := errors.AsType[mongo.LabeledError](e.Failure)
			if is && labeled.HasErrorLabel("RetryableWriteError") || slices.ContainsFunc(mongo.ErrorCodes(e.Failure), isTransient) {
				delay(ctx)
			}
		},
		Succeeded: func(ctx context.Context, e *event.CommandSucceededEvent) { // an error of the write concern
			if bytes.Contains(e.Reply.Lookup("errorLabels").Value, []byte("RetryableWriteError")) {
				delay(ctx)
			}
		},
	}
}

func delay(ctx context.Context) {
	select {
	case <-time.After(pause/2 + rand.N(pause)):
	case <-ctx.Done():
	}
}
