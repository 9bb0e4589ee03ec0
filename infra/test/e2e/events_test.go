package e2e_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/lambda/lambdatest"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// startTold starts a system that tells a sink what happens, and a relay.
func startWithEvents(t *testing.T, uri string, s *sink, more ...string) *system {
	t.Helper()
	all := start(t, uri, append([]string{"EVENTS=on", "K_SINK=" + s.URL}, more...)...)
	all.env["relay"] = []string{"MONGODB_URI=" + uri, "K_SINK=" + s.URL, "EVENTS=on"}
	all.restart(t, "relay")
	return all
}

// deliver POSTs an event to a function, as a broker does.
func deliver(ctx context.Context, url, id, kind, data string) (status int, reply, body string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(data))
	if err != nil {
		return 0, "", "", err
	}
	for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Source": "/tests", "Ce-Type": kind, "Content-Type": "application/json"} {
		r.Header.Set(name, value)
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header.Get("Ce-Type"), string(read), err
}

// wake wakes a relay and waits until it sleeps again.
func triggerRelay(ctx context.Context, relay *e2e.Process) error {
	status, _, body, err := deliver(ctx, relay.URL+"/", "tick", "com.ticketing.users.relay.requested.v1", "")
	if err == nil && (status != http.StatusOK || body != "") {
		err = fmt.Errorf("the relay: %d %s", status, body)
	}
	return err
}

