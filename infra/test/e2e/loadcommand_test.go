package e2e_test

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// runLoad runs infra/test/load. It returns its steps, each as the numbers of 200s per second and of the
// responses 429, 503 and others, and its output.
func runLoad(t *testing.T, args ...string) (steps [][4]float64, out string) {
	t.Helper()
	all, err := exec.CommandContext(t.Context(), e2e.Binary(t, "load"), args...).CombinedOutput()
	if err != nil && !strings.Contains(string(all), "load: ") {
		t.Fatalf("%v: %s", err, all)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +\d+ +([\d.]+) +(\d+) +(\d+) +(\d+) +0 `).FindAllStringSubmatch(string(all), -1) {
		var step [4]float64
		for i := range step {
			step[i], _ = strconv.ParseFloat(m[i+1], 64)
		}
		steps = append(steps, step)
	}
	return steps, string(all)
}

// startAllInOne starts one process that serves the public functions.
func startAllInOne(t *testing.T, settings ...string) *e2e.Process {
	t.Helper()
	keys, err := keyring.Ensure(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	uri := mongotest.URI(t)
	runMigrate(t, uri)
	return e2e.Start(t, "allinone", append([]string{"MONGODB_URI=" + uri, "SIGNING_KEYS_FILE=" + keys.Signing, "VERIFYING_KEYS_FILE=" + keys.Verifying,
		"HASH_MEMORY_KIB=1024", "HASH_TESTING=on"}, settings...)...)
}

func TestLoadCommand(t *testing.T) {
	t.Parallel()
	s := startAllInOne(t, "RATE_LIMIT=accounts")
	for _, operation := range []string{"signin", "currentuser"} {
		steps, out := runLoad(t, "-url", s.URL, "-operation", operation, "-accounts", "2", "-from", "3", "-to", "5", "-step", "3s")
		if len(steps) != 2 || steps[0][0]+steps[1][0] == 0 || !strings.Contains(out, "\nFirst refusal: none\n") {
			t.Errorf("%s: got no two steps with 200s and without a refusal:\n%s", operation, out)
		}
	}
}

// The command names what refuses: the function in an overload, here of one slot for slow hashes.
func TestLoadCommand_Overload(t *testing.T) {
	s := startAllInOne(t, "RATE_LIMIT=accounts", "HASH_MEMORY_KIB=19456", "HASH_TIME=16", "HASH_CONCURRENCY=1")
	steps, out := runLoad(t, "-url", s.URL, "-accounts", "20", "-from", "20", "-step", "2s")
	if last := len(steps) - 1; last < 0 || steps[last][2] == 0 ||
		!regexp.MustCompile(`\nFirst refusal: at \d+ requests per second, .* status 503 of the function with Retry-After: 1, "The service is busy`).MatchString(out) {
		t.Errorf("got no overload with 503:\n%s", out)
	}
}

// A rate limit ends the run before it measures anything.
func TestLoadCommand_RateLimit(t *testing.T) {
	t.Parallel()
	s := startAllInOne(t, "RATE_LIMIT=on", "RATE_LIMIT_SIGNUP=1/24h")
	steps, out := runLoad(t, "-url", s.URL, "-accounts", "3")
	if len(steps) > 0 || !regexp.MustCompile(`^load: sign up account [23]: got status 429: a rate limit applies; set RATE_LIMIT=accounts`).MatchString(out) {
		t.Errorf("got\n%s\nwant an error that names the setting", out)
	}
}

func TestLoadCommand_InvalidOptions(t *testing.T) {
	for problem, args := range map[string][]string{
		"-url must be an http or https URL":                                   {"-url", "127.0.0.1:8080"},
		"-operation must be currentuser or signin":                            {"-operation", "signup"},
		"-accounts, -from and -step must be positive, and -to at least -from": {"-from", "20", "-to", "10"},
	} {
		if code, got := e2e.MustFail(t, nil, "load", args...); code != 2 || !strings.HasPrefix(got, "load: "+problem+": run ") {
			t.Errorf("%v: got exit code %d and %q, want 2 and %q", args, code, got, problem)
		}
	}
}
