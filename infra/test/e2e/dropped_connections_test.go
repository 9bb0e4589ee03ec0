package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// TestDatabase_DroppedConnections drops twelve pooled connections without a FIN or a RST, while
// the database is healthy. Then twelve requests run one after the other. All must get the usual
// response, and at most one may be slow. After another drop, twelve concurrent requests must get
// the usual response.
func TestDatabase_DroppedConnections(t *testing.T) {
	const connections = 12
	db := mongotest.Server(t).URI()
	s := start(t, db, rateLimitsOn...)
	accounts := make([]tokenPair, 2*connections+1)
	email := func(i int) string { return fmt.Sprintf("u%d@example.com", i) }
	var address atomic.Int32
	send := func(method, url, bearer, body string) (status int, answer string, took time.Duration) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		n := address.Add(1)
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.0.%d.%d", n>>8, n&255)) // no address reaches a rate limit
		r.Header.Set("Content-Type", "application/json")
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		began := time.Now()
		response, err := httpClient.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		read, err := io.ReadAll(response.Body)
		if err != nil {
			t.Error(err)
		}
		return response.StatusCode, string(read), time.Since(began)
	}
	for i := range accounts {
		status, body, _ := send(http.MethodPost, s.url("signup")+"/api/users/signup", "", credentials(email(i)))
		if status != http.StatusCreated {
			t.Fatalf("sign-up: got %d %s, want 201", status, body)
		}
		accounts[i] = parseTokens(t, body)
	}
	toSignOut := accounts[2*connections]
	unissued := []byte(toSignOut.RefreshToken)
	if last := &unissued[len(unissued)-2]; *last == 'A' {
		*last = 'B'
	} else {
		*last = 'A'
	}

	// requests[function](i) returns request i and its usual status. Requests from 2*connections on
	// only fill the connection pool.
	requests := map[string]func(i int) (bearer, body string, want int){
		"currentuser": func(int) (string, string, int) { return accounts[0].Token, "", 200 },
		"signin":      func(i int) (string, string, int) { return "", credentials(email(i % connections)), 200 },
		"refresh": func(i int) (string, string, int) {
			if i >= 2*connections {
				return "", `{"refreshToken":"` + string(unissued) + `"}`, 401
			}
			return "", `{"refreshToken":"` + accounts[i].RefreshToken + `"}`, 200
		},
		"signup": func(i int) (string, string, int) {
			if i >= 2*connections {
				return "", credentials(email(i - 2*connections)), 400
			}
			return "", credentials("new-" + email(i)), 201
		},
		"signout": func(int) (string, string, int) { return toSignOut.Token, "", 200 },
	}
	runParallel(t, requests, func(t *testing.T, request func(i int) (bearer, body string, want int)) {
		name := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
		method := http.MethodPost
		if name == "currentuser" {
			method = http.MethodGet
		}
		tap := mongotest.TapOf(t, db)
		env := slices.DeleteFunc(slices.Clone(s.env[name]), func(setting string) bool { return strings.HasPrefix(setting, "MONGODB_URI=") })
		function := e2e.Start(t, name, append(env, "MONGODB_URI="+tap.URI)...)
		do := func(i int) time.Duration {
			bearer, body, want := request(i)
			status, answer, took := send(method, function.URL+"/api/users/"+name, bearer, body)
			if status != want {
				t.Errorf("got %d %s after %v, want %d", status, answer, took, want)
			}
			return took
		}
		drop := func() {
			tap.RoundTrip(30 * time.Millisecond)
			for open := tap.Open(); open < 1+connections; open = tap.Open() { // one more is for the heartbeat
				runConcurrently(connections, func(i int) { do(2*connections + i) })
			}
			tap.RoundTrip(0)
			tap.Drop()
		}
		drop()
		var took []time.Duration
		for i := range connections {
			took = append(took, do(i))
		}
		if slow := slices.Sorted(slices.Values(took))[connections-2:]; slow[0] > 1200*time.Millisecond {
			t.Errorf("got response times %v, want at most one over 1.2 s", took)
		}
		drop()
		runConcurrently(connections, func(i int) { do(connections + i) })
	})
}
