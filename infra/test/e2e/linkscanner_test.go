package e2e_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/infra/test/e2e"
)

// Mail providers and chat programs follow the links of a mail. No such request confirms anything: the
// email stays unverified, and the token still works for the user.
func TestLocalRunner_LinkScanners(t *testing.T) {
	url, interrupt := e2e.StartLocal(t, filepath.Join(t.TempDir(), "data"))
	defer interrupt()
	post := func(path, body string) (int, string) {
		t.Helper()
		status, _, answer, err := e2e.Call(t.Context(), http.MethodPost, url+"/api/users/"+path, "", body)
		if err != nil {
			t.Fatal(err)
		}
		return status, answer
	}
	status, body := post("signup", credentials("ann@example.com"))
	var grant struct{ Token string }
	if err := json.Unmarshal([]byte(body), &grant); err != nil || status != http.StatusCreated {
		t.Fatalf("sign-up: got %d %s", status, body)
	}
	var token string
	for end := time.Now().Add(time.Minute); token == "" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, _, mails, err := e2e.Call(t.Context(), http.MethodGet, url+"/mail?format=json", "", "")
		if m := regexp.MustCompile(`/confirm/verification#([A-Za-z0-9_-]+)`).FindStringSubmatch(mails); err == nil && m != nil {
			token = m[1]
		}
	}
	const page, api = "/confirm/verification", "/api/users/verification/confirm"
	for name, c := range map[string]struct {
		method, path string
		header       http.Header
	}{
		"a browser":                         {http.MethodGet, page, nil},
		"a browser with cookies":            {http.MethodGet, page, http.Header{"Cookie": {"__Host-device=AAAAAAAAAAAAAAAAAAAAAA"}}},
		"a scanner that sends HEAD":         {http.MethodHead, page, nil},
		"a prefetch":                        {http.MethodGet, page, http.Header{"Purpose": {"prefetch"}, "Sec-Purpose": {"prefetch"}}},
		"a prerender":                       {http.MethodGet, page, http.Header{"Sec-Purpose": {"prefetch;prerender"}}},
		"a scanner of a mail provider":      {http.MethodGet, page, http.Header{"User-Agent": {"Mozilla/5.0 (compatible; SafeLinks)"}}},
		"a chat program":                    {http.MethodGet, page, http.Header{"User-Agent": {"Slackbot-LinkExpanding 1.0"}}},
		"a scanner that sends OPTIONS":      {http.MethodOptions, page, nil},
		"a fragment in the path":            {http.MethodGet, page + "%23" + token, nil},
		"the token in the query":            {http.MethodGet, page + "?token=" + token, nil},
		"a GET of the API":                  {http.MethodGet, api + "?token=" + token, nil},
		"a GET of the API with the session": {http.MethodGet, api + "?token=" + token, http.Header{"Authorization": {"Bearer " + grant.Token}}},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = c.header.Clone()
		if r.Header == nil {
			r.Header = http.Header{}
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		_, _, account, err := e2e.Call(t.Context(), http.MethodGet, url+"/api/users/account", grant.Token, "")
		if err != nil || !strings.Contains(account, `"emailVerified":false`) {
			t.Errorf("%s (%d): got the account %s %v, want an unverified email", name, response.StatusCode, account, err)
		}
	}
	if status, body := post("verification/confirm", `{"token":"`+token+`"}`); status != http.StatusOK {
		t.Errorf("the user: got %d %s, want 200", status, body)
	}
}
