package revocations_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/revocations"
	"ticketing.com/auth/shared/bearer/revocation"
	"ticketing.com/auth/shared/testing/endpointtest"
)

func TestRevocations(t *testing.T) {
	t.Parallel()
	endpointtest.EveryTransport(t, revocations.Function, play)
}

var cached = http.Header{"Cache-Control": {"public, max-age=2"}}

func play(t *testing.T, b *endpointtest.Fixture) {
	start := b.Clock.Now().Add(-16 * time.Minute).UnixMilli()
	answer := func(name, query string, cursor int64, sessions string) endpointtest.Case {
		return endpointtest.Case{Name: name, Call: endpointtest.Call{Path: "/api/users/revocations" + query}, Status: http.StatusOK, Want: cached,
			JSON: fmt.Sprintf(`{"cursor":"%d","window":960,"sessions":[%s],"users":[]}`, cursor, sessions)}
	}
	b.Play(t,
		answer("no session has ended", "", start, ""),
		answer("the cursor of that answer", fmt.Sprint("?since=", start), start, ""),
		answer("an old cursor gets all entries", "?since=0", start, ""),
		endpointtest.Case{Name: "HEAD has the headers and no body", Call: endpointtest.Call{Method: http.MethodHead}, Status: http.StatusOK, Want: cached},
		endpointtest.Case{Name: "a token is ignored", Call: endpointtest.Call{Header: http.Header{"Authorization": {"Bearer x"}}}, Status: http.StatusOK, Want: cached,
			JSON: answer("", "", start, "").JSON},
	)
	g := b.Given(t, "ann@example.com", "a password")
	sid := b.Claims(t, g.Token).Session
	if err := b.Users.End(t.Context(), g.User.ID, sid); err != nil {
		t.Fatal(err)
	}
	next := b.Clock.Now().Add(-40 * time.Second).UnixMilli()
	b.Play(t,
		answer("a session has ended", "", next, strconv.Quote(sid)),
		answer("entries of the last 40 seconds repeat", fmt.Sprint("?since=", next), next, strconv.Quote(sid)),
	)
	for query, message := range map[string]string{
		"?since=x":               "since must be a whole number.",
		"?since=":                "since must be a whole number.",
		"?since=1.5":             "since must be a whole number.",
		"?since=-1":              "since must be from 0 to 253402300799999.",
		"?since=253402300800000": "since must be from 0 to 253402300799999.",
		"?since=1&since=1":       "since must occur once.",
		"?since[$gt]=1&since=x":  "since must be a whole number.",
	} {
		b.Play(t, endpointtest.Case{Name: query + " is rejected", Call: endpointtest.Call{Path: "/api/users/revocations" + query},
			Status: http.StatusBadRequest, JSON: endpointtest.FieldError("since", message)})
	}
	b.Play(t, endpointtest.HostileRoutes(revocations.Function)...)
}

// An entry leaves the answer when no token of its session can be valid, and not before.
func TestRevocations_Window(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, revocations.Function, "ACCESS_TOKEN_TTL=5m")
	g := b.Given(t, "ann@example.com", "a password")
	sid := b.Claims(t, g.Token).Session
	if err := b.Users.End(t.Context(), g.User.ID, sid); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after  time.Duration
		listed bool
	}{{0, true}, {6 * time.Minute, true}, {time.Second, false}} {
		b.Clock.Advance(c.after)
		a := read(t, b, "")
		if listed := len(a.Sessions) == 1; listed != c.listed || a.Window != 360 {
			t.Errorf("%v later: got %+v, want the session listed %t and the window 360", c.after, a, c.listed)
		}
	}
}

func read(t *testing.T, b *endpointtest.Fixture, query string) *revocation.Answer {
	t.Helper()
	response := b.Do(t, endpointtest.Call{Path: "/api/users/revocations" + query})
	a, err := revocation.Parse([]byte(response.Body))
	if response.Status != http.StatusOK || err != nil {
		t.Fatalf("got %d %s (%v), want an answer of the feed", response.Status, response.Body, err)
	}
	return a
}