// drain wakes the relay until nothing waits, which with a sink that takes all must
// be soon: one that was killed needs another start, and no more.
func (s *system) drainOutbox(t *testing.T, uri string) {
	t.Helper()
	for range 3 {
		if err := triggerRelay(t.Context(), s.processes["relay"]); err != nil {
			t.Fatal(err)
		}
		n, err := usersCollection(t, uri).CountDocuments(t.Context(), bson.D{{Key: "undelivered", Value: bson.D{{Key: "$exists", Value: true}}}})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
	t.Errorf("events wait though the sink takes them: %s", s.processes["relay"].Logs())
}

// bearer reads who a token is of, and of which session, as other services do.
func sessionOf(t *testing.T, token string) (of change) {
	t.Helper()
	of, err := parseSession(token)
	if err != nil {
		t.Error(err)
	}
	return of
}

func parseSession(token string) (change, error) {
	var claims struct{ Sub, Sid string }
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	read, err := base64.RawURLEncoding.DecodeString(payload)
	if err = cmp.Or(err, json.Unmarshal(read, &claims)); err != nil || claims.Sub == "" || claims.Sid == "" {
		return change{}, fmt.Errorf("no token of a session: %q %v", token, err)
	}
	return change{userID: claims.Sub, sessionID: claims.Sid}, nil
}

func (of change) withType(kind string) change { return change{of.userID, of.sessionID, kind} }

// secrets are what must not be found of a grant anywhere: no token, and no part of
// one that is worth something.
func (g tokenPair) secrets() []string {
	return append(strings.Split(g.Token, ".")[1:], g.RefreshToken, g.RefreshToken[:43])
}

// person signs up, signs in, refreshes and signs out, and does what changes nothing
// besides. It returns what must be told of that, and no more.
func (s *system) runAccountLifecycle(t *testing.T, email string) (changes []change, secrets []string) {
	t.Helper()
	call := func(want int, function, bearer, body string) (g tokenPair) {
		t.Helper()
		status, _, answer := s.post(t, function, bearer, body)
		if status != want {
			t.Fatalf("%s of %s: %d %s, want %d", function, email, status, answer, want)
		}
		if json.Unmarshal([]byte(answer), &g); g.Token != "" {
			secrets = append(secrets, g.secrets()...)
		}
		return g
	}
	up := call(http.StatusCreated, "signup", "", credentials(email))
	call(http.StatusBadRequest, "signup", "", credentials(email))
	in := call(http.StatusOK, "signin", "", credentials(email))
	call(http.StatusUnauthorized, "signin", "", `{"email":"`+email+`","password":"`+strings.Repeat("x", 12)+`"}`)
	in = call(http.StatusOK, "refresh", "", `{"refreshToken":"`+in.RefreshToken+`"}`)
	for range 2 {
		call(http.StatusOK, "signout", in.Token, "")
	}
	call(http.StatusUnauthorized, "refresh", "", `{"refreshToken":"`+in.RefreshToken+`"}`)
	begun, ended := sessionOf(t, up.Token), sessionOf(t, in.Token)
	return []change{begun.withType(signedUp), ended.withType(signedIn), ended.withType(signedOut)}, secrets
}

func TestEveryChangeIsToldThoughTheSinkIsAwayAndNothingElseIs(t *testing.T) {
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink, "K_SINK_TIMEOUT=50ms")
	var changes []change
	var secrets []string
	for i, c := range []struct {
		name string
		away func(*http.Request) int
	}{
		{"a sink that fails", respond500},
		{"a sink that hangs", hang},
		{"a sink that dies after it received", abort},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink.respondWith(c.away)
			before := len(sink.deliveries())
			for n := range 4 { // one more than the relay tries of a sink that is away
				its, hidden := s.runAccountLifecycle(t, fmt.Sprintf("u%d-%d@example.com", i, n))
				changes, secrets = append(changes, its...), append(secrets, hidden...)
			}
			tried := map[string]bool{}
			for _, try := range sink.deliveries()[before:] {
				tried[try.ID] = true
				if try.accepted {
					t.Errorf("taken: %s", try.raw)
				}
			}
			// the relay meets the sink as it is, and then recovered in the middle
			if c.name != "a sink that hangs" { // or it would wait for long
				if err := triggerRelay(t.Context(), s.processes["relay"]); err != nil {
					t.Error(err)
				}
			}
			n, recovered := len(sink.deliveries()), make(chan struct{})
			sink.respondWith(func(r *http.Request) int {
				select {
				case <-recovered:
					return http.StatusAccepted
				case <-r.Context().Done():
					return http.StatusGatewayTimeout
				}
			})
			slept := make(chan error, 1)
			go func() { slept <- triggerRelay(t.Context(), s.processes["relay"]) }()
			sink.waitFor(t, n, 1)
			close(recovered)
			if err := <-slept; err != nil {
				t.Error(err)
			}
			s.drainOutbox(t, uri)
			all := sink.checkDelivered(t, uri)
			for _, c := range changes {
				all.require(t, c)
			}
			if len(all) != len(changes) {
				t.Errorf("%d changes were told, %d have happened", len(all), len(changes))
			}
			if len(tried) == 0 {
				t.Error("nobody tried to tell the sink at once")
			}
		})
	}
	sink.checkNoSecrets(t, uri, append(secrets, "correct horse battery staple", strings.Repeat("x", 12)))
}

