package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// plan returns the query plan of SQLite for the statement that FerretDB generates from a
// find by _id.
func plan(t *testing.T, c *mongo.Collection) string {
	t.Helper()
	c.FindOne(t.Context(), bson.D{{Key: "_id", Value: "x"}}) // a connection reads new indexes when it executes a statement
	explained, err := c.Database().RunCommand(t.Context(), bson.D{{Key: "explain", Value: bson.D{
		{Key: "find", Value: c.Name()}, {Key: "filter", Value: bson.D{{Key: "_id", Value: "x"}}}}}}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	return explained.Lookup("queryPlanner", "Plan").String()
}

func TestIndex_UsedByFerretDB(t *testing.T) {
	folder := t.TempDir()
	server := start(t, "-data", folder, "-addr", "127.0.0.1:0")
	db := server.connect().Database("test")
	expectIndex := func(when string, c *mongo.Collection) {
		t.Helper()
		if got := plan(t, c); !strings.Contains(got, "USING INDEX "+c.Name()) {
			t.Errorf("%s: got plan %s, want one that uses the index", when, got)
		}
	}
	inserted, updated, created, indexed := db.Collection("inserted"), db.Collection("updated"), db.Collection("created"), db.Collection("indexed")
	seed(t, inserted, bson.M{"_id": "x"})
	expectIndex("after an insert", inserted)
	if _, err := updated.UpdateOne(t.Context(), bson.M{"_id": "x"}, bson.M{"$set": bson.M{"a": 1}}, options.UpdateOne().SetUpsert(true)); err != nil {
		t.Fatal(err)
	}
	expectIndex("after an upsert", updated)
	if err := db.CreateCollection(t.Context(), "created"); err != nil {
		t.Fatal(err)
	}
	expectIndex("after create", created)
	if _, err := indexed.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.M{"a": 1}}); err != nil {
		t.Fatal(err)
	}
	expectIndex("after createIndexes", indexed)
	if err := inserted.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	seed(t, inserted, bson.M{"_id": "x"})
	expectIndex("after drop and insert", inserted)
	if err := db.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(folder, "test.sqlite*")); err != nil || len(left) > 0 {
		t.Errorf("after dropDatabase: got files %v (%v), want none", left, err)
	}
	seed(t, inserted, bson.M{"_id": "x"})
	expectIndex("after dropDatabase and insert", inserted)

	// data of an earlier version without the index, after SIGKILL
	server.Process.Kill()
	server.Wait()
	files := openFiles(t, folder)
	if _, err := files["test"].Exec(`DROP INDEX ` + quote(files["test"].tables["inserted"].name+" by _id")); err != nil {
		t.Fatal(err)
	}
	server = start(t, "-data", folder, "-addr", "127.0.0.1:0")
	expectIndex("after a restart", server.connect().Database("test").Collection("inserted"))
}

// openFiles opens the files of a folder as the server does.
func openFiles(t *testing.T, folder string) map[string]*file {
	t.Helper()
	t.Chdir(folder)
	c, err := openCatalog(pragmas(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for db := range c.files {
			c.close(db)
		}
	})
	return c.files
}

func TestCatalogFind_UsesFerretDBIndex(t *testing.T) {
	folder := t.TempDir()
	server := start(t, "-data", folder, "-addr", "127.0.0.1:0")
	c := server.connect().Database("test").Collection("users")
	if _, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.M{"email": 1}, Options: options.Index().SetUnique(true)}); err != nil {
		t.Fatal(err)
	}
	server.Process.Signal(os.Interrupt)
	server.Wait()
	file := openFiles(t, folder)["test"]
	users := file.tables["users"]
	rows, err := file.Query("EXPLAIN QUERY PLAN "+users.lookups["email"].text, `"x"`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	searches := 0
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(detail, "SEARCH "+users.name+" USING INDEX "+users.name+"_email_1") {
			searches++
		}
		if strings.HasPrefix(detail, "SCAN "+users.name) {
			t.Errorf("got a scan of the whole table: %s, want a search by the index", detail)
		}
	}
	if searches != 2 {
		t.Errorf("got %d searches by the index, want 2", searches)
	}
}

// A pair is two collections with the same content. Commands to one pass the proxy.
// Commands to the other go to FerretDB directly, so no filter is narrowed.
type pair struct {
	t               *testing.T
	proxied, direct *mongo.Collection
}

