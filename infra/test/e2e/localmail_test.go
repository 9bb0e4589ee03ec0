package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/test/e2e"
)

// The local runner catches mails unless SMTP_URL is set. It shows them on loopback addresses only. It
// generates the keys of mails at its first start.
func TestLocalRunner_Mail(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	var first string
	for _, c := range []struct {
		name     string
		addr     string
		settings []string
		status   int
		want     string
	}{
		{"by default", "127.0.0.1:0", nil, http.StatusOK, `{"caught":true,"mails":[]}`},
		{"with SMTP_URL", "127.0.0.1:0", []string{"SMTP_URL=smtp://127.0.0.1:1?tls=none"}, http.StatusOK, `{"caught":false,"mails":[]}`},
		{"on all addresses", "0.0.0.0:0", []string{"INTROSPECTION_CLIENTS="}, http.StatusNotFound, `{"errors":[{"message":"There is nothing here."}]}`},
	} {
		cmd := e2e.LocalCommand(t, data, c.settings...)
		cmd.Args[2] = c.addr // behind -addr
		url, interrupt := e2e.StartCommand(t, cmd)
		url = "http://127.0.0.1" + url[strings.LastIndex(url, ":"):]
		status, header, body, err := e2e.Call(t.Context(), http.MethodGet, url+"/mail?format=json", "", "")
		if err != nil || status != c.status || body != c.want || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d %v %s %v, want %d %s", c.name, status, header, body, err, c.status, c.want)
		}
		status, _, body, err = e2e.Call(t.Context(), http.MethodGet, url+"/confirm/recovery", "", "")
		if err != nil || status != http.StatusOK || !strings.Contains(body, `data-action="/api/users/recovery/confirm"`) {
			t.Errorf("%s: the page for a recovery: got %d %s %v, want 200", c.name, status, body, err)
		}
		interrupt()
		content, err := os.ReadFile(filepath.Join(data, "keys", keyring.MailFile))
		if err != nil || len(content) == 0 || first != "" && string(content) != first {
			t.Errorf("%s: got the key file %v, want the same one at each start", c.name, err)
		}
		first = string(content)
	}
}