// A function may be killed at any moment: before its write, between the write and
// the sink, and between the sink and forgetting. Whatever has changed by then is
// told.
func TestSIGKILLLosesNoEvent(t *testing.T) {
	uri, sink := mongotest.URI(t), newSink(t)
	// few sessions a user: those that give way are told of as well
	s := startWithEvents(t, uri, sink, "K_SINK_TIMEOUT=100ms", "SESSION_LIMIT=2")
	sink.respondWith(flaky())
	var mu sync.Mutex
	var acknowledged []change
	var secrets []string
	acknowledge := func(kind, token string, g tokenPair) {
		mu.Lock()
		defer mu.Unlock()
		acknowledged = append(acknowledged, sessionOf(t, token).withType(kind))
		if g.Token != "" {
			secrets = append(secrets, g.secrets()...)
		}
	}
	for round, victim := range []string{"signup", "signin", "signout", "signup", "signin", "signout"} {
		var group sync.WaitGroup
		for worker := range 4 {
			group.Go(func() {
				for i := 0; s.runUntilKilled(t, fmt.Sprintf("u%d-%d-%d@example.com", round, worker, i), acknowledge); i++ {
				}
			})
		}
		group.Go(func() {
			for triggerRelay(t.Context(), s.processes["relay"]) == nil {
			}
		})
		sink.waitFor(t, len(sink.deliveries()), 25)
		time.Sleep(rand.N(10 * time.Millisecond)) // any moment; what follows holds after each
		s.processes[victim].Signal(os.Kill)
		s.processes["relay"].Signal(os.Kill)
		group.Wait()
		s.restart(t, victim)
		s.restart(t, "relay")
	}

	// and the relay, surely in the middle: it has the fifth event on the wire
	sink.respondWith(respond500)
	for i := range 10 {
		s.runUntilKilled(t, fmt.Sprintf("v%d@example.com", i), acknowledge)
	}
	n := len(sink.deliveries())
	sink.respondWith(firstN(4, accept, hang))
	killed := make(chan error, 1)
	go func() { killed <- triggerRelay(t.Context(), s.processes["relay"]) }()
	sink.waitFor(t, n, 5)
	s.processes["relay"].Signal(os.Kill)
	if err := <-killed; err == nil {
		t.Error("the relay was done before it was killed")
	}
	s.restart(t, "relay")

	sink.respondWith(accept)
	s.drainOutbox(t, uri)
	all := sink.checkDelivered(t, uri)
	for _, c := range acknowledged {
		all.require(t, c)
	}
	sink.checkNoSecrets(t, uri, append(secrets, "correct horse battery staple"))
	t.Logf("%d changes acknowledged, %d told, in %d tries", len(acknowledged), len(all), len(sink.deliveries()))
}

// stream is a person who signs up, in twice and out, until a function is gone: then
// it returns false.
func (s *system) runUntilKilled(t *testing.T, email string, acknowledge func(kind, token string, g tokenPair)) bool {
	call := func(kind, function, bearer, body string, want int) (g tokenPair, ok bool) {
		status, _, answer, err := e2e.Call(t.Context(), http.MethodPost, s.processes[function].URL+"/api/users/"+function, bearer, body)
		if err != nil {
			return g, false
		}
		if status != want {
			t.Errorf("%s: %d %s", function, status, answer)
			return g, false
		}
		json.Unmarshal([]byte(answer), &g)
		acknowledge(kind, cmp.Or(bearer, g.Token), g)
		return g, true
	}
	if _, ok := call(signedUp, "signup", "", credentials(email), http.StatusCreated); !ok {
		return false
	}
	var in [2]tokenPair
	for i := range in {
		var ok bool
		if in[i], ok = call(signedIn, "signin", "", credentials(email), http.StatusOK); !ok {
			return false
		}
	}
	_, ok := call(signedOut, "signout", in[0].Token, "", http.StatusOK)
	return ok
}

