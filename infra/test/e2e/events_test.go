package e2e_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
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

	"go.mongodb.org/mongo-driver/v2/mongo"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/lambda/lambdatest"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mongodb"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/user"
)

// startWithEvents starts a system with a sink for its events, and a relay.
func startWithEvents(t *testing.T, uri string, s *sink, more ...string) *system {
	t.Helper()
	system := start(t, uri, append([]string{"EVENTS=on", "K_SINK=" + s.URL}, more...)...)
	system.env["relay"] = []string{"MONGODB_URI=" + uri, "K_SINK=" + s.URL, "EVENTS=on"}
	system.restart(t, "relay")
	return system
}

// deliver sends an event to a function by POST, as a broker does.
func deliver(ctx context.Context, url, id, eventType, data string) (status int, reply, body string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(data))
	if err != nil {
		return 0, "", "", err
	}
	for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Source": "/tests", "Ce-Type": eventType, "Content-Type": "application/json"} {
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

// triggerRelay sends a relay its trigger event and waits until the relay has responded.
func triggerRelay(ctx context.Context, relay *e2e.Process) error {
	status, _, body, err := deliver(ctx, relay.URL+"/", "tick", "com.ticketing.users.relay.requested.v1", "")
	if err == nil && (status != http.StatusOK || body != "") {
		err = fmt.Errorf("relay: got %d %s, want 200 and no body", status, body)
	}
	return err
}

// drainOutbox triggers the relay until no event is pending. With a sink that accepts every
// event, three times must be enough, because a relay that was killed needs one more start.
func (s *system) drainOutbox(t *testing.T, uri string) {
	t.Helper()
	for range 3 {
		if err := triggerRelay(t.Context(), s.processes["relay"]); err != nil {
			t.Fatal(err)
		}
		if pendingUsers(t, usersCollection(t, uri)) == 0 {
			return
		}
	}
	t.Errorf("got pending events after three runs of the relay, want 0: %s", s.processes["relay"].Logs())
}

// sessionOf returns the user and the session of an access token, as other services read them.
func sessionOf(t *testing.T, token string) change {
	t.Helper()
	session, err := parseSession(token)
	if err != nil {
		t.Error(err)
	}
	return session
}

func parseSession(token string) (change, error) {
	var claims struct{ Sub, Sid string }
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	read, err := base64.RawURLEncoding.DecodeString(payload)
	if err = cmp.Or(err, json.Unmarshal(read, &claims)); err != nil || claims.Sub == "" || claims.Sid == "" {
		return change{}, fmt.Errorf("got token %q, want one with sub and sid: %v", token, err)
	}
	return change{userID: claims.Sub, sessionID: claims.Sid}, nil
}

func (c change) withType(eventType string) change {
	return change{c.userID, c.sessionID, eventType}
}

// secrets returns the tokens and each part of them that an attacker could use. None may appear
// in an event or a log.
func (tokens tokenPair) secrets() []string {
	return append(strings.Split(tokens.Token, ".")[1:], tokens.RefreshToken, tokens.RefreshToken[:43])
}

