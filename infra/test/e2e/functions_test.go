package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/generate/settings"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// secrets are the settings each function needs: those of its role and no other.
var requiredSettings = map[string][]string{
	"signup":      {"MONGODB_URI", "SIGNING_KEYS"},
	"signin":      {"MONGODB_URI", "SIGNING_KEYS"},
	"refresh":     {"MONGODB_URI", "SIGNING_KEYS"},
	"signout":     {"MONGODB_URI", "VERIFYING_KEYS"},
	"currentuser": {"MONGODB_URI", "VERIFYING_KEYS"},
	"jwks":        {"VERIFYING_KEYS"},
	"relay":       {"MONGODB_URI", "K_SINK", "EVENTS"},
}

func TestAFunctionNeedsTheSettingsOfItsRoleAndNoOther(t *testing.T) {
	for _, f := range catalog.Functions() {
		if asked, err := settings.Of(f); err != nil || len(asked.Required) == 0 && requiredSettings[f.Name] == nil {
			continue // it starts with nothing
		}
		code, stderr := e2e.MustFail(t, nil, f.Name)
		var needs []string
		for _, name := range []string{"MONGODB_URI", "SIGNING_KEYS", "VERIFYING_KEYS", "K_SINK", "EVENTS"} {
			if strings.Contains(stderr, "  "+name+" ") {
				needs = append(needs, name)
			}
		}
		if code != 2 || !slices.Equal(needs, requiredSettings[f.Name]) || strings.Count(stderr, "\n") != 1+len(needs) {
			t.Errorf("%s needs %v; exit code %d:\n%s", f.Name, needs, code, stderr)
		}
	}
}

// system is every function as a process of its own, on one database.
type system struct {
	processes map[string]*e2e.Process
	env       map[string][]string

	mu          sync.Mutex // held where functions are restarted while others call them
	earlierLogs map[string]string
}

