package main

import (
	"errors"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// The expected results are those of MongoDB.
func TestUpdate_SeveralStatements(t *testing.T) {
	c := start(t, "-data", t.TempDir(), "-addr", "127.0.0.1:0").connect().Database("test").Collection("counters")
	add := func(id string, most int) mongo.WriteModel {
		return mongo.NewUpdateOneModel().SetUpsert(true).
			SetFilter(bson.D{{Key: "_id", Value: id}, {Key: "n", Value: bson.D{{Key: "$lt", Value: most}}}}).
			SetUpdate(bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}})
	}
	for i, s := range []struct {
		ordered bool
		models  []mongo.WriteModel
		want    string // matched, upserted ids, indexes of errors
		stored  string
	}{
		{true, []mongo.WriteModel{add("a", 9)}, "0 map[0:a] []", "map[a:1]"},
		{true, []mongo.WriteModel{add("a", 9), add("b", 1)}, "1 map[1:b] []", "map[a:2 b:1]"},
		{true, []mongo.WriteModel{add("a", 9), add("b", 1), add("c", 9)}, "1 map[] [1]", "map[a:3 b:1]"},
		{false, []mongo.WriteModel{add("a", 1), add("a", 9), add("b", 1), add("c", 9)}, "1 map[3:c] [0 2]", "map[a:4 b:1 c:1]"},
		{true, []mongo.WriteModel{add("a", 9), add("a", 6), add("a", 7), add("a", 7)}, "3 map[] [3]", "map[a:7 b:1 c:1]"},
		{true, []mongo.WriteModel{add("a", 9), add("a", 9)}, "2 map[] []", "map[a:9 b:1 c:1]"},
	} {
		result, err := c.BulkWrite(t.Context(), s.models, options.BulkWrite().SetOrdered(s.ordered))
		indexes := []int{}
		if failed, is := errors.AsType[mongo.BulkWriteException](err); is {
			for _, e := range failed.WriteErrors {
				if indexes = append(indexes, e.Index); e.Code != 11000 {
					t.Errorf("statements %d: got error %v, want code 11000", i, e)
				}
			}
		} else if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(result.MatchedCount, result.UpsertedIDs, indexes); got != s.want {
			t.Errorf("statements %d: got %s, want %s", i, got, s.want)
		}
		cursor, err := c.Find(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		stored := map[string]int{}
		for cursor.Next(t.Context()) {
			stored[cursor.Current.Lookup("_id").StringValue()] = int(cursor.Current.Lookup("n").AsInt64())
		}
		if fmt.Sprint(stored) != s.stored {
			t.Errorf("statements %d: stored %v, want %s", i, stored, s.stored)
		}
	}
}
