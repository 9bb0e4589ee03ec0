package bearer_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/bearer"
	"ticketing.com/auth/shared/bearer/revocation"
)

const (
	feedURL = "http://auth/revocations"
	unasked = `{"cursor":"c1","window":960,"sessions":[],"users":[]}`
)

// entries returns an answer of the feed.
func entries(cursor string, sessions ...string) string {
	text, err := json.Marshal(revocation.Answer{Cursor: cursor, Window: 960, Sessions: append([]string{}, sessions...), Users: []revocation.User{}})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func withFeed(t testing.TB, change func(*bearer.Config)) fixture {
	c := bearer.Config{Keys: jwks(t, 1), RevocationsURL: feedURL}
	if change != nil {
		change(&c)
	}
	return newFixture(t, c)
}

func TestFeed_SignOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		f.set(answer(entries("c 1&", "0e55")))
		ann, bob, carl := issue(t, 1), issue(t, 1, session("b0b")), issue(t, 1, session("0e55"))
		f.wantRequests(t, "") // New sends none
		f.want(t, "x", 401)
		f.wantRequests(t, "") // an invalid token causes none
		f.want(t, ann, 200)
		f.want(t, carl, 401)
		f.wantRequests(t, "/revocations")

		f.set(answer(entries("c2", "5e55")))
		time.Sleep(5*time.Second - time.Millisecond)
		f.want(t, ann, 200)
		f.wantRequests(t, "")
		time.Sleep(time.Millisecond)
		f.want(t, ann, 401) // the first request after 5 s waits
		f.want(t, bob, 200)
		f.want(t, carl, 401) // the answer adds to the copy
		f.wantRequests(t, "/revocations?since=c+1%26")

		// every token of a user that was issued before a time
		before := time.Now().Unix()
		f.set(answer(fmt.Sprintf(`{"cursor":"c3","window":960,"sessions":[],"users":[{"id":"ann","before":%d}]}`, before)))
		time.Sleep(5 * time.Second)
		f.want(t, bob, 401)
		f.want(t, issue(t, 1, session("b0b"), func(c *bearer.Claims) { c.IssuedAt = time.Unix(before, 0) }), 200)
		f.want(t, issue(t, 1, session("b0b"), func(c *bearer.Claims) { c.Subject = "bob"; c.IssuedAt = time.Unix(before-60, 0) }), 200)
		f.wantLog(t, "")
	})
}

// A copy is used until it is 7 s old. One request refreshes it after 5 s and waits.
func TestFeed_OneRequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		f.set(answer(unasked))
		raw := issue(t, 1)
		f.want(t, raw, 200)
		release := make(chan bool)
		f.set(held(release, answer(entries("c2", "5e55"))))
		verdict := func() chan int {
			status := make(chan int, 1)
			go func() { status <- f.verdict(t, raw) }()
			synctest.Wait()
			return status
		}
		time.Sleep(5 * time.Second)
		first := verdict()
		if len(first) > 0 {
			t.Errorf("after 5 s: got %d, want a request that waits", <-first)
		}
		if got := f.count(t, 100, raw); got[200] != 100 {
			t.Errorf("the requests beside it: got the statuses %v, want 200 a hundred times", got)
		}
		time.Sleep(2 * time.Second)
		second := verdict()
		if len(second) > 0 {
			t.Errorf("after 7 s: got %d, want a request that waits", <-second)
		}
		close(release)
		if got := []int{<-first, <-second, f.verdict(t, raw)}; fmt.Sprint(got) != "[401 401 401]" {
			t.Errorf("after the answer: got %v, want 401", got)
		}
		f.wantRequests(t, "/revocations /revocations?since=c1")
	})
}