// newPair starts a server. The name of its folder is short because a socket's path is
// limited.
func newPair(t *testing.T) *pair {
	t.Helper()
	folder, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	server := start(t, "-data", folder, "-addr", "127.0.0.1:0")
	direct, err := mongo.Connect(options.Client().SetDialer(socketDialer(filepath.Join(folder, socket))).SetMaxPoolSize(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { direct.Disconnect(context.Background()) })
	p := &pair{t: t, proxied: server.connect().Database("test").Collection("proxied"), direct: direct.Database("test").Collection("direct")}
	for _, c := range []*mongo.Collection{p.proxied, p.direct} {
		for field, unique := range map[string]bool{"email": true, "name": false} {
			if _, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.M{field: 1}, Options: options.Index().SetUnique(unique)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

type socketDialer string

func (s socketDialer) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", string(s))
}

// run sends a command to both collections and compares the replies and the stored
// documents.
func (p *pair) run(command func(collection string) bson.D) {
	p.t.Helper()
	var replies [2]bson.M
	for i, c := range []*mongo.Collection{p.proxied, p.direct} {
		var reply bson.M
		err := c.Database().RunCommand(p.t.Context(), command(c.Name())).Decode(&reply)
		if err != nil {
			reply = bson.M{"error": strings.ReplaceAll(err.Error(), c.Name(), "c")}
		}
		if cursor, is := reply["cursor"].(bson.D); is {
			reply = bson.M{"batch": cursor[0].Value}
		}
		replies[i] = reply
	}
	if !reflect.DeepEqual(replies[0], replies[1]) {
		p.t.Errorf("%v\nthe proxy replies %v\nFerretDB replies %v", command("c"), replies[0], replies[1])
	}
	p.compare(command("c"))
}

// bulk does the same with the statements of one write.
func (p *pair) bulk(statements ...mongo.WriteModel) {
	p.t.Helper()
	var results [2]string
	for i, c := range []*mongo.Collection{p.proxied, p.direct} {
		result, err := c.BulkWrite(p.t.Context(), statements)
		results[i] = strings.ReplaceAll(fmt.Sprintf("%+v %v", result, err), c.Name(), "c")
	}
	if results[0] != results[1] {
		p.t.Errorf("%+v\nthe proxy replies %s\nFerretDB replies %s", statements, results[0], results[1])
	}
	p.compare(statements)
}

// compare compares the stored documents of both collections.
func (p *pair) compare(after any) {
	p.t.Helper()
	var stored [2][]bson.D
	for i, c := range []*mongo.Collection{p.proxied, p.direct} {
		cursor, err := c.Find(p.t.Context(), bson.D{}, options.Find().SetBatchSize(1000))
		if err != nil {
			p.t.Fatal(err)
		}
		if err := cursor.All(p.t.Context(), &stored[i]); err != nil {
			p.t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(stored[0], stored[1]) {
		p.t.Fatalf("%+v\nstored through the proxy %v\nstored directly          %v", after, stored[0], stored[1])
	}
}

// TestNarrow_SameEffect sends over a thousand commands to the proxy and to FerretDB
// directly.
func TestNarrow_SameEffect(t *testing.T) {
	p := newPair(t)
	random := rand.New(rand.NewPCG(1, 33))
	pick := func(values ...any) any { return values[random.IntN(len(values))] }
	object := bson.NewObjectID()
	ids := []any{"a", "b", "c", "d<&>\u2028\u00fc\"\\", object, object.Hex(), int32(1), "none", nil, bson.D{{Key: "$gt", Value: "a"}}}
	texts := []any{"x", "y<&>", "z\u00e9\"", "[", "", object.Hex()}
	filter := func() bson.D {
		f := bson.D{}
		if random.IntN(3) > 0 {
			f = append(f, bson.E{Key: "_id", Value: pick(ids...)})
		}
		for _, field := range []string{"email", "name", "n", "in.side"} {
			if random.IntN(4) == 0 {
				f = append(f, bson.E{Key: field, Value: pick(append(texts, int32(1), nil, bson.D{{Key: "$exists", Value: true}}, bson.D{{Key: "$gte", Value: int32(1)}},
					bson.D{{Key: "$nonsense", Value: 1}}, object, bson.A{"x"})...)})
			}
		}
		if random.IntN(10) == 0 {
			f = append(f, bson.E{Key: "$or", Value: bson.A{bson.D{{Key: "n", Value: 1}}, bson.D{{Key: "name", Value: "x"}}}})
		}
		random.Shuffle(len(f), func(i, j int) { f[i], f[j] = f[j], f[i] })
		return f
	}
	change := func() bson.D {
		switch random.IntN(4) {
		case 0:
			return bson.D{{Key: "$set", Value: bson.D{{Key: "name", Value: pick(append(texts, bson.A{"x", "q"}, object, int32(2))...)}}}}
		case 1:
			return bson.D{{Key: "$unset", Value: bson.D{{Key: "in", Value: ""}}}}
		case 2:
			return bson.D{{Key: "$set", Value: bson.D{{Key: "in.side", Value: pick(texts...)}}}}
		}
		return bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}}
	}
	inserted := 0
	for range 1500 {
		upsert, limit, fresh := random.IntN(8) == 0, random.IntN(2), random.IntN(2) == 0
		filters := []bson.D{filter(), filter(), filter()}
		changes := []bson.D{change(), change()}
		projection := pick(bson.D{}, bson.D{{Key: "email", Value: 1}}, bson.D{{Key: "in.side", Value: 1}, {Key: "_id", Value: 0}}).(bson.D)
		id, name := pick(ids[:7]...), pick(append(texts, bson.A{"x", "y<&>"}, nil)...)
		email := fmt.Sprint("e", inserted)
		if inserted < len(texts) {
			email = texts[inserted].(string)
		}
		switch random.IntN(6) {
		case 0:
			inserted++
			p.run(func(c string) bson.D {
				return bson.D{{Key: "insert", Value: c}, {Key: "documents", Value: bson.A{bson.D{{Key: "_id", Value: id}, {Key: "email", Value: email}, {Key: "name", Value: name}, {Key: "n", Value: int32(1)}}}}}
			})
		case 1:
			p.run(func(c string) bson.D {
				return bson.D{{Key: "find", Value: c}, {Key: "filter", Value: filters[0]}, {Key: "projection", Value: projection}, {Key: "limit", Value: int32(limit)}}
			})
		case 2:
			p.run(func(c string) bson.D { return bson.D{{Key: "count", Value: c}, {Key: "query", Value: filters[0]}} })
		case 3:
			p.run(func(c string) bson.D {
				return bson.D{{Key: "findAndModify", Value: c}, {Key: "query", Value: filters[0]}, {Key: "update", Value: changes[0]}, {Key: "new", Value: fresh}}
			})
		case 4:
			first := mongo.NewUpdateOneModel().SetFilter(filters[0]).SetUpdate(changes[0]).SetUpsert(upsert && len(filters[0]) > 0 && filters[0][0].Key == "_id")
			p.bulk(first, mongo.NewUpdateOneModel().SetFilter(filters[1]).SetUpdate(changes[1]))
		case 5:
			if fresh {
				p.bulk(mongo.NewUpdateManyModel().SetFilter(filters[0]).SetUpdate(changes[0]))
			} else if limit == 0 {
				p.bulk(mongo.NewDeleteOneModel().SetFilter(filters[0]))
			}
		}
	}
	if inserted < 100 {
		t.Errorf("got only %d inserts, want at least 100", inserted)
	}
}

// TestNarrow_Requests checks the requests that reach FerretDB.
func TestNarrow_Requests(t *testing.T) {
	folder := t.TempDir()
	server := start(t, "-data", folder, "-addr", "127.0.0.1:0")
	users := server.connect().Database("test").Collection("users")
	arrays := server.connect().Database("test").Collection("arrays")
	for _, c := range []*mongo.Collection{users, arrays} {
		if _, err := c.Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.M{"email": 1}}); err != nil {
			t.Fatal(err)
		}
		seed(t, c, bson.D{{Key: "_id", Value: "a"}, {Key: "email", Value: "a&a@example.com"}})
		seed(t, c, bson.D{{Key: "_id", Value: "b"}, {Key: "email", Value: "two"}})
		seed(t, c, bson.D{{Key: "_id", Value: "c"}, {Key: "email", Value: "two"}})
		seed(t, c, bson.D{{Key: "_id", Value: 1}, {Key: "email", Value: "of a number"}})
	}
	seed(t, arrays, bson.D{{Key: "_id", Value: "d"}, {Key: "email", Value: bson.A{"a&a@example.com"}}})
	server.Process.Signal(os.Interrupt)
	server.Wait()

	var received []string
	f := newFixture(t, func(m message) message {
		c, err := m.command()
		if err != nil {
			t.Error(err)
		}
		reply := bson.D{{Key: "ok", Value: 1.0}}
		switch c.name {
		case "aggregate":
			received = append(received, "matches?")
			reply = append(reply, bson.E{Key: "cursor", Value: bson.D{{Key: "firstBatch", Value: bson.A{bson.D{}}}}})
		case "find":
			received = append(received, c.body().Lookup("filter").String())
		case "update":
			received = append(received, c.sections[1].documents[0].Lookup("q").String())
		}
		body, err := bson.Marshal(reply)
		if err != nil {
			t.Error(err)
		}
		return newCommand(body).asReplyTo(m)
	})
	f.catalog = &catalog{files: openFiles(t, folder)}
	conn := f.open().client()
	for name, c := range map[string]struct {
		collection, filter string
		upsert             bool
		want               string
	}{
		"an _id":                                   {"users", `{"_id":"a"}`, false, `{"_id": "a"}`},
		"an _id and another field":                 {"users", `{"_id":"a","n":{"$gte":1}}`, false, `matches? {"_id": "a"}`},
		"an _id that is a number":                  {"users", `{"_id":1,"n":1}`, false, `{"_id": {"$numberInt":"1"},"n": {"$numberInt":"1"}}`},
		"a field with an index":                    {"users", `{"email":"a&a@example.com"}`, false, `{"_id": "a"}`},
		"a field with an index, and another":       {"users", `{"n":1,"email":"a&a@example.com"}`, false, `matches? {"_id": "a"}`},
		"a value that no document has":             {"users", `{"email":"unknown"}`, false, `{"_id": "none"}`},
		"a value of two documents":                 {"users", `{"email":"two"}`, false, `{"email": "two"}`},
		"a value of a document with a numeric _id": {"users", `{"email":"of a number"}`, false, `{"email": "of a number"}`},
		"a field that is an array in one":          {"arrays", `{"email":"a&a@example.com"}`, false, `{"email": "a\u0026a@example.com"}`},
		"a field without an index":                 {"users", `{"name":"x"}`, false, `{"name": "x"}`},
		"a collection that does not exist":         {"others", `{"email":"x"}`, false, `{"email": "x"}`},
		"an operator that FerretDB may reject":     {"users", `{"_id":"a","n":{"$nonsense":1}}`, false, `{"_id": "a","n": {"$nonsense": {"$numberInt":"1"}}}`},
		"an upsert with more than the _id":         {"users", `{"_id":"a","n":1}`, true, `{"_id": "a","n": {"$numberInt":"1"}}`},
	} {
		for _, kind := range []string{"find", "update"} {
			if kind == "find" && c.upsert {
				continue
			}
			t.Run(name+", "+kind, func(t *testing.T) {
				received = nil
				var filter bson.D
				if err := bson.UnmarshalExtJSON([]byte(c.filter), false, &filter); err != nil {
					t.Fatal(err)
				}
				body := bson.D{{Key: kind, Value: c.collection}, {Key: "$db", Value: "test"}}
				statement := bson.D{{Key: "q", Value: filter}, {Key: "u", Value: bson.D{}}, {Key: "upsert", Value: c.upsert}}
				sections := []section{{documents: []bson.Raw{nil}}}
				if kind == "find" {
					body = append(body, bson.E{Key: "filter", Value: filter})
				} else {
					raw, err := bson.Marshal(statement)
					if err != nil {
						t.Fatal(err)
					}
					sections = append(sections, section{"updates", []bson.Raw{raw}})
				}
				raw, err := bson.Marshal(body)
				if err != nil {
					t.Fatal(err)
				}
				sections[0].documents[0] = raw
				roundTrip(t, conn, newCommand(raw).with(sections))
				if got := strings.ReplaceAll(strings.Join(received, " "), noID, "none"); got != c.want {
					t.Errorf("got requests  %s\nwant requests %s", got, c.want)
				}
			})
		}
	}
}
