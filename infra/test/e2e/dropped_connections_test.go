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

// TestDroppedDatabaseConnections has the network drop twelve pooled connections, without
// a FIN or a RST, while the database is healthy. Of twelve requests one after the other
// one is slow at most, and all get the answer that they get otherwise, as do twelve at
// once.
func TestDroppedDatabaseConnections(t *testing.T) {
	const connections = 12
	db := mongotest.Server(t).URI()
	s := start(t, db, rateLimitsOn...)
	members := make([]tokenPair, 2*connections+1)
	email := func(i int) string { return fmt.Sprintf("u%d@example.com", i) }
	var address atomic.Int32
	send := func(method, url, bearer, body string) (status int, answer string, took time.Duration) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		n := address.Add(1)
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.0.%d.%d", n>>8, n&255)) // no limit of an address is reached
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
	for i := range members {
		status, body, _ := send(http.MethodPost, s.url("signup")+"/api/users/signup", "", credentials(email(i)))
		if status != http.StatusCreated {
			t.Fatal(status, body)
		}
		members[i] = parseTokens(t, body)
	}
	leaving := members[2*connections]
	unissued := []byte(leaving.RefreshToken)
	if last := &unissued[len(unissued)-2]; *last == 'A' {
		*last = 'B'
	} else {
		*last = 'A'
	}

	// what is sent, by the number of a request; those from 2*connections on fill the pool
	requests := map[string]func(i int) (bearer, body string, want int){
		"currentuser": func(int) (string, string, int) { return members[0].Token, "", 200 },
		"signin":      func(i int) (string, string, int) { return "", credentials(email(i % connections)), 200 },
		"refresh": func(i int) (string, string, int) {
			if i >= 2*connections {
				return "", `{"refreshToken":"` + string(unissued) + `"}`, 401
			}
			return "", `{"refreshToken":"` + members[i].RefreshToken + `"}`, 200
		},
		"signup": func(i int) (string, string, int) {
			if i >= 2*connections {
				return "", credentials(email(i - 2*connections)), 400
			}
			return "", credentials("new-" + email(i)), 201
		},
		"signout": func(int) (string, string, int) { return leaving.Token, "", 200 },
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
				t.Errorf("after %v: %d %s, want %d", took, status, answer, want)
			}
			return took
		}
		drop := func() {
			tap.RoundTrip(30 * time.Millisecond)
			for open := tap.Open(); open < 1+connections; open = tap.Open() { // one is the heartbeat's
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
			t.Errorf("one after the other: %v, want one slow request at most", took)
		}
		drop()
		runConcurrently(connections, func(i int) { do(connections + i) })
	})
}