// A service that is scaled from zero has no copy. All its first requests wait for one request.
func TestFeed_ColdStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		release := make(chan bool)
		f.set(held(release, answer(entries("c1", "5e55"))))
		raw := issue(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan int)
		go func() {
			_, err := f.Verify(ctx, []string{"Bearer " + raw})
			left <- statusOf(t, err)
		}()
		synctest.Wait()
		statuses := make(chan map[int]int)
		go func() { statuses <- f.count(t, 100, raw) }()
		synctest.Wait()
		cancel()
		if got := <-left; got != 503 {
			t.Errorf("the client that disconnects: got %d, want 503", got)
		}
		close(release)
		if got := <-statuses; got[401] != 100 {
			t.Errorf("got the statuses %v, want 401 a hundred times", got)
		}
		f.wantRequests(t, "/revocations")
	})
}

// The header Age of a cache makes the copy older. So the 7 s hold behind a cache too.
func TestFeed_AgeOfCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		f.set(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Age", "2")
			io.WriteString(w, unasked)
		})
		raw := issue(t, 1)
		f.want(t, raw, 200)
		f.set(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
			}
			io.WriteString(w, entries("c2", "5e55"))
		})
		time.Sleep(5 * time.Second)
		if got := f.count(t, 10, raw); got[401] != 10 {
			t.Errorf("got the statuses %v, want 401 ten times: the copy is 7 s old", got)
		}
	})
}

var nonsense = map[string]http.HandlerFunc{
	"a refused connection": status(refused),
	"no response":          status(hung),
	"404":                  status(404),
	"503":                  status(503),
	"a redirect": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://auth/other", http.StatusFound)
	},
	"HTML":             answer("<html>secret</html>"),
	"no entries":       answer(`{}`),
	"a window of 0":    answer(`{"cursor":"c1","window":0,"sessions":[],"users":[]}`),
	"more than 16 MiB": answer(unasked + strings.Repeat(" ", 16<<20)),
}

// Without an answer, tokens are accepted until they expire. One request in 5 s tries the feed.
func TestFeed_Lenient(t *testing.T) {
	for name, down := range nonsense {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := withFeed(t, nil)
				f.set(answer(entries("c1", "0e55")))
				ann, carl := issue(t, 1), issue(t, 1, session("0e55"))
				f.want(t, ann, 200)
				f.set(down)
				f.taken()
				time.Sleep(10 * time.Second)
				f.want(t, ann, 200)
				f.wantRequests(t, "/revocations?since=c1")
				start := time.Now()
				if got := f.count(t, 100, ann); got[200] != 100 {
					t.Errorf("got the statuses %v, want 200 a hundred times", got)
				}
				f.want(t, carl, 401) // the copy still counts
				if waited := time.Since(start); waited != 0 {
					t.Errorf("the requests after the failure waited %v", waited)
				}
				time.Sleep(5*time.Second - time.Millisecond)
				f.want(t, ann, 200)
				f.wantRequests(t, "")
				time.Sleep(time.Millisecond)
				f.want(t, ann, 200)
				f.wantRequests(t, "/revocations?since=c1")
				f.wantLog(t, "the revocation feed is not available: tokens are accepted until they expire")

				f.set(answer(entries("c2", "5e55")))
				time.Sleep(5 * time.Second)
				f.want(t, ann, 401)
				f.wantLog(t, "the revocation feed is available again")
			})
		})
	}
}

// While the feed hangs, the requests beside the one that tries it do not wait.
func TestFeed_HangsForOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		f.set(status(hung))
		raw := issue(t, 1)
		f.want(t, raw, 200) // waits for the timeout
		time.Sleep(10 * time.Second)
		tries := make(chan time.Duration, 1)
		go func() {
			start := time.Now()
			f.want(t, raw, 200)
			tries <- time.Since(start)
		}()
		synctest.Wait()
		start := time.Now()
		f.want(t, raw, 200)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the request beside it waited %v", waited)
		}
		if waited := <-tries; waited != 3*time.Second {
			t.Errorf("the request that tries the feed waited %v, want 3 s", waited)
		}
	})
}

// After a failure and a time without requests, each request waits for the feed: it may answer again.
func TestFeed_IdleAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		raw := issue(t, 1)
		f.want(t, raw, 200)
		f.set(status(refused))
		time.Sleep(5 * time.Second)
		f.want(t, raw, 200)
		f.set(answer(entries("c2", "5e55")))
		time.Sleep(time.Hour)
		if got := f.count(t, 10, raw); got[401] != 10 {
			t.Errorf("ten concurrent requests: got %v, want ten times 401", got)
		}
	})
}