// The same without chance: a function is killed when the database has done the
// first of its commands, or the second, and so on to the last, and never learns
// that it was done. Between two commands there is no other state to be killed in.
// Asked to stop at the same moments, it answers first.
func TestAFunctionKilledAfterAnyOfItsCommandsLosesNoEvent(t *testing.T) {
	whole, sink := t, newSink(t)
	line := newCommandProxy(t, mongotest.Server(t).URI())
	s := startWithEvents(t, line.uri, sink, "SESSION_LIMIT=1")
	post := func(function, bearer, body string) error {
		status, _, answer, err := e2e.Call(t.Context(), http.MethodPost, s.processes[function].URL+"/api/users/"+function, bearer, body)
		if status >= http.StatusInternalServerError {
			err = fmt.Errorf("%s: %d %s", function, status, answer)
		}
		return err
	}
	signup := func(t *testing.T, email string) tokenPair {
		t.Helper()
		_, _, body := s.post(t, "signup", "", credentials(email))
		return parseTokens(t, body)
	}
	for i, c := range []struct {
		name, victim string
		prepare      func(t *testing.T, email string) (act func() error)
	}{
		{"a sign-up", "signup", func(_ *testing.T, email string) func() error {
			return func() error { return post("signup", "", credentials(email)) }
		}},
		{"a sign-in, before which another session gives way", "signin", func(t *testing.T, email string) func() error {
			signup(t, email)
			return func() error { return post("signin", "", credentials(email)) }
		}},
		{"a sign-out", "signout", func(t *testing.T, email string) func() error {
			g := signup(t, email)
			return func() error { return post("signout", g.Token, "") }
		}},
		{"a refresh", "refresh", func(t *testing.T, email string) func() error {
			g := signup(t, email)
			return func() error { return post("refresh", "", `{"refreshToken":"`+g.RefreshToken+`"}`) }
		}},
		{"a theft", "refresh", func(t *testing.T, email string) func() error {
			first := signup(t, email)
			s.refreshRepeatedly(t, first, refreshesToDropFirst)
			return func() error { return post("refresh", "", `{"refreshToken":"`+first.RefreshToken+`"}`) }
		}},
		{"a sign-up by an event", "signup", func(_ *testing.T, email string) func() error {
			return func() error {
				_, _, _, err := deliver(t.Context(), s.processes["signup"].URL+"/", email, "com.ticketing.user.signup.requested.v1", credentials(email))
				return err
			}
		}},
		{"a sign-out by an event", "signout", func(t *testing.T, email string) func() error {
			of := sessionOf(t, signup(t, email).Token).userID
			return func() error {
				_, _, _, err := deliver(t.Context(), s.processes["signout"].URL+"/", email, "com.ticketing.user.signout.requested.v1", `{"userId":"`+of+`"}`)
				return err
			}
		}},
		{"a relay", "relay", func(t *testing.T, email string) func() error {
			sink.respondWith(respond500)
			signup(t, email)
			signup(t, "x"+email)
			sink.respondWith(accept)
			return func() error { return triggerRelay(t.Context(), s.processes["relay"]) }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			kills := 0
			for {
				act := c.prepare(t, fmt.Sprintf("u%d-%d@example.com", i, kills))
				cut := line.dropReplyAfter(kills+1, func() { s.processes[c.victim].Signal(os.Kill) })
				err := act()
				if !cut() {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				kills++
				s.restart(whole, c.victim) // the next case needs it as well
				// who was not answered tries again
				if err := act(); err != nil {
					t.Fatal(err)
				}
			}
			if kills == 0 {
				t.Error("it asks the database for nothing")
			}
			// and asked to stop there, it finishes what it has begun
			for n := range kills {
				act := c.prepare(t, fmt.Sprintf("t%d-%d@example.com", i, n))
				asked := line.interruptAfter(n+1, func() { s.processes[c.victim].Send(syscall.SIGTERM) })
				if err := act(); err != nil || !asked() {
					t.Errorf("asked to stop after command %d: %v", n+1, err)
				}
				<-s.processes[c.victim].Done()
				if code := s.processes[c.victim].Signal(os.Kill); code != 0 {
					t.Errorf("asked to stop after command %d: exit code %d", n+1, code)
				}
				s.restart(whole, c.victim)
			}
			s.drainOutbox(t, line.uri)
			sink.checkDelivered(t, line.uri)
			t.Logf("killed after each of %d commands", kills)
		})
	}
}

// exchange refreshes a grant so many times, each time with what the time before
// gave, and returns all that it got.
func (s *system) refreshRepeatedly(t *testing.T, g tokenPair, times int) (all []tokenPair) {
	t.Helper()
	for range times {
		status, _, body := s.post(t, "refresh", "", `{"refreshToken":"`+g.RefreshToken+`"}`)
		if status != http.StatusOK {
			t.Fatal(status, body)
		}
		g = parseTokens(t, body)
		all = append(all, g)
	}
	return all
}

func TestTwoRelaysAtOnceLoseNothing(t *testing.T) {
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink)
	relays := []*e2e.Process{s.processes["relay"], e2e.Start(t, "relay", s.env["relay"]...)}
	sink.respondWith(respond500)
	var changes []change
	for i := range 25 { // more than a relay reads at once
		status, _, body := s.post(t, "signup", "", credentials(fmt.Sprintf("u%d@example.com", i)))
		if status != http.StatusCreated {
			t.Fatal(status, body)
		}
		changes = append(changes, sessionOf(t, parseTokens(t, body).Token).withType(signedUp))
	}
	// nothing is taken until both relays have sent something: each sends one event
	// after the other, so two on the wire are one of each
	before, both := len(sink.deliveries()), make(chan struct{})
	sink.respondWith(func(r *http.Request) int {
		select {
		case <-both:
			return accept(r)
		case <-r.Context().Done():
			return http.StatusGatewayTimeout
		}
	})
	slept := make(chan error, len(relays))
	for _, relay := range relays {
		go func() { slept <- triggerRelay(t.Context(), relay) }()
	}
	sink.waitFor(t, before, 2)
	close(both)
	for range relays {
		if err := <-slept; err != nil {
			t.Error(err)
		}
	}
	all := sink.checkDelivered(t, uri)
	for _, c := range changes {
		all.require(t, c)
	}
	if len(all) != len(changes) {
		t.Errorf("%d changes were told, %d have happened", len(all), len(changes))
	}
}

