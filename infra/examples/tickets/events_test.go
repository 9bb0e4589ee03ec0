package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/shared/testing/mongotest"
)

// deleted sends the event that the auth system publishes after the deletion of a user.
func (a api) deleted(user, id string) response {
	return a.call("POST", "/", fmt.Sprintf(`{"userId":%q}`, user),
		"ce-specversion: 1.0", "ce-id: "+id, "ce-source: /api/users", "ce-type: com.ticketing.user.deleted.v1", "ce-subject: "+user)
}

func TestUserDeleted_RemovesOwner(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	first, second, other := a.create("ann"), a.create("ann"), a.create("bob")
	left := func(path string) string {
		return `{"ticket":{"id":"` + path[len("/api/tickets/"):] + `","title":"Concert","price":1500,"onSale":false,"version":2}}`
	}
	unchanged := a.call("GET", other, "").body
	for _, delivery := range []string{"the first", "a repeated", "another"} {
		a.want(a.deleted("ann", delivery), 204, "")
		a.want(a.call("GET", first, ""), 200, left(first))
		a.want(a.call("GET", second, ""), 200, left(second))
		a.want(a.call("GET", other, ""), 200, unchanged)
	}
	// the structured mode, a user without tickets, and a token that outlives its user
	a.want(a.call("POST", "/", `{"specversion":"1.0","id":"4","source":"/api/users","type":"com.ticketing.user.deleted.v1","data":{"userId":"carl"}}`,
		"Content-Type: application/cloudevents+json"), 204, "")
	a.want(a.as("ann", "PUT", first, `{"title":"Opera","price":1,"onSale":true,"version":2}`), 403, errorBody("", "Only the owner may do this."))
}

func TestUserDeleted_RaceWithUpdates(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path, ann := a.create("ann"), a.bearer("ann")
	race(12, func(i int) response {
		if i%4 == 0 {
			return a.deleted("ann", "1")
		}
		return a.call("PUT", path, `{"title":"Opera","price":1,"onSale":true,"version":1}`, ann)
	})
	if r := a.call("GET", path, ""); strings.Contains(r.body, "owner") || !strings.Contains(r.body, `"onSale":false`) {
		t.Errorf("got %s, want a ticket without an owner that is not on sale", r.body)
	}
}

// A ticket that its owner transfers during the deletion belongs to the new owner.
func TestUserDeleted_RaceWithTransfers(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	var paths []string
	for range 20 {
		paths = append(paths, a.create("ann"))
	}
	ann, statuses := a.bearer("ann"), make([]int, len(paths)+1)
	race(len(statuses), func(i int) (r response) {
		if i == len(paths) {
			r = a.deleted("ann", "1")
		} else {
			r = a.call("POST", paths[i]+"/transfer", `{"to":"bob"}`, ann)
		}
		statuses[i] = r.status
		return r
	})
	for i, path := range paths {
		want := map[int]string{200: `"owner":"bob","onSale":false,"version":2}`, 403: `"price":1500,"onSale":false,"version":2}`}[statuses[i]]
		if r := a.call("GET", path, ""); want == "" || !strings.Contains(r.body, want) {
			t.Errorf("after a transfer with %d got %s, want %s", statuses[i], r.body, want)
		}
	}
}

func TestEvents_Invalid(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path := a.create("ann")
	before := a.call("GET", path, "").body
	valid := []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /api/users", "ce-type: com.ticketing.user.deleted.v1"}
	with := func(headers ...string) []string { return append(append([]string{}, valid...), headers...) }
	event, data := errorBody("", "The request is not a valid CloudEvent."), errorBody("", "The event must be com.ticketing.user.deleted.v1 with a userId.")
	for name, c := range map[string]struct {
		body    string
		headers []string
		want    string
	}{
		"no event":             {`{"userId":"ann"}`, nil, event},
		"no id":                {`{"userId":"ann"}`, append(valid[:1:1], valid[2:]...), event},
		"an unknown version":   {`{"userId":"ann"}`, append([]string{"ce-specversion: 9"}, valid[1:]...), event},
		"a broken envelope":    {`{"specversion":`, []string{"Content-Type: application/cloudevents+json"}, event},
		"a batch":              {`[]`, []string{"Content-Type: application/cloudevents-batch+json"}, event},
		"another type":         {`{"userId":"ann"}`, append(valid[:3:3], "ce-type: com.ticketing.user.signedup.v1"), data},
		"no data":              {``, valid, data},
		"no JSON":              {`{`, valid, data},
		"no user":              {`{}`, valid, data},
		"an empty user":        {`{"userId":""}`, valid, data},
		"a number":             {`{"userId":1}`, valid, data},
		"a filter":             {`{"userId":{"$ne":""}}`, valid, data},
		"two users":            {`{"userId":"ann","userId":"bob"}`, valid, data},
		"more than 16 KiB":     {`{"userId":"ann","x":"` + strings.Repeat("x", maxBody) + `"}`, valid, event},
		"a time of no meaning": {`{"userId":"ann"}`, with("ce-time: yesterday"), event},
	} {
		t.Run(name, func(t *testing.T) { a.want(a.call("POST", "/", c.body, c.headers...), 400, c.want) })
	}
	a.want(a.call("GET", path, ""), 200, before)
	a.want(a.call("GET", "/", ""), 404, errorBody("", "There is nothing at this path."))
}

