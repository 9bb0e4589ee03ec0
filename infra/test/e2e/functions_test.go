package e2e_test

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/needs"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestMain(m *testing.M) {
	// Parallel tests mostly wait for processes, so more of them run at the same time than there are cores.
	flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	e2e.Main(m)
}

// A function without its settings lists all that it needs. TestOf_Required has the design of these
// needs.
func TestFunctions_RequiredSettings(t *testing.T) {
	t.Parallel()
	for _, f := range catalog.Functions() {
		want := needs.Of(f).Required()
		if len(want) == 0 {
			continue // the function starts without settings
		}
		code, stderr := e2e.MustFail(t, nil, f.Name)
		var missing []string
		for _, name := range want {
			if strings.Contains(stderr, "  "+name+" ") {
				missing = append(missing, name)
			}
		}
		if code != 2 || !slices.Equal(missing, want) || strings.Count(stderr, "\n") != 1+len(want) {
			t.Errorf("%s: got exit code %d, want 2 and an error for each of %v:\n%s", f.Name, code, want, stderr)
		}
	}
}

// system runs each function as a process of its own, on one database.
type system struct {
	processes map[string]*e2e.Process
	env       map[string][]string

	mu          sync.Mutex // guards processes and earlierLogs in tests that restart functions during calls
	earlierLogs map[string]string
}

// start starts the functions of the core, on the database of uri. startWithEvents also starts the relay.
func start(t testing.TB, uri string, more ...string) *system {
	t.Helper()
	return startFunctions(t, uri, []string{"signup", "signin", "signout", "currentuser", "refresh", "jwks", "introspect", "revocations"}, more...)
}

// startAll is start for all functions with an endpoint.
func startAll(t testing.TB, uri string, more ...string) *system {
	t.Helper()
	var names []string
	for _, f := range catalog.Functions() {
		if len(f.Endpoints) > 0 {
			names = append(names, f.Name)
		}
	}
	return startFunctions(t, uri, names, more...)
}

// startFunctions is start for functions with these names.
func startFunctions(t testing.TB, uri string, names []string, more ...string) *system {
	t.Helper()
	e2e.Build(t, append(names, "migrate")...)
	keys := t.TempDir()
	if err := keyring.Create(keys, "EdDSA", time.Now()); err != nil {
		t.Fatal(err)
	}
	value := map[string]string{
		"MONGODB_URI":    "MONGODB_URI=" + uri,
		"SIGNING_KEYS":   "SIGNING_KEYS_FILE=" + filepath.Join(keys, keyring.SigningFile),
		"VERIFYING_KEYS": "VERIFYING_KEYS_FILE=" + filepath.Join(keys, keyring.VerifyingFile),
	}
	s := &system{processes: map[string]*e2e.Process{}, env: map[string][]string{}, earlierLogs: map[string]string{}}
	for _, f := range catalog.Functions() {
		if !slices.Contains(names, f.Name) {
			continue
		}
		env := append([]string{"HASH_MEMORY_KIB=1024", "HASH_TESTING=on", "RATE_LIMIT=off"}, more...) // the tests send many requests from one address
		for name, sample := range needs.Of(f).Samples() {
			env = append(env, cmp.Or(value[name], name+"="+sample))
		}
		s.env[f.Name] = env
		s.processes[f.Name] = e2e.Start(t, f.Name, env...)
	}
	runMigrate(t, uri)
	return s
}

// restart starts a function again, on another port. It stores the log of the earlier process.
func (s *system) restart(t testing.TB, name string) {
	next := e2e.Start(t, name, s.env[name]...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if previous := s.processes[name]; previous != nil {
		s.earlierLogs[name] += previous.Logs()
	}
	s.processes[name] = next
}

// url returns the URL of the current process of a function.
func (s *system) url(function string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.processes[function].URL
}

// logs returns the log of each function since the start of the system.
func (s *system) logs() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]string{}
	for name, p := range s.processes {
		all[name] = s.earlierLogs[name] + p.Logs()
	}
	return all
}