func TestFeed_Strict(t *testing.T) {
	for name, down := range nonsense {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := withFeed(t, func(c *bearer.Config) { c.Strict = true })
				raw := issue(t, 1)
				f.set(down)
				f.want(t, raw, 503) // no copy
				f.set(answer(unasked))
				time.Sleep(5 * time.Second)
				f.want(t, raw, 200)
				copied := time.Now()
				f.set(down)
				time.Sleep(26 * time.Second)
				f.want(t, raw, 200) // tries the feed
				f.want(t, raw, 200)
				time.Sleep(time.Until(copied.Add(31 * time.Second)))
				f.want(t, raw, 503)
				f.want(t, "x", 401)
				f.set(answer(unasked))
				time.Sleep(5 * time.Second)
				f.want(t, raw, 200)
				const outage = "the revocation feed is not available: requests are refused after 30 s; the revocation feed is available again"
				f.wantLog(t, outage+"; "+outage)
			})
		})
	}
}

// The feed answers 400 or 410 to a cursor that it does not know.
func TestFeed_ForgottenCursor(t *testing.T) {
	for _, code := range []int{400, 410} {
		synctest.Test(t, func(t *testing.T) {
			f := withFeed(t, nil)
			f.set(answer(unasked))
			raw := issue(t, 1)
			f.want(t, raw, 200)
			f.set(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RawQuery != "" {
					w.WriteHeader(code)
				} else {
					io.WriteString(w, entries("c9", "5e55"))
				}
			})
			time.Sleep(5 * time.Second)
			f.want(t, raw, 401)
			f.wantRequests(t, "/revocations /revocations?since=c1 /revocations")
		})
	}
}

// After the window, every token of a session has expired, and the copy forgets the session.
func TestFeed_Window(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		f.set(answer(entries("c1", "5e55")))
		ann, bob := issue(t, 1), issue(t, 1, session("b0b"))
		f.want(t, ann, 401)
		for range 100 { // the service serves, so the copy stays up to date
			time.Sleep(9 * time.Second)
			f.set(answer(entries("c2")))
			f.want(t, bob, 200)
			f.want(t, ann, 401)
		}
		f.set(answer(entries("c3", "b0b")))
		time.Sleep(61 * time.Second)
		f.want(t, ann, 200)
		f.want(t, bob, 401)
		f.taken()

		// a copy that is older than the window starts again
		time.Sleep(961 * time.Second)
		f.set(answer(unasked))
		f.want(t, bob, 200)
		f.wantRequests(t, "/revocations")
	})
}

func TestFeed_AnswerTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := withFeed(t, nil)
		body := entries("c1", "5e55")
		f.set(answer(body + strings.Repeat(" ", 16<<20-len(body)+1)))
		f.want(t, issue(t, 1), 200)
		f.wantLog(t, "the revocation feed is not available: tokens are accepted until they expire")
		f.set(answer(body + strings.Repeat(" ", 16<<20-len(body))))
		time.Sleep(5 * time.Second)
		f.want(t, issue(t, 1), 401)
	})
}

const introspectionURL = "http://auth/introspect"

// withFilter returns a fixture whose feed answers with a filter that contains the session 5e55.
// Its introspection answers with the handler.
func withFilter(t *testing.T, change func(*bearer.Config), introspect http.HandlerFunc) fixture {
	f := withFeed(t, func(c *bearer.Config) {
		c.IntrospectionURL, c.IntrospectionSecret = introspectionURL, "tick&ts:s:cret/"
		if change != nil {
			change(c)
		}
	})
	f.introspect(t, introspect)
	return f
}

func (f fixture) introspect(t *testing.T, h http.HandlerFunc) {
	filter := revocation.NewFilter(100, 0.001)
	filter.Add("5e55")
	body, err := json.Marshal(revocation.Answer{Cursor: "c1", Window: 960, Filter: filter, Users: []revocation.User{}})
	if err != nil {
		t.Fatal(err)
	}
	f.set(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/introspect" {
			h(w, r)
		} else {
			w.Write(body)
		}
	})
}

