package mongodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"ticketing.com/auth/shared/endpoint"
)

// The error codes of MongoDB for dropping an index that does not exist, and of the embedded
// server for an unsupported kind of index.
const (
	indexNotFound  = 27
	notImplemented = 238
)

// Prepare creates the indexes of collections and drops those of earlier versions. It is
// idempotent, and several processes may run it at the same time. A command runs it once for
// each deployment, so it does not slow down a cold start.
//
// The embedded server has no partial and no TTL indexes. Without a partial index it reads
// every document. In place of a TTL index, Prepare deletes the expired documents itself.
func Prepare(ctx context.Context, c *Connection, now time.Time, log *slog.Logger, collections ...*endpoint.Collection) error {
	for _, declared := range collections {
		collection, err := c.Collection(ctx, declared)
		if err != nil {
			return err
		}
		for _, index := range declared.Indexes {
			if err := createIndex(ctx, collection, index, now); err != nil {
				return err
			}
		}
		for _, name := range declared.Former {
			err := collection.Indexes().DropOne(ctx, name)
			if err != nil && !hasCode(err, indexNotFound) {
				// The database user of an earlier version lacks the right to drop it. No query
				// depends on that.
				log.WarnContext(ctx, "an index of an earlier version was not dropped", "index", name, "error", err)
			}
		}
	}
	return nil
}

func createIndex(ctx context.Context, collection *mongo.Collection, index endpoint.Index, now time.Time) error {
	keys, first := bson.D{}, index.Keys[0]
	for _, key := range index.Keys {
		keys = append(keys, bson.E{Key: key, Value: 1})
	}
	o := options.Index()
	if index.Unique {
		o.SetUnique(true)
	}
	if index.Partial {
		o.SetPartialFilterExpression(bson.D{{Key: first, Value: bson.D{{Key: "$exists", Value: true}}}})
	}
	if index.Expires {
		o.SetExpireAfterSeconds(0)
	}
	_, err := collection.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: keys, Options: o})
	switch {
	case mongo.IsDuplicateKeyError(err): // without the driver's text: it quotes the value
		return fmt.Errorf("create an index: two documents of %s have the same %s", collection.Name(), strings.Join(index.Keys, " and "))
	case hasCode(err, notImplemented) && index.Partial:
		return nil
	case hasCode(err, notImplemented) && index.Expires:
		_, err = collection.DeleteMany(ctx, bson.D{{Key: first, Value: bson.D{{Key: "$lt", Value: now}}}})
	}
	return Translate("create an index", err)
}

func hasCode(err error, code int) bool {
	server, is := errors.AsType[mongo.ServerError](err)
	return is && server.HasErrorCode(code)
}