func (s *system) post(t testing.TB, function, bearer, body string) (int, http.Header, string) {
	t.Helper()
	status, header, answer, err := e2e.Call(t.Context(), http.MethodPost, s.processes[function].URL+"/api/users/"+function, bearer, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, header, answer
}

func (s *system) currentUser(t *testing.T, bearer string) (int, http.Header, string) {
	t.Helper()
	status, header, answer, err := e2e.Call(t.Context(), http.MethodGet, s.processes["currentuser"].URL+"/api/users/currentuser", bearer, "")
	if err != nil {
		t.Fatal(err)
	}
	return status, header, answer
}

func credentials(email string) string {
	return `{"email":"` + email + `","password":"correct horse battery staple"}`
}

func TestSignout_EveryFunctionRejectsSession(t *testing.T) {
	t.Parallel()
	s := start(t, mongotest.URI(t))
	status, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	if status != http.StatusCreated {
		t.Fatalf("sign-up: got %d %s, want 201", status, body)
	}
	tokens := parseTokens(t, body)
	if status, _, body := s.currentUser(t, tokens.Token); status != http.StatusOK || !strings.Contains(body, "ann@example.com") {
		t.Fatalf("currentuser: got %d %s, want 200 and the email", status, body)
	}
	if status, _, body := s.post(t, "signout", tokens.Token, ""); status != http.StatusOK {
		t.Fatalf("sign-out: got %d %s, want 200", status, body)
	}
	if status, _, body := s.currentUser(t, tokens.Token); status != http.StatusUnauthorized {
		t.Errorf("currentuser: got %d %s, want 401", status, body)
	}
	if status, _, body := s.post(t, "refresh", "", `{"refreshToken":"`+tokens.RefreshToken+`"}`); status != http.StatusUnauthorized {
		t.Errorf("refresh: got %d %s, want 401", status, body)
	}
	if status, _, body := s.post(t, "signout", tokens.Token, ""); status != http.StatusOK {
		t.Errorf("repeated signout: got %d %s, want 200", status, body)
	}
	if status, _, body := s.post(t, "signin", "", credentials("ann@example.com")); status != http.StatusOK {
		t.Errorf("signin: got %d %s, want 200", status, body)
	}
}

func TestSIGTERM_FinishesRequestInFlight(t *testing.T) {
	s := start(t, mongotest.URI(t), "HASH_MEMORY_KIB=65536", "HASH_TIME=8") // the hash takes long enough to be in progress at the signal
	signup := s.processes["signup"]
	response := make(chan string, 1)
	go func() {
		status, _, body, err := e2e.Call(t.Context(), http.MethodPost, signup.URL+"/api/users/signup", "", credentials("ann@example.com"))
		response <- fmt.Sprint(status, body, err)
	}()
	time.Sleep(100 * time.Millisecond)
	if code := signup.Signal(syscall.SIGTERM); code != 0 {
		t.Errorf("got exit code %d, want 0: %s", code, signup.Logs())
	}
	if got := <-response; !strings.HasPrefix(got, "201") && !strings.HasPrefix(got, "503{") { // 503 if the hash exceeds the budget
		t.Errorf("sign-up in flight: got %s, want a response", got)
	}
}

// SIGKILL stops sign-up during requests. Afterwards each acknowledged user exists. Any other user
// either exists completely or does not exist.
func TestSIGKILL_NoPartialUser(t *testing.T) {
	t.Parallel()
	s := start(t, mongotest.URI(t))
	acknowledged := map[string]bool{}
	var mu sync.Mutex
	for round := range 5 {
		var group sync.WaitGroup
		for worker := range 4 {
			group.Go(func() {
				for i := 0; ; i++ {
					email := fmt.Sprintf("u%d-%d-%d@example.com", round, worker, i)
					status, _, _, err := e2e.Call(t.Context(), http.MethodPost, s.processes["signup"].URL+"/api/users/signup", "", credentials(email))
					mu.Lock()
					acknowledged[email] = status == http.StatusCreated
					mu.Unlock()
					if err != nil {
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(100+37*round) * time.Millisecond)
		s.processes["signup"].Signal(os.Kill)
		group.Wait()
		s.restart(t, "signup")
	}
	for email, created := range acknowledged {
		signin, _, _ := s.post(t, "signin", "", credentials(email))
		signup, _, body := s.post(t, "signup", "", credentials(email))
		switch {
		case signin == http.StatusOK && signup == http.StatusBadRequest: // the user exists completely
		case !created && signin == http.StatusUnauthorized && signup == http.StatusCreated: // the user does not exist
		default:
			t.Errorf("%s (acknowledged: %v): got sign-in %d, repeated sign-up %d %s; want 200 and 400, or 401 and 201 if not acknowledged", email, created, signin, signup, body)
		}
	}
	t.Logf("%d sign-ups", len(acknowledged))
}

func TestDatabase_UnavailableAndBack(t *testing.T) {
	t.Parallel()
	server := mongotest.Server(t)
	s := start(t, server.URI())
	_, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	tokens := parseTokens(t, body)
	server.Kill()
	calls := map[string]func() (int, http.Header, string){
		"signup":      func() (int, http.Header, string) { return s.post(t, "signup", "", credentials("bob@example.com")) },
		"signin":      func() (int, http.Header, string) { return s.post(t, "signin", "", credentials("ann@example.com")) },
		"signout":     func() (int, http.Header, string) { return s.post(t, "signout", tokens.Token, "") },
		"currentuser": func() (int, http.Header, string) { return s.currentUser(t, tokens.Token) },
		"refresh": func() (int, http.Header, string) {
			return s.post(t, "refresh", "", `{"refreshToken":"`+tokens.RefreshToken+`"}`)
		},
	}
	var group sync.WaitGroup
	for name, call := range calls {
		group.Go(func() {
			status, header, body := call()
			if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" ||
				body != `{"errors":[{"message":"The service is unavailable. Try again shortly."}]}` {
				t.Errorf("%s: got %d %v %s, want 503 with Retry-After and the error body", name, status, header, body)
			}
		})
	}
	group.Wait()
	status, _, _, err := e2e.Call(t.Context(), http.MethodGet, s.processes["currentuser"].URL+"/health/readiness", "", "")
	if err != nil || status != http.StatusOK {
		t.Errorf("readiness without a database: got %d %v, want 200", status, err)
	}
	server.Start()
	for _, name := range []string{"currentuser", "refresh", "signin", "signup", "signout"} {
		if status, _, body := calls[name](); status != http.StatusOK && status != http.StatusCreated {
			t.Errorf("%s after the restart of the database: got %d %s, want 200 or 201", name, status, body)
		}
	}
}

// A tokenPair is the access token and the refresh token of a response.
type tokenPair struct{ Token, RefreshToken string }

// parseTokens returns the tokens of a response body.
func parseTokens(t testing.TB, body string) (tokens tokenPair) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &tokens); err != nil || tokens.Token == "" {
		t.Fatalf("got body %s, want tokens: %v", body, err)
	}
	return tokens
}