// A document that cannot be read, such as an imported one, does not stop the feed.
func TestRevocations_UnreadableDocument(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, revocations.Function)
	now := b.Clock.Now()
	for name, document := range map[string]bson.M{
		"ended is true":          {"ended": true},
		"ended has a string":     {"ended": bson.M{"5e": "now"}},
		"endedBefore is no time": {"endedBefore": "now"},
	} {
		document["_id"], document["email"], document["endedAt"] = name, name, now
		if _, err := b.Collection(t).InsertOne(t.Context(), document); err != nil {
			t.Fatal(err)
		}
	}
	g := b.Given(t, "ann@example.com", "a password")
	if err := b.Users.End(t.Context(), g.User.ID, b.Claims(t, g.Token).Session); err != nil {
		t.Fatal(err)
	}
	if a := read(t, b, ""); len(a.Sessions) != 1 {
		t.Errorf("got %+v, want the one ended session", a)
	}
}

// Above a bound the answer is a filter. It contains every ended session.
func TestRevocations_Filter(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, revocations.Function)
	now := b.Clock.Now()
	sid := func(user, n int) string { return fmt.Sprintf("%08x%08x", user, n) }
	var documents []any
	const users, each = 501, 40
	for u := range users {
		ended := bson.M{}
		for n := range each {
			ended[sid(u, n)] = now
		}
		documents = append(documents, bson.M{"_id": fmt.Sprint("u", u), "email": fmt.Sprint(u, "@example.com"), "password": "x", "ended": ended, "endedAt": now})
	}
	documents[7].(bson.M)["endedBefore"] = now
	if _, err := b.Collection(t).InsertMany(t.Context(), documents); err != nil {
		t.Fatal(err)
	}
	a := read(t, b, "")
	if a.Filter == nil || a.Sessions != nil || len(a.Users) != 1 || a.Users[0].ID != "u7" || a.Users[0].Before != now.Unix()+31 {
		t.Fatalf("got filter %v, %d sessions and users %v; want a filter, and u7 before 31 seconds from now", a.Filter != nil, len(a.Sessions), a.Users)
	}
	others := 0
	for u := range users {
		for n := range each {
			if !a.Filter.Contains(sid(u, n)) {
				t.Fatalf("the filter does not contain %s", sid(u, n))
			}
			if a.Filter.Contains(strings.ToUpper(sid(u, n)) + "x") {
				others++
			}
		}
	}
	if others > users*each/200 {
		t.Errorf("the filter contains %d of %d other ids, want about one of 1000", others, users*each)
	}
	if body := b.Do(t, endpointtest.Call{}).Body; len(body) > 60_000 {
		t.Errorf("got %d bytes for %d sessions, want at most 60,000", len(body), users*each)
	}
}

// The function holds no key.
func TestRevocations_NoKeys(t *testing.T) {
	t.Parallel()
	b := endpointtest.New(t, revocations.Function, "SIGNING_KEYS=", "VERIFYING_KEYS=", "INTROSPECTION_CLIENTS=")
	if a := read(t, b, ""); len(a.Sessions) != 0 {
		t.Errorf("got %+v, want no session", a)
	}
}

// The size of an answer at 100 sign-outs a second, for a service that starts and for one that polls
// every 5 seconds. The embedded server is much slower than MongoDB.
func BenchmarkRevocations_100SignoutsPerSecond(b *testing.B) {
	f := endpointtest.New(b, endpointtest.WithBudget(revocations.Function, time.Minute))
	now := f.Clock.Now()
	const perUser = 45
	var documents []any
	for second := range 15 * 60 {
		at := now.Add(-time.Duration(second) * time.Second)
		ended := bson.M{}
		for n := range 100 {
			ended[fmt.Sprintf("%016x%016x", second, n)] = at
			if len(ended) == perUser || n == 99 {
				id := fmt.Sprint(second, "-", n)
				documents = append(documents, bson.M{"_id": id, "email": id + "@example.com", "password": "x", "ended": ended, "endedAt": at})
				ended = bson.M{}
			}
		}
	}
	if _, err := f.Collection(b).InsertMany(b.Context(), documents); err != nil {
		b.Fatal(err)
	}
	for name, query := range map[string]string{
		"full answer": "",
		"next answer": fmt.Sprint("?since=", now.Add(-45*time.Second).UnixMilli()), // the cursor is 40 s behind
	} {
		b.Run(name, func(b *testing.B) {
			size := 0
			for b.Loop() {
				answer := f.Do(b, endpointtest.Call{Path: "/api/users/revocations" + query})
				if size = len(answer.Body); answer.Status != http.StatusOK {
					b.Fatalf("got %d %s, want 200", answer.Status, answer.Body)
				}
			}
			b.ReportMetric(float64(size)/1e3, "kB/answer")
		})
	}
}
