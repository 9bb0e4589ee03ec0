package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"ticketing.com/auth/infra/test/e2e"
	"ticketing.com/auth/shared/testing/mongotest"
)

// A Secret that was created with echo ends with a line feed.
func TestSettings_WhiteSpaceAroundValues(t *testing.T) {
	uri := mongotest.URI(t)
	s := start(t, uri)
	var env []string
	for _, setting := range s.env["signup"] {
		name, value, _ := strings.Cut(setting, "=")
		env = append(env, name+"= \t"+value+" \r\n")
	}
	p := e2e.Start(t, "signup", env...)
	status, _, body, err := e2e.Call(t.Context(), http.MethodPost, p.URL+"/api/users/signup", "", credentials("ann@example.com"))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("signup: got %d %s %v, want 201", status, body, err)
	}
	if status, _, body := s.post(t, "signin", "", credentials("ann@example.com")); status != http.StatusOK {
		t.Errorf("signin: got %d %s, want 200 from the same database", status, body)
	}
	runMigrate(t, uri+"\n")
}

func TestSettings_WhiteSpaceAloneIsNotSet(t *testing.T) {
	if code, stderr := e2e.MustFail(t, []string{"MONGODB_URI=\n", "VERIFYING_KEYS= ", "VERIFYING_KEYS_FILE=\r\n"}, "currentuser"); code != 2 ||
		stderr != "currentuser cannot start:\n  VERIFYING_KEYS (or VERIFYING_KEYS_FILE) is not set\n  MONGODB_URI is not set\n" {
		t.Errorf("got exit code %d, stderr %q; want 2 and the problems", code, stderr)
	}
	_, interrupt := e2e.StartLocal(t, t.TempDir(), "MONGODB_URI= \n", "SIGNING_KEYS=\n", "VERIFYING_KEYS_FILE= ")
	interrupt()
}

func TestSettings_ControlCharacters(t *testing.T) {
	code, stderr := e2e.MustFail(t, []string{"MONGODB_URI=mongodb://ann:hunter2@127.0.0.1/us\ners"}, "migrate")
	if code != 2 || stderr != "migrate cannot start:\n  MONGODB_URI must not contain control or invisible characters\n" {
		t.Errorf("got exit code %d, stderr %q; want 2 and the problems", code, stderr)
	}
}
