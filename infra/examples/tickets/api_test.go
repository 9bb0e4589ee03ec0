package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ticketing.com/auth/shared/bearer"
	"ticketing.com/auth/shared/bearer/bearertest"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestTickets_CreateShowUpdateTransfer(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	r := a.as("ann", "POST", "/api/tickets", `{"title":" Concert ","price":1500,"owner":"bob","version":7}`)
	path := r.header.Get("Location")
	id, found := strings.CutPrefix(path, "/api/tickets/")
	if !found {
		t.Fatalf("got Location %q, want the path of the ticket", path)
	}
	state := func(title string, price int, owner string, onSale bool, version int) string {
		return fmt.Sprintf(`{"ticket":{"id":%q,"title":%q,"price":%d,"owner":%q,"onSale":%v,"version":%d}}`, id, title, price, owner, onSale, version)
	}
	a.want(r, 201, state("Concert", 1500, "ann", true, 1))
	a.want(a.call("GET", path, ""), 200, state("Concert", 1500, "ann", true, 1))
	a.want(a.as("ann", "PUT", path, `{"title":"Opera","price":2000,"onSale":true,"version":1}`), 200, state("Opera", 2000, "ann", true, 2))
	a.want(a.as("ann", "PUT", path, `{"title":"Ballet","price":1,"onSale":true,"version":1}`), 409, errorBody("", "The ticket has changed. Read it again."))
	a.want(a.as("ann", "POST", path+"/transfer", `{"to":"bob"}`), 200, state("Opera", 2000, "bob", false, 3))
	a.want(a.as("ann", "PUT", path, `{"title":"Ballet","price":1,"onSale":true,"version":3}`), 403, errorBody("", "Only the owner may do this."))
	a.want(a.as("bob", "PUT", path, `{"title":"Opera","price":2500,"onSale":true,"version":3}`), 200, state("Opera", 2500, "bob", true, 4))
	a.want(a.call("GET", path, ""), 200, state("Opera", 2500, "bob", true, 4))
}

func TestTickets_OwnerOnly(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path := a.create("ann")
	before := a.call("GET", path, "").body
	a.want(a.as("bob", "PUT", path, `{"title":"Mine","price":1,"onSale":true,"version":1}`), 403, errorBody("", "Only the owner may do this."))
	a.want(a.as("bob", "POST", path+"/transfer", `{"to":"bobby"}`), 403, errorBody("", "Only the owner may do this."))
	a.want(a.call("GET", path, ""), 200, before)
}

func TestTickets_Unknown(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	for _, id := range []string{"65f000000000000000000000", "1", "x", "A5F000000000000000000000", "%00", "..%2f", "🎫"} {
		path, missing := "/api/tickets/"+id, errorBody("", "There is no such ticket.")
		a.want(a.call("GET", path, ""), 404, missing)
		a.want(a.as("ann", "PUT", path, `{"title":"Opera","price":1,"onSale":true,"version":1}`), 404, missing)
		a.want(a.as("ann", "POST", path+"/transfer", `{"to":"bob"}`), 404, missing)
	}
}