// runAccountLifecycle signs a user up, in and out and refreshes a token. It also sends
// requests that change nothing. It returns the changes that events must report, and the secrets.
func (s *system) runAccountLifecycle(t *testing.T, email string) (changes []change, secrets []string) {
	t.Helper()
	call := func(want int, function, bearer, body string) (tokens tokenPair) {
		t.Helper()
		status, _, answer := s.post(t, function, bearer, body)
		if status != want {
			t.Fatalf("%s of %s: got %d %s, want %d", function, email, status, answer, want)
		}
		if json.Unmarshal([]byte(answer), &tokens); tokens.Token != "" {
			secrets = append(secrets, tokens.secrets()...)
		}
		return tokens
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

// While the sink is not available, events are pending. When it accepts deliveries again, it
// receives one event for each change, and no other event.
func TestEvents_SinkUnavailable(t *testing.T) {
	t.Parallel()
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink)
	var changes []change
	var secrets []string
	for i, c := range []struct {
		name  string
		fault func(*http.Request) int
	}{
		{"responds 500", respond500},
		{"does not respond", hang},
		{"closes the connection after the event", abort},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink.respondWith(c.fault)
			before := len(sink.deliveries())
			for n := range 4 { // one more than the number of failed deliveries after which the relay stops
				lifecycle, lifecycleSecrets := s.runAccountLifecycle(t, fmt.Sprintf("u%d-%d@example.com", i, n))
				changes, secrets = append(changes, lifecycle...), append(secrets, lifecycleSecrets...)
			}
			sink.waitFor(t, before, 1)
			for _, d := range sink.deliveries()[before:] {
				if d.accepted {
					t.Errorf("the sink accepted an event during the fault: %s", d.raw)
				}
			}
			// The relay runs once during the fault. Then the sink recovers while the relay runs.
			if c.name != "does not respond" { // the relay would wait for a long time
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
			finished := make(chan error, 1)
			go func() { finished <- triggerRelay(t.Context(), s.processes["relay"]) }()
			sink.waitFor(t, n, 1)
			close(recovered)
			if err := <-finished; err != nil {
				t.Error(err)
			}
			s.drainOutbox(t, uri)
			delivered := sink.checkDelivered(t, uri)
			for _, c := range changes {
				delivered.require(t, c)
			}
			if len(delivered) != len(changes) {
				t.Errorf("got events of %d changes, want %d", len(delivered), len(changes))
			}
		})
	}
	sink.checkNoSecrets(t, uri, append(secrets, "correct horse battery staple", strings.Repeat("x", 12)))
}

// The response does not wait for the sink. On SIGTERM the function waits for the delivery in flight,
// and the relay does not send its event again.
func TestEvents_SIGTERMDuringDelivery(t *testing.T) {
	t.Parallel()
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink)
	answered := make(chan struct{})
	sink.respondWith(func(*http.Request) int { <-answered; return http.StatusAccepted })
	status, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	if status != http.StatusCreated {
		t.Fatalf("sign-up: got %d %s, want 201", status, body)
	}
	sink.waitFor(t, 0, 1)
	s.processes["signup"].Send(syscall.SIGTERM)
	relayed := make(chan error, 1)
	go func() { relayed <- triggerRelay(t.Context(), s.processes["relay"]) }()
	close(answered)
	<-s.processes["signup"].Done()
	if code := s.processes["signup"].Signal(os.Kill); code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
	if n := pendingUsers(t, usersCollection(t, uri)); n != 0 {
		t.Errorf("%d users have pending events after the exit, want 0", n)
	}
	if err := <-relayed; err != nil {
		t.Error(err)
	}
	if n := len(sink.deliveries()); n != 1 {
		t.Errorf("got %d deliveries, want 1", n)
	}
	if log := s.processes["signup"].Logs(); strings.Contains(log, "not delivered") {
		t.Errorf("the log reports an event that the sink has accepted: %s", log)
	}
	sink.checkDelivered(t, uri)
}

// A sink that never answers does not prevent the exit after SIGTERM. The relay delivers the event.
func TestEvents_SIGTERMWithHangingSink(t *testing.T) {
	t.Parallel()
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink)
	sink.respondWith(hang)
	if status, _, body := s.post(t, "signup", "", credentials("ann@example.com")); status != http.StatusCreated {
		t.Fatalf("sign-up: got %d %s, want 201", status, body)
	}
	sink.waitFor(t, 0, 1)
	s.processes["signup"].Send(syscall.SIGTERM)
	<-s.processes["signup"].Done()
	if code := s.processes["signup"].Signal(os.Kill); code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
	if log := s.processes["signup"].Logs(); strings.Count(log, "event not delivered") != 1 {
		t.Errorf("the log does not report the event once: %s", log)
	}
	sink.respondWith(accept)
	s.drainOutbox(t, uri)
	sink.checkDelivered(t, uri)
}