func start(t testing.TB, uri string, more ...string) *system {
	t.Helper()
	keys := t.TempDir()
	if err := keyring.Create(keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	value := map[string]string{
		"MONGODB_URI":    "MONGODB_URI=" + uri,
		"SIGNING_KEYS":   "SIGNING_KEYS_FILE=" + filepath.Join(keys, keyring.SigningFile),
		"VERIFYING_KEYS": "VERIFYING_KEYS_FILE=" + filepath.Join(keys, keyring.VerifyingFile),
	}
	s := &system{processes: map[string]*e2e.Process{}, env: map[string][]string{}, earlierLogs: map[string]string{}}
	for name, needs := range requiredSettings {
		if name == "relay" {
			continue // it is woken where there are events
		}
		env := append([]string{"HASH_MEMORY_KIB=1024", "HASH_TESTING=on", "RATE_LIMIT=off"}, more...) // much comes from one address here
		for _, n := range needs {
			env = append(env, value[n])
		}
		s.env[name] = env
		s.processes[name] = e2e.Start(t, name, env...)
	}
	runMigrate(t, uri)
	return s
}

// restart starts a function again, at another address. What the one before has logged
// is kept.
func (s *system) restart(t testing.TB, name string) {
	next := e2e.Start(t, name, s.env[name]...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.processes[name]; last != nil {
		s.earlierLogs[name] += last.Logs()
	}
	s.processes[name] = next
}

// url is where a function is now.
func (s *system) url(function string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.processes[function].URL
}

// logs are what every function has logged since the start of the system.
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

func TestASignOutIsSeenByEveryFunctionAtOnce(t *testing.T) {
	s := start(t, mongotest.URI(t))
	status, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	if status != http.StatusCreated {
		t.Fatal(status, body)
	}
	g := parseTokens(t, body)
	if status, _, body := s.currentUser(t, g.Token); status != http.StatusOK || !strings.Contains(body, "ann@example.com") {
		t.Fatal(status, body)
	}
	if status, _, body := s.post(t, "signout", g.Token, ""); status != http.StatusOK {
		t.Fatal(status, body)
	}
	if status, _, body := s.currentUser(t, g.Token); status != http.StatusUnauthorized {
		t.Error("currentuser:", status, body)
	}
	if status, _, body := s.post(t, "refresh", "", `{"refreshToken":"`+g.RefreshToken+`"}`); status != http.StatusUnauthorized {
		t.Error("refresh:", status, body)
	}
	if status, _, body := s.post(t, "signout", g.Token, ""); status != http.StatusOK {
		t.Error("signout again:", status, body)
	}
	if status, _, body := s.post(t, "signin", "", credentials("ann@example.com")); status != http.StatusOK {
		t.Error("signin:", status, body)
	}
}

func TestSIGTERMFinishesWhatHasBegun(t *testing.T) {
	s := start(t, mongotest.URI(t), "HASH_MEMORY_KIB=65536", "HASH_TIME=8") // long enough to be caught in the middle
	signup := s.processes["signup"]
	answered := make(chan string, 1)
	go func() {
		status, _, body, err := e2e.Call(t.Context(), http.MethodPost, signup.URL+"/api/users/signup", "", credentials("ann@example.com"))
		answered <- fmt.Sprint(status, body, err)
	}()
	time.Sleep(100 * time.Millisecond)
	if code := signup.Signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d: %s", code, signup.Logs())
	}
	if got := <-answered; !strings.HasPrefix(got, "201") {
		t.Errorf("the sign-up that had begun: %s", got)
	}
}

// A function may be killed at any moment: what was acknowledged is there, and
// what was not is there whole or not at all.
func TestSIGKILLBetweenWritesLeavesNoHalfUser(t *testing.T) {
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
	for email, told := range acknowledged {
		signin, _, _ := s.post(t, "signin", "", credentials(email))
		signup, _, body := s.post(t, "signup", "", credentials(email))
		switch {
		case signin == http.StatusOK && signup == http.StatusBadRequest: // there, whole
		case !told && signin == http.StatusUnauthorized && signup == http.StatusCreated: // never there
		default:
			t.Errorf("%s (acknowledged: %v): sign-in %d, sign-up again %d %s", email, told, signin, signup, body)
		}
	}
	t.Logf("%d sign-ups", len(acknowledged))
}

func TestADatabaseThatIsAwayGives503UntilItIsBack(t *testing.T) {
	server := mongotest.Server(t)
	s := start(t, server.URI())
	_, _, body := s.post(t, "signup", "", credentials("ann@example.com"))
	g := parseTokens(t, body)
	server.Kill()
	calls := map[string]func() (int, http.Header, string){
		"signup":      func() (int, http.Header, string) { return s.post(t, "signup", "", credentials("bob@example.com")) },
		"signin":      func() (int, http.Header, string) { return s.post(t, "signin", "", credentials("ann@example.com")) },
		"signout":     func() (int, http.Header, string) { return s.post(t, "signout", g.Token, "") },
		"currentuser": func() (int, http.Header, string) { return s.currentUser(t, g.Token) },
		"refresh": func() (int, http.Header, string) {
			return s.post(t, "refresh", "", `{"refreshToken":"`+g.RefreshToken+`"}`)
		},
	}
	var group sync.WaitGroup
	for name, call := range calls {
		group.Go(func() {
			status, header, body := call()
			if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" ||
				body != `{"errors":[{"message":"The service is unavailable. Try again shortly."}]}` {
				t.Errorf("%s: %d %v %s", name, status, header, body)
			}
		})
	}
	group.Wait()
	status, _, _, err := e2e.Call(t.Context(), http.MethodGet, s.processes["currentuser"].URL+"/health/readiness", "", "")
	if err != nil || status != http.StatusOK {
		t.Errorf("readiness asks the database: %d %v", status, err)
	}
	server.Start()
	for _, name := range []string{"currentuser", "refresh", "signin", "signup", "signout"} {
		if status, _, body := calls[name](); status != http.StatusOK && status != http.StatusCreated {
			t.Errorf("%s after the database came back: %d %s", name, status, body)
		}
	}
}

type tokenPair struct{ Token, RefreshToken string }

func parseTokens(t testing.TB, body string) (g tokenPair) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &g); err != nil || g.Token == "" {
		t.Fatalf("%s: %v", body, err)
	}
	return g
}