// Package bearer tests the kinds of invalid tokens. Here each route must require a valid one.
func TestRoutes_RequireToken(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path := a.create("ann")
	before := a.call("GET", path, "").body
	const none, invalid = "Bearer", `Bearer error="invalid_token"`
	for name, c := range map[string]struct{ challenge, message, authorization string }{
		"no token":                  {none, "A bearer token is needed.", "X: y"},
		"another scheme":            {none, "A bearer token is needed.", "Authorization: Basic YW5uOnNlY3JldA=="},
		"a token of another system": {invalid, "The token is not valid.", api{t: t, auth: bearertest.New(t)}.bearer("ann")},
		"an expired token": {invalid, "The token is not valid.", "Authorization: Bearer " + a.auth.Token(func(c *bearer.Claims) {
			c.Subject, c.IssuedAt = "ann", a.auth.Now().Add(-15*time.Minute)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []struct{ method, path, body string }{
				{"POST", "/api/tickets", `{"title":"Concert","price":1}`},
				{"PUT", path, `{"title":"Concert","price":1,"onSale":true,"version":1}`},
				{"POST", path + "/transfer", `{"to":"bob"}`},
				{"POST", "/api/tickets", `{`}, // the token is checked first
			} {
				got := a.call(r.method, r.path, r.body, c.authorization)
				a.want(got, 401, errorBody("", c.message))
				if challenge := got.header.Get("WWW-Authenticate"); challenge != c.challenge {
					t.Errorf("got WWW-Authenticate %q, want %q", challenge, c.challenge)
				}
			}
		})
	}
	a.want(a.call("GET", path, ""), 200, before)
}

func TestRoutes_SignOut(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	token := "Authorization: Bearer " + a.auth.Token(func(c *bearer.Claims) { c.Subject, c.Session = "ann", "5e55" })
	const ticket = `{"title":"Concert","price":1}`
	if r := a.call("POST", "/api/tickets", ticket, token); r.status != 201 {
		t.Errorf("before the sign-out: got %d %s, want 201", r.status, r.body)
	}
	a.auth.Revoke("5e55")
	a.want(a.call("POST", "/api/tickets", ticket, token), 401, errorBody("", "The token is not valid."))
	if r := a.as("ann", "POST", "/api/tickets", ticket); r.status != 201 {
		t.Errorf("another session: got %d %s, want 201", r.status, r.body)
	}
}

// race runs n functions at once and counts the statuses of their responses.
func race(n int, send func(i int) response) map[int]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	start, statuses := make(chan struct{}), map[int]int{}
	for i := range n {
		all.Go(func() {
			<-start
			r := send(i)
			mu.Lock()
			defer mu.Unlock()
			statuses[r.status]++
		})
	}
	close(start)
	all.Wait()
	return statuses
}

func TestUpdate_RaceHasOneWinner(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path, ann := a.create("ann"), a.bearer("ann")
	got := race(10, func(i int) response {
		return a.call("PUT", path, fmt.Sprintf(`{"title":"Opera %d","price":1,"onSale":true,"version":1}`, i), ann)
	})
	if got[200] != 1 || got[409] != 9 {
		t.Errorf("got the statuses %v, want 200 once and 409 nine times", got)
	}
	if r := a.call("GET", path, ""); !strings.Contains(r.body, `"version":2}`) {
		t.Errorf("got %s, want version 2", r.body)
	}
}

func TestTransfer_RaceHasOneWinner(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path, ann := a.create("ann"), a.bearer("ann")
	got := race(10, func(i int) response {
		return a.call("POST", path+"/transfer", fmt.Sprintf(`{"to":"user-%d"}`, i), ann)
	})
	if got[200] != 1 || got[403] != 9 {
		t.Errorf("got the statuses %v, want 200 once and 403 nine times", got)
	}
}

func TestList_PagesOfTicketsOnSale(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	a.want(a.call("GET", "/api/tickets", ""), 200, `{"tickets":[]}`)
	var want []string
	for range 5 {
		path := a.create("ann")
		body := a.call("GET", path, "").body
		want = append(want, body[len(`{"ticket":`):len(body)-1])
	}
	sold := a.create("ann")
	a.as("ann", "POST", sold+"/transfer", `{"to":"bob"}`)
	id := func(i int) string { return want[i][len(`{"id":"`):][:24] }
	page := func(from, to int) string { return `{"tickets":[` + strings.Join(want[from:to], ",") + `]` }
	a.want(a.call("GET", "/api/tickets", ""), 200, page(0, 5)+"}")
	a.want(a.call("GET", "/api/tickets?limit=2", ""), 200, page(0, 2)+`,"next":"`+id(1)+`"}`)
	a.want(a.call("GET", "/api/tickets?limit=2&after="+id(1), ""), 200, page(2, 4)+`,"next":"`+id(3)+`"}`)
	a.want(a.call("GET", "/api/tickets?limit=2&after="+id(3), ""), 200, page(4, 5)+"}")
	a.want(a.call("GET", "/api/tickets?after="+id(4)+"&unknown=1", ""), 200, `{"tickets":[]}`)
	if r := a.call("HEAD", "/api/tickets", ""); r.status != 200 || r.body != "" {
		t.Errorf("HEAD: got %d %q, want 200 without a body", r.status, r.body)
	}
}

