package mongodb

import (
	"context"
	"strconv"
	"sync"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"ticketing.com/auth/shared/telemetry"
)

// A commandID identifies a command in flight.
type commandID struct {
	connection string
	request    int64
}

// traceCommands returns a monitor that records a span for each command in a trace, and then calls
// Succeeded or Failed of next. It does not call Started of next.
// The span has the names of the operation, the database and the collection, and no value. The commands
// of the driver itself, such as its heartbeat, are in no trace.
func traceCommands(t *telemetry.Telemetry, next *event.CommandMonitor) *event.CommandMonitor {
	var spans sync.Map // commandID → trace.Span
	end := func(e event.CommandFinishedEvent, failure error) {
		found, traced := spans.LoadAndDelete(commandID{e.ConnectionID, e.RequestID})
		if !traced {
			return
		}
		span := found.(trace.Span)
		if codes := mongo.ErrorCodes(failure); len(codes) > 0 {
			span.SetAttributes(semconv.DBResponseStatusCode(strconv.Itoa(codes[0])))
		}
		telemetry.End(span, failure != nil)
	}
	return &event.CommandMonitor{
		Started: func(ctx context.Context, e *event.CommandStartedEvent) {
			collection, _ := e.Command.Lookup(e.CommandName).StringValueOK()
			if e.CommandName == "getMore" {
				collection, _ = e.Command.Lookup("collection").StringValueOK()
			}
			name := e.CommandName
			attributes := []attribute.KeyValue{semconv.DBSystemNameMongoDB, semconv.DBNamespace(e.DatabaseName), semconv.DBOperationName(e.CommandName)}
			if collection != "" {
				name += " " + collection
				attributes = append(attributes, semconv.DBCollectionName(collection))
			}
			_, span := t.Start(ctx, name, trace.SpanKindClient, attributes...)
			if span.IsRecording() {
				spans.Store(commandID{e.ConnectionID, e.RequestID}, span)
			}
		},
		Succeeded: func(ctx context.Context, e *event.CommandSucceededEvent) {
			end(e.CommandFinishedEvent, nil)
			next.Succeeded(ctx, e)
		},
		Failed: func(ctx context.Context, e *event.CommandFailedEvent) {
			end(e.CommandFinishedEvent, e.Failure)
			next.Failed(ctx, e)
		},
	}
}