func TestOutbox_DeliversEachChange(t *testing.T) {
	t.Parallel()
	sink := newTestSink(t)
	a := serve(t, sink.URL)
	path := a.create("ann")
	id := path[len("/api/tickets/"):]
	want := func(kind, data string, version int) {
		t.Helper()
		want := event{fmt.Sprintf("%s-%d", id, version), "com.ticketing.ticket." + kind + ".v1", id, `{"id":"` + id + `",` + data + fmt.Sprintf(`,"version":%d}`, version)}
		if got := sink.nextNew(t); got != want {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	want("created", `"title":"Concert","price":1500,"owner":"ann","onSale":true`, 1)
	a.as("ann", "PUT", path, `{"title":"Opera","price":1,"onSale":true,"version":1}`)
	want("updated", `"title":"Opera","price":1,"owner":"ann","onSale":true`, 2)
	a.as("ann", "POST", path+"/transfer", `{"to":"bob"}`)
	want("transferred", `"title":"Opera","price":1,"owner":"bob","onSale":false`, 3)
	a.deleted("bob", "1")
	want("updated", `"title":"Opera","price":1,"onSale":false`, 4)
	a.deleted("bob", "1")
	a.as("ann", "PUT", path, `{}`)
	second := a.create("ann") // a rejected or repeated request has no event before this one
	if got := sink.nextNew(t); got.subject != second[len("/api/tickets/"):] {
		t.Errorf("got %+v, want the event of the second ticket", got)
	}
}

func TestOutbox_RedeliversAfterFailure(t *testing.T) {
	t.Parallel()
	sink := newTestSink(t)
	sink.setDown(true)
	a := serve(t, sink.URL)
	first := a.create("ann")
	refused := sink.next(t)
	sink.setDown(false)
	second := a.create("ann") // the next change of any ticket
	seen := map[string]event{}
	for len(seen) < 2 {
		e := sink.next(t)
		seen[e.subject] = e
	}
	if got := seen[first[len("/api/tickets/"):]]; got != refused {
		t.Errorf("got %+v again, want %+v", got, refused)
	}
	if _, found := seen[second[len("/api/tickets/"):]]; !found {
		t.Errorf("got the events %v, want one of the second ticket", seen)
	}
}

func TestOutbox_DeliversAtStart(t *testing.T) {
	t.Parallel()
	uri, sink := mongotest.URI(t), newTestSink(t)
	earlier := openStore(t, uri, "") // it stores events, and ends before a delivery
	var err error
	if earlier.sink, err = newSink(sink.URL); err != nil {
		t.Fatal(err)
	}
	if err := earlier.create(t.Context(), &ticket{ID: bson.NewObjectID(), Owner: "ann", Version: 1}); err != nil {
		t.Fatal(err)
	}
	later := openStore(t, uri, sink.URL)
	if got := sink.next(t); got.kind != typeCreated {
		t.Errorf("got %+v, want the event of the earlier process", got)
	}
	later.deliver(t.Context()) // returns after the outbox is empty
	n, err := later.tickets.CountDocuments(t.Context(), bson.M{"pending": true})
	if err != nil || n != 0 {
		t.Errorf("got %d pending tickets (%v), want 0", n, err)
	}
}

func TestOutbox_Limit(t *testing.T) {
	t.Parallel()
	store := openStore(t, mongotest.URI(t), "") // it stores events, and delivers none
	var err error
	if store.sink, err = newSink("http://127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	full := ticket{ID: bson.NewObjectID(), Version: 1, Outbox: slices.Repeat([]string{"{}"}, outboxLimit-2)}
	if err := store.create(t.Context(), &full); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{200, 503, 503} {
		got := 200
		_, err := store.change(t.Context(), full.ID.Hex(), typeUpdated, func(*ticket) error { return nil })
		if p, is := errors.AsType[*problem](err); is {
			got = p.status
		}
		if got != want {
			t.Errorf("got %d (%v), want %d", got, err, want)
		}
	}
}

func TestRun_Settings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"none":    {nil, []string{"VERIFYING_KEYS, VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL must be set", "MONGODB_URI is not set to a MongoDB URI"}},
		"invalid": {map[string]string{"VERIFYING_KEYS": "hunter2", "MONGODB_URI": "mysql://ann:hunter2@db"}, []string{"VERIFYING_KEYS", "MONGODB_URI"}},
		"no file": {map[string]string{"VERIFYING_KEYS_FILE": "hunter2", "MONGODB_URI": "mongodb://ann:hunter2@db/?tls=maybe"}, []string{"VERIFYING_KEYS", "MONGODB_URI"}},
		"no sink": {map[string]string{"MONGODB_URI": "mongodb://127.0.0.1", "K_SINK": "://hunter2"}, []string{"K_SINK is not a URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), func(name string) string { return c.env[name] })
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("got the error %v, want one without a value", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got the error %q, want one with %q", err, want)
				}
			}
		})
	}
}