func TestFilter_Introspection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := ""
		active := func(yes bool) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				name, secret, _ := r.BasicAuth()
				asked = fmt.Sprint(name, " ", secret, " ", r.Header.Get("Content-Type"), " ", r.PostFormValue("token"))
				fmt.Fprintf(w, `{"active":%t,"more":1}`, yes)
			}
		}
		f := withFilter(t, nil, active(true))
		ann, bob := issue(t, 1), issue(t, 1, session("b0b"))
		f.want(t, bob, 200)
		f.wantRequests(t, "/revocations")
		f.want(t, ann, 200)
		f.wantRequests(t, "POST/introspect")
		if want := "tick%26ts s%3Acret%2F application/x-www-form-urlencoded " + ann; asked != want {
			t.Errorf("got the request %q, want %q", asked, want)
		}
		f.introspect(t, active(false))
		time.Sleep(5*time.Second - time.Millisecond)
		f.want(t, ann, 200) // "active" is used for 5 s
		f.wantRequests(t, "")
		time.Sleep(time.Millisecond)
		f.want(t, ann, 401)
		f.wantRequests(t, "/revocations?since=c1 POST/introspect")

		// "not active" is final
		f.introspect(t, active(true))
		time.Sleep(12 * time.Hour)
		f.want(t, ann, 401)
		f.wantRequests(t, "/revocations")
		f.wantLog(t, "")
	})
}

func TestFilter_OneIntrospection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		f := withFilter(t, nil, held(release, answer(`{"active":false}`)))
		raw := issue(t, 1)
		statuses := make(chan map[int]int)
		go func() { statuses <- f.count(t, 100, raw) }()
		synctest.Wait()
		close(release)
		if got := <-statuses; got[401] != 100 {
			t.Errorf("got the statuses %v, want 401 a hundred times", got)
		}
		f.wantRequests(t, "/revocations POST/introspect")
	})
}

// A hit that cannot be confirmed is handled as a feed that does not answer.
func TestFilter_IntrospectionFails(t *testing.T) {
	for name, down := range map[string]http.HandlerFunc{
		"a refused connection": status(refused),
		"no response":          status(hung),
		"401":                  status(401),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://auth/other", http.StatusTemporaryRedirect)
		},
		"no verdict":       answer(`{}`),
		"null":             answer(`{"active":null}`),
		"a text":           answer(`{"active":"true"}`),
		"two verdicts":     answer(`{"active":true,"active":false}`),
		"more than 64 KiB": answer(`{"active":true}` + strings.Repeat(" ", 64<<10)),
	} {
		for _, strict := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", strict ", strict), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := withFilter(t, func(c *bearer.Config) { c.Strict = strict }, down)
					raw, want := issue(t, 1), 200
					if strict {
						want = 503
					}
					f.want(t, raw, want)
					start := time.Now()
					f.want(t, raw, want)
					f.want(t, issue(t, 1, session("b0b")), 200)
					if waited := time.Since(start); waited != 0 {
						t.Errorf("the requests after the failure waited %v", waited)
					}
					f.wantRequests(t, "/revocations POST/introspect")
					f.introspect(t, answer(`{"active":false}`))
					time.Sleep(5 * time.Second)
					f.want(t, raw, 401)
					f.wantLog(t, "introspection is not available; introspection is available again")
				})
			})
		}
	}
}

func TestFilter_IntrospectionNotConfigured(t *testing.T) {
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := withFilter(t, func(c *bearer.Config) { c.IntrospectionURL, c.IntrospectionSecret, c.Strict = "", "", strict }, status(500))
			want := 200
			if strict {
				want = 503
			}
			f.want(t, issue(t, 1), want)
			f.want(t, issue(t, 1, session("b0b")), 200)
			f.wantRequests(t, "/revocations")
			f.wantLog(t, "introspection is not available")
		})
	}
}