func TestInput_Invalid(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path := a.create("ann")
	const (
		title   = `{"message":"Title must have 1 to 200 characters, and no control characters.","field":"title"}`
		price   = `{"message":"Price must be a whole number of cents from 1 to 100000000.","field":"price"}`
		onSale  = `{"message":"OnSale must be true or false.","field":"onSale"}`
		version = `{"message":"Version must be the version that you have read.","field":"version"}`
		to      = `{"message":"To must be the id of another user.","field":"to"}`
		object  = `{"message":"The body must be a JSON object."}`
	)
	check := func(method, path, body string, want ...string) {
		t.Helper()
		a.want(a.as("ann", method, path, body), 400, `{"errors":[`+strings.Join(want, ",")+`]}`)
	}
	for _, body := range []string{`{`, `[]`, `"x"`, `1`, `true`, ` `, `{}{}`, `{"title":"a","title":"b","price":1}`, "\ufeff{}",
		"{\"title\":\"\xff\",\"price\":1}", `{"title":"\ud800","price":1}`, `{title:1}`} {
		check("POST", "/api/tickets", body, object)
	}
	check("POST", "/api/tickets", strings.Repeat(`[`, 16_000), object)
	for _, value := range []string{`null`, `""`, `"  "`, `1`, `true`, `[]`, `{}`, `"a\u0000b"`, `"a\nb"`, `"` + strings.Repeat("é", 201) + `"`} {
		check("POST", "/api/tickets", `{"title":`+value+`,"price":1}`, title)
		check("PUT", path, `{"title":`+value+`,"price":1,"onSale":true,"version":1}`, title)
	}
	for _, value := range []string{`null`, `"1"`, `0`, `-1`, `1.5`, `100000001`, `1e400`, `9223372036854775808`, `true`, `[1]`} {
		check("POST", "/api/tickets", `{"title":"a","price":`+value+`}`, price)
	}
	for _, value := range []string{`null`, `"true"`, `0`, `[]`} {
		check("PUT", path, `{"title":"a","price":1,"onSale":`+value+`,"version":1}`, onSale)
	}
	for _, value := range []string{`null`, `"1"`, `0`, `-1`, `1.5`, `{"$gt":0}`} {
		check("PUT", path, `{"title":"a","price":1,"onSale":true,"version":`+value+`}`, version)
	}
	for _, value := range []string{`null`, `""`, `1`, `"ann"`, `"a b"`, `"a/b"`, `"a\u0000"`, `"` + strings.Repeat("a", 129) + `"`, `{"$ne":"x"}`} {
		check("POST", path+"/transfer", `{"to":`+value+`}`, to)
	}
	check("POST", "/api/tickets", `{}`, title, price)
	check("POST", "/api/tickets", `null`, title, price)
	check("POST", "/api/tickets", `{"Title":"a","PRICE":1}`, title, price)
	check("PUT", path, `{}`, title, price, onSale, version)
	check("POST", path+"/transfer", `{}`, to)
	if r := a.as("ann", "POST", "/api/tickets", `{"title":"`+strings.Repeat("é", 200)+`","price":100000000}`); r.status != 201 {
		t.Errorf("the longest title and the highest price: got %d %s, want 201", r.status, r.body)
	}
	if r := a.call("GET", path, ""); !strings.Contains(r.body, `"version":1}`) {
		t.Errorf("got %s, want an unchanged ticket", r.body)
	}
}