// SIGKILL may stop a function before its write, between the write and the delivery, and between
// the delivery and the removal from the outbox. Events must report every change that was stored.
func TestEvents_SIGKILL(t *testing.T) {
	t.Parallel()
	uri, sink := mongotest.URI(t), newSink(t)
	// Few sessions per user, so that evicted sessions have events too.
	s := startWithEvents(t, uri, sink, "SESSION_LIMIT=2")
	sink.respondWith(flaky())
	var mu sync.Mutex
	var acknowledged []change
	var secrets []string
	acknowledge := func(eventType, token string, tokens tokenPair) {
		mu.Lock()
		defer mu.Unlock()
		acknowledged = append(acknowledged, sessionOf(t, token).withType(eventType))
		if tokens.Token != "" {
			secrets = append(secrets, tokens.secrets()...)
		}
	}
	for round, function := range []string{"signup", "signin", "signout", "signup", "signin", "signout"} {
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
		time.Sleep(rand.N(10 * time.Millisecond)) // any moment: the checks below hold after each
		s.processes[function].Signal(os.Kill)
		s.processes["relay"].Signal(os.Kill)
		group.Wait()
		s.restart(t, function)
		s.restart(t, "relay")
	}

	// Kill the relay while it sends the fifth event.
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
		t.Error("the relay finished before SIGKILL, want an interrupted run")
	}
	s.restart(t, "relay")

	sink.respondWith(accept)
	s.drainOutbox(t, uri)
	delivered := sink.checkDelivered(t, uri)
	for _, c := range acknowledged {
		delivered.require(t, c)
	}
	sink.checkNoSecrets(t, uri, append(secrets, "correct horse battery staple"))
	t.Logf("%d acknowledged changes, %d changes with events, %d deliveries", len(acknowledged), len(delivered), len(sink.deliveries()))
}