// exchangesToDrop is the number of exchanges in a row after which a session stores the
// first refresh token no longer. Its use is then a theft at once, not only when its replay
// window has ended.
const refreshesToDropFirst = 65

func TestTheTheftOfARefreshTokenIsTold(t *testing.T) {
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink)
	_, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	grants := append([]tokenPair{parseTokens(t, body)}, s.refreshRepeatedly(t, parseTokens(t, body), refreshesToDropFirst)...)
	first, newest := grants[0], grants[refreshesToDropFirst]
	for _, stolen := range []tokenPair{first, newest} {
		status, _, body := s.post(t, "refresh", "", `{"refreshToken":"`+stolen.RefreshToken+`"}`)
		if status != http.StatusUnauthorized || body != `{"errors":[{"message":"The token is not valid."}]}` {
			t.Errorf("refresh: %d %s", status, body)
		}
	}
	if status, _, body := s.currentUser(t, newest.Token); status != http.StatusUnauthorized {
		t.Errorf("currentuser: %d %s", status, body)
	}
	all := sink.checkDelivered(t, uri)
	of := sessionOf(t, first.Token)
	all.require(t, of.withType(signedUp))
	var secrets []string
	for _, g := range grants {
		secrets = append(secrets, g.secrets()...)
	}
	if reason := all[of.withType(signedOut)]; reason != "theft" || len(all) != 2 {
		t.Errorf("told %v", all)
	}
	sink.checkNoSecrets(t, uri, secrets)
}

func TestTheEventDoorIsOpenOnlyWhereEVENTSIsOnAndOnlyAtItsOwnAddress(t *testing.T) {
	const (
		request  = "com.ticketing.user.signup.requested.v1"
		accepted = "com.ticketing.user.signup.accepted.v1"
		nothing  = `{"errors":[{"message":"There is nothing here."}]}`
		noEvents = `{"errors":[{"message":"This address takes no events."}]}`
	)
	uri := mongotest.URI(t)
	off, on := start(t, uri), start(t, uri, "EVENTS=on")
	for _, f := range catalog.Functions() {
		if f.Path == "" {
			continue // it does not start with its door shut
		}
		for _, c := range []struct {
			name, url string
			code      int
			body      string
		}{
			{"with EVENTS off, at the root", off.processes[f.Name].URL + "/", http.StatusNotFound, nothing},
			{"with EVENTS off, at its route", off.processes[f.Name].URL + f.Path, http.StatusUnsupportedMediaType, noEvents},
			{"with EVENTS on, at its route", on.processes[f.Name].URL + f.Path, http.StatusUnsupportedMediaType, noEvents},
		} {
			status, _, body, err := deliver(t.Context(), c.url, "1", request, credentials("ann@example.com"))
			if err != nil || status != c.code || body != c.body {
				t.Errorf("%s %s: %d %s %v", f.Name, c.name, status, body, err)
			}
		}
		if f.Trigger.Types == nil {
			status, _, body, err := deliver(t.Context(), on.processes[f.Name].URL+"/", "1", request, credentials("ann@example.com"))
			if err != nil || status != http.StatusNotFound || body != nothing {
				t.Errorf("%s, which takes no events, with EVENTS on: %d %s %v", f.Name, status, body, err)
			}
		}
	}
	if all := accounts(t, uri); len(all) != 0 {
		t.Errorf("an event that was refused made %v", all)
	}
	status, reply, body, err := deliver(t.Context(), on.processes["signup"].URL+"/", "1", request, credentials("ann@example.com"))
	if err != nil || status != http.StatusOK || reply != accepted || !strings.Contains(body, `"email":"ann@example.com"`) {
		t.Errorf("signup with EVENTS on: %d %s %s %v", status, reply, body, err)
	}
}