func TestInput_MediaTypeAndSize(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	const valid = `{"title":"a","price":1}`
	for _, c := range []struct {
		header, body string
		status       int
	}{
		{"Content-Type: text/plain", valid, 415},
		{"Content-Type: application/x-www-form-urlencoded", valid, 415},
		{"Content-Type: application/jsonp", valid, 415},
		{"Content-Type: ", valid, 415},
		{"Content-Encoding: gzip", valid, 415},
		{"Content-Encoding: identity", valid, 201},
		{"Content-Type: Application/JSON; charset=utf-8", valid, 201},
		{"X: y", `{"title":"a","price":1` + strings.Repeat(" ", maxBody-len(valid)) + `}`, 201},
		{"X: y", `{"title":"a","price":1` + strings.Repeat(" ", maxBody-len(valid)+1) + `}`, 413},
		{"X: y", strings.Repeat("x", 1<<20), 413},
	} {
		if r := a.call("POST", "/api/tickets", c.body, c.header, a.bearer("ann")); r.status != c.status {
			t.Errorf("%s, %d bytes: got %d %s, want %d", c.header, len(c.body), r.status, r.body, c.status)
		}
	}
}

func TestQuery_Invalid(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	limit, after := errorBody("limit", "Limit must be a number from 1 to 100."), errorBody("after", "After must be the member next of a page.")
	for query, want := range map[string]string{
		"limit=0": limit, "limit=101": limit, "limit=-1": limit, "limit=1.0": limit, "limit=x": limit, "limit=%2B1": limit,
		"limit=1&limit=1": limit, "limit=99999999999999999999": limit, "limit=": limit, "limit=&limit=1": limit,
		"after=x": after, "after=1": after, "after=": after, "after=65f000000000000000000000&after=65f000000000000000000000": after, "after[$gt]=x&after=%00": after,
		"limit=0&after=x": strings.TrimSuffix(limit, "]}") + "," + strings.TrimPrefix(after, `{"errors":[`),
		"limit=%zz":       errorBody("", "The query is not valid."),
	} {
		t.Run(query, func(t *testing.T) { a.want(a.call("GET", "/api/tickets?"+query, ""), 400, want) })
	}
}

func TestRoutes_PathsAndMethods(t *testing.T) {
	t.Parallel()
	a := serve(t, "")
	path := a.create("ann")
	for _, p := range []string{"/api", "/api/ticketsX", "/api/tickets/", "/api/tickets/a/b", path + "/", path + "/transfer/", "/api/users", "/health"} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			a.want(a.call(method, p, ""), 404, errorBody("", "There is nothing at this path."))
		}
	}
	for p, c := range map[string]struct{ allow, methods string }{
		"/api/tickets":     {"GET, HEAD, POST", "PUT PATCH DELETE OPTIONS"},
		path:               {"GET, HEAD, PUT", "POST PATCH DELETE OPTIONS"},
		path + "/transfer": {"POST", "GET PUT PATCH DELETE OPTIONS"},
	} {
		for method := range strings.FieldsSeq(c.methods) {
			r := a.call(method, p, "")
			a.want(r, 405, errorBody("", "This method is not allowed here."))
			if r.header.Get("Allow") != c.allow {
				t.Errorf("%s %s: got Allow %q, want %q", method, p, r.header.Get("Allow"), c.allow)
			}
		}
	}
}

func TestDatabase_Unavailable(t *testing.T) {
	t.Parallel()
	database := mongotest.Server(t)
	a := serveStore(t, openStore(t, database.URI()+"?serverSelectionTimeoutMS=200", ""))
	path := a.create("ann")
	database.Stop()
	for _, r := range []response{a.call("GET", path, ""), a.call("GET", "/api/tickets", ""), a.as("ann", "POST", "/api/tickets", `{"title":"a","price":1}`)} {
		a.want(r, http.StatusServiceUnavailable, errorBody("", "The service failed."))
		if r.header.Get("Retry-After") == "" || r.header.Get("Location") != "" {
			t.Errorf("got the headers %v, want Retry-After and no Location", r.header)
		}
	}
	database.Start()
	// The driver checks a lost server at most every 500 ms, so a few answers may still be 503.
	r := a.call("GET", path, "")
	for range 100 {
		if r.status != http.StatusServiceUnavailable {
			break
		}
		r = a.call("GET", path, "")
	}
	if r.status != 200 {
		t.Errorf("after the restart: got %d %s, want 200", r.status, r.body)
	}
}