// runUntilKilled signs a user up, in twice and out. It returns false if a function does not
// respond.
func (s *system) runUntilKilled(t *testing.T, email string, acknowledge func(eventType, token string, tokens tokenPair)) bool {
	call := func(eventType, function, bearer, body string, want int) (tokens tokenPair, ok bool) {
		status, _, answer, err := e2e.Call(t.Context(), http.MethodPost, s.processes[function].URL+"/api/users/"+function, bearer, body)
		if err != nil {
			return tokens, false
		}
		if status != want {
			t.Errorf("%s: got %d %s, want %d", function, status, answer, want)
			return tokens, false
		}
		json.Unmarshal([]byte(answer), &tokens)
		acknowledge(eventType, cmp.Or(bearer, tokens.Token), tokens)
		return tokens, true
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

// TestEvents_SIGKILLAfterEachCommand is TestEvents_SIGKILL without randomness. It kills a
// function after the database executed the first command of a request, then after the second, up
// to the last. The function never receives the reply. Between two commands the stored state does
// not change, so this covers every state. After SIGTERM at the same points, the function responds
// before it exits.
func TestEvents_SIGKILLAfterEachCommand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		function string
		prepare  func(t *testing.T, s *interruptedSystem, email string) (act func() error)
	}{
		"a sign-up": {"signup", func(t *testing.T, s *interruptedSystem, email string) func() error {
			return s.request(t, "signup", "", credentials(email))
		}},
		"a sign-in that evicts another session": {"signin", func(t *testing.T, s *interruptedSystem, email string) func() error {
			s.signup(t, email)
			return s.request(t, "signin", "", credentials(email))
		}},
		"a sign-out": {"signout", func(t *testing.T, s *interruptedSystem, email string) func() error {
			return s.request(t, "signout", s.signup(t, email).Token, "")
		}},
		"a refresh": {"refresh", func(t *testing.T, s *interruptedSystem, email string) func() error {
			return s.request(t, "refresh", "", `{"refreshToken":"`+s.signup(t, email).RefreshToken+`"}`)
		}},
		"a refresh with a stolen token": {"refresh", func(t *testing.T, s *interruptedSystem, email string) func() error {
			first := s.signup(t, email)
			s.refreshRepeatedly(t, first, refreshesToDropFirst)
			return s.request(t, "refresh", "", `{"refreshToken":"`+first.RefreshToken+`"}`)
		}},
		"a sign-up by an event": {"signup", func(t *testing.T, s *interruptedSystem, email string) func() error {
			return s.event(t, "signup", email, credentials(email))
		}},
		"a sign-out by an event": {"signout", func(t *testing.T, s *interruptedSystem, email string) func() error {
			return s.event(t, "signout", email, `{"userId":"`+sessionOf(t, s.signup(t, email).Token).userID+`"}`)
		}},
		"a run of the relay": {"relay", func(t *testing.T, s *interruptedSystem, email string) func() error {
			storeEvent(t, s.uri, email)
			storeEvent(t, s.uri, "x"+email)
			return func() error { return triggerRelay(t.Context(), s.processes["relay"]) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink, uri := newSink(t), mongotest.Server(t).URI()
			proxy := newCommandProxy(t, uri)
			s := &interruptedSystem{startWithEvents(t, proxy.uri, sink, "SESSION_LIMIT=1"), uri, usersCollection(t, uri), 0}
			process := func() *e2e.Process { return s.processes[c.function] }
			kills := 0
			for {
				s.pending = pendingUsers(t, s.users)
				act := c.prepare(t, s, fmt.Sprintf("u%d@example.com", kills))
				killed := proxy.dropReplyAfter(kills+1, func() { process().Signal(os.Kill) })
				err := act()
				awaitDeliveries(t, s.users, s.pending, process().Done())
				if !killed() {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				kills++
				s.restart(t, c.function)
				// A client without a response retries.
				if err := act(); err != nil {
					t.Fatal(err)
				}
			}
			if kills == 0 {
				t.Error("got no database command, want at least one")
			}
			// After SIGTERM at the same points, the function finishes the request. The number of
			// commands varies, because one command can remove several delivered events.
			for n := 0; ; n++ {
				s.pending = pendingUsers(t, s.users)
				act := c.prepare(t, s, fmt.Sprintf("t%d@example.com", n))
				terminated := proxy.interruptAfter(n+1, func() { process().Send(syscall.SIGTERM) })
				err := act()
				awaitDeliveries(t, s.users, s.pending, process().Done())
				if err != nil {
					t.Fatalf("SIGTERM after command %d: got error %v, want a response", n+1, err)
				}
				if !terminated() {
					if n == 0 {
						t.Error("SIGTERM: got no database command, want at least one")
					}
					break
				}
				<-process().Done()
				if code := process().Signal(os.Kill); code != 0 {
					t.Errorf("SIGTERM after command %d: got exit code %d, want 0", n+1, code)
				}
				s.restart(t, c.function)
			}
			s.drainOutbox(t, uri)
			sink.checkDelivered(t, uri)
			t.Logf("killed after each of %d commands", kills)
		})
	}
}

// An interruptedSystem is a system with a function that the test interrupts.
type interruptedSystem struct {
	*system
	uri     string
	users   *mongo.Collection
	pending int // users with events of killed processes
}

// signup signs a user up and waits until the events of the sign-up are delivered.
func (s *interruptedSystem) signup(t *testing.T, email string) tokenPair {
	t.Helper()
	_, _, body := s.post(t, "signup", "", credentials(email))
	awaitDeliveries(t, s.users, s.pending, nil)
	return parseTokens(t, body)
}

// request returns a closure that sends a request to a function of the system.
func (s *interruptedSystem) request(t *testing.T, function, bearer, body string) func() error {
	return func() error {
		status, _, answer, err := e2e.Call(t.Context(), http.MethodPost, s.processes[function].URL+"/api/users/"+function, bearer, body)
		if status >= http.StatusInternalServerError {
			err = fmt.Errorf("%s: %d %s", function, status, answer)
		}
		return err
	}
}

// event returns a closure that delivers an event to a function of the system.
func (s *interruptedSystem) event(t *testing.T, function, id, data string) func() error {
	return func() error {
		_, _, _, err := deliver(t.Context(), s.processes[function].URL+"/", id, "com.ticketing.user."+function+".requested.v1", data)
		return err
	}
}

// storeEvent adds a user with an event that no process delivers but the relay.
func storeEvent(t *testing.T, uri, email string) {
	t.Helper()
	database, err := mongodb.New(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { database.Close(context.Background()) })
	store := user.New(user.Config{Database: database, Sink: noSink{}, Now: func() time.Time { return time.Now().Add(-time.Minute) }})
	if err := store.Create(t.Context(), user.Registration{User: user.User{ID: session.NewID(), Email: email}, Password: "$argon2id$"}); err != nil {
		t.Fatal(err)
	}
}

// noSink accepts no event.
type noSink struct{}

func (noSink) Send(context.Context, event.Event) error { return errors.New("the sink is down") }

func (noSink) Takes(*event.Type) bool { return true }

func (noSink) Timeout() time.Duration { return time.Second }

// refreshRepeatedly refreshes tokens a number of times, each time with the newest refresh token.
// It returns the tokens of every response.
func (s *system) refreshRepeatedly(t *testing.T, tokens tokenPair, times int) (all []tokenPair) {
	t.Helper()
	for range times {
		status, _, body := s.post(t, "refresh", "", `{"refreshToken":"`+tokens.RefreshToken+`"}`)
		if status != http.StatusOK {
			t.Fatalf("refresh: got %d %s, want 200", status, body)
		}
		tokens = parseTokens(t, body)
		all = append(all, tokens)
	}
	return all
}

func TestRelay_TwoAtOnce(t *testing.T) {
	t.Parallel()
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink)
	relays := []*e2e.Process{s.processes["relay"], e2e.Start(t, "relay", s.env["relay"]...)}
	sink.respondWith(respond500)
	var changes []change
	for i := range 25 { // more than one read of the relay
		status, _, body := s.post(t, "signup", "", credentials(fmt.Sprintf("u%d@example.com", i)))
		if status != http.StatusCreated {
			t.Fatalf("sign-up: got %d %s, want 201", status, body)
		}
		changes = append(changes, sessionOf(t, parseTokens(t, body).Token).withType(signedUp))
	}
	// The sink responds only after both relays have sent an event. A relay sends one event at a
	// time, so two open deliveries come from two relays.
	before, both := len(sink.deliveries()), make(chan struct{})
	sink.respondWith(func(r *http.Request) int {
		select {
		case <-both:
			return accept(r)
		case <-r.Context().Done():
			return http.StatusGatewayTimeout
		}
	})
	finished := make(chan error, len(relays))
	for _, relay := range relays {
		go func() { finished <- triggerRelay(t.Context(), relay) }()
	}
	sink.waitFor(t, before, 2)
	close(both)
	for range relays {
		if err := <-finished; err != nil {
			t.Error(err)
		}
	}
	delivered := sink.checkDelivered(t, uri)
	for _, c := range changes {
		delivered.require(t, c)
	}
	if len(delivered) != len(changes) {
		t.Errorf("got events of %d changes, want %d", len(delivered), len(changes))
	}
}

// refreshesToDropFirst is the number of refreshes in a row after which a session no longer
// stores its first refresh token. A use of that token then counts as theft, even within its
// replay window.
const refreshesToDropFirst = 65

func TestEvents_RefreshTokenTheft(t *testing.T) {
	t.Parallel()
	uri, sink := mongotest.URI(t), newSink(t)
	s := startWithEvents(t, uri, sink)
	_, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	all := append([]tokenPair{parseTokens(t, body)}, s.refreshRepeatedly(t, parseTokens(t, body), refreshesToDropFirst)...)
	first, newest := all[0], all[refreshesToDropFirst]
	for _, stolen := range []tokenPair{first, newest} {
		status, _, body := s.post(t, "refresh", "", `{"refreshToken":"`+stolen.RefreshToken+`"}`)
		if status != http.StatusUnauthorized || body != `{"errors":[{"message":"The token is not valid."}]}` {
			t.Errorf("refresh with a stolen token: got %d %s, want 401", status, body)
		}
	}
	if status, _, body := s.currentUser(t, newest.Token); status != http.StatusUnauthorized {
		t.Errorf("currentuser: got %d %s, want 401", status, body)
	}
	delivered := sink.checkDelivered(t, uri)
	session := sessionOf(t, first.Token)
	delivered.require(t, session.withType(signedUp))
	var secrets []string
	for _, tokens := range all {
		secrets = append(secrets, tokens.secrets()...)
	}
	if reason := delivered[session.withType(signedOut)]; reason != "theft" || len(delivered) != 2 {
		t.Errorf("got events %v, want a sign-up and a sign-out with reason theft", delivered)
	}
	sink.checkNoSecrets(t, uri, secrets)
}

func TestEventReceiver_OnlyAtRootWithEVENTSOn(t *testing.T) {
	t.Parallel()
	const (
		request  = "com.ticketing.user.signup.requested.v1"
		accepted = "com.ticketing.user.signup.accepted.v1"
		nothing  = `{"errors":[{"message":"There is nothing here."}]}`
		noEvents = `{"errors":[{"message":"This address takes no events."}]}`
	)
	uri := mongotest.URI(t)
	off, on := startAll(t, uri), startAll(t, uri, "EVENTS=on")
	for _, f := range catalog.Functions() {
		if len(f.Endpoints) == 0 {
			continue // the relay does not start with EVENTS off
		}
		for _, c := range []struct {
			name, url string
			code      int
			body      string
		}{
			{"with EVENTS off, at the root", off.processes[f.Name].URL + "/", http.StatusNotFound, nothing},
			{"with EVENTS off, at its route", off.processes[f.Name].URL + f.Endpoints[0].Path, http.StatusUnsupportedMediaType, noEvents},
			{"with EVENTS on, at its route", on.processes[f.Name].URL + f.Endpoints[0].Path, http.StatusUnsupportedMediaType, noEvents},
		} {
			status, _, body, err := deliver(t.Context(), c.url, "1", request, credentials("ann@example.com"))
			if err != nil || status != c.code || body != c.body {
				t.Errorf("%s %s: got %d %s %v, want %d %s", f.Name, c.name, status, body, err, c.code, c.body)
			}
		}
		if f.Receivers == nil {
			status, _, body, err := deliver(t.Context(), on.processes[f.Name].URL+"/", "1", request, credentials("ann@example.com"))
			if err != nil || status != http.StatusNotFound || body != nothing {
				t.Errorf("%s takes no events, with EVENTS on: got %d %s %v, want 404 %s", f.Name, status, body, err, nothing)
			}
		}
	}
	if all := accounts(t, uri); len(all) != 0 {
		t.Errorf("got accounts %v after rejected events, want none", all)
	}
	status, reply, body, err := deliver(t.Context(), on.processes["signup"].URL+"/", "1", request, credentials("ann@example.com"))
	if err != nil || status != http.StatusOK || reply != accepted || !strings.Contains(body, `"email":"ann@example.com"`) {
		t.Errorf("signup with EVENTS on: got %d %s %s %v, want 200 %s and the email", status, reply, body, err, accepted)
	}
}

// If public clients can reach the event path, EVENTS=on without OIDC is a configuration error.
// The error lists every other problem too.
func TestEVENTS_OnWithoutOIDC(t *testing.T) {
	t.Parallel()
	uri, keys := mongotest.URI(t), t.TempDir()
	if err := keyring.Create(keys, "EdDSA", time.Now()); err != nil {
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
			t.Errorf("%s: got exit code %d: %s; want 2 and the errors of LOG_LEVEL and EVENTS", c.process, code, stderr)
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
		const eventType, data = "com.ticketing.user.signout.requested.v1", `{"userId":"unknown"}`
		status, _, body, err := deliver(t.Context(), e2e.Start(t, "allinone", append(env, c.more...)...).URL+"/", "1", eventType, data)
		if err != nil || status != c.want {
			t.Errorf("allinone, %s: got %d %s %v, want %d", name, status, body, err, c.want)
		}
		header := http.Header{"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/tests"}, "Ce-Type": {eventType}}
		r := request(t, http.MethodPost, "https://gateway.example/", header, data)
		if got := send(t, lambdatest.HTTPAPI(startLambda(t, "signout", append(env, c.more...)...).Runtime), r); got.status != c.want {
			t.Errorf("Lambda, %s: got %d %s, want %d", name, got.status, got.body, c.want)
		}
	}
}