// Where the public reaches the event path, EVENTS=on alone stops the start, and what else
// is wrong is listed with it.
func TestEVENTS_OnWithoutOIDCStopsTheStartWhereThePublicReachesIt(t *testing.T) {
	uri, keys := mongotest.URI(t), t.TempDir()
	if err := keyring.Create(keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	env := []string{"MONGODB_URI=" + uri, "PORT=0",
		"SIGNING_KEYS_FILE=" + filepath.Join(keys, keyring.SigningFile),
		"VERIFYING_KEYS_FILE=" + filepath.Join(keys, keyring.VerifyingFile)}
	oidc := []string{"EVENT_OIDC_ISSUER=https://issuer.example", "EVENT_OIDC_AUDIENCE=auth"}
	runtime := lambdatest.New(t)
	for _, c := range []struct {
		process string
		env     []string
		args    []string
	}{
		{"allinone", env, nil},
		{"local", e2e.Environment(env...), []string{"-addr", "127.0.0.1:0", "-data", t.TempDir()}},
		{"signup", slices.Concat(env, lambdaSettings("signup", runtime)), nil},
		{"signout", slices.Concat(env, lambdaSettings("signout", runtime)), nil},
	} {
		code, stderr := e2e.MustFail(t, slices.Concat(c.env, []string{"EVENTS=on", "LOG_LEVEL=loud"}), c.process, c.args...)
		if code != 2 || strings.Count(stderr, "\n") != 3 || !strings.Contains(stderr, "\n  LOG_LEVEL must be ") ||
			!strings.Contains(stderr, "\n  EVENTS must not be on without EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE ") {
			t.Errorf("%s: exit code %d: %s", c.process, code, stderr)
		}
	}
	for name, c := range map[string]struct {
		more []string
		want int
	}{
		"insecure": {[]string{"EVENTS=insecure"}, http.StatusOK},
		"OIDC":     {append([]string{"EVENTS=on"}, oidc...), http.StatusUnauthorized},
		"off":      {[]string{"EVENTS=off"}, http.StatusNotFound},
	} {
		const kind, data = "com.ticketing.user.signout.requested.v1", `{"userId":"nobody"}`
		status, _, body, err := deliver(t.Context(), e2e.Start(t, "allinone", append(env, c.more...)...).URL+"/", "1", kind, data)
		if err != nil || status != c.want {
			t.Errorf("allinone, %s: %d %s %v", name, status, body, err)
		}
		header := http.Header{"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/tests"}, "Ce-Type": {kind}}
		r := request(t, http.MethodPost, "https://gateway.example/", header, data)
		if got := send(t, lambdatest.HTTPAPI(startLambda(t, "signout", append(env, c.more...)...).Runtime), r); got.status != c.want {
			t.Errorf("Lambda, %s: %d %s", name, got.status, got.body)
		}
	}
}
