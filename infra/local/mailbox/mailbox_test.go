package mailbox_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/smtp"
	"net/url"
	"strings"
	"testing"

	"ticketing.com/auth/infra/local/mailbox"
	"ticketing.com/auth/shared/mail"
)

func start(t *testing.T) *mailbox.Box {
	t.Helper()
	b, err := mailbox.Start("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	return b
}

// send sends a mail as a program with SMTP_URL does.
func send(t *testing.T, b *mailbox.Box, mail string) error {
	t.Helper()
	u, err := url.Parse(b.URL())
	if err != nil || u.Scheme != "smtp" || u.RawQuery != "tls=none" {
		t.Fatalf("got the URL %s, want smtp://…?tls=none", b.URL())
	}
	return smtp.SendMail(u.Host, nil, "bounces@ticketing.example", []string{"ann@example.com"}, []byte(strings.ReplaceAll(mail, "\n", "\r\n")))
}

const multipart = `From: Ticketing <no-reply@ticketing.example>
To: ann@example.com
Subject: =?UTF-8?q?Best=C3=A4tigen?=
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=x

--x
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

Gr=C3=BC=C3=9Fe, code 123456
http://127.0.0.1:8080/confirm/verification#dG9=
rZW4
--x
Content-Type: text/html; charset=UTF-8
Content-Transfer-Encoding: base64

PHA+PGEgaHJlZj0iaHR0cDovLzEyNy4wLjAuMTo4MDgwL2NvbmZpcm0vdmVyaWZpY2F0aW9uI2RH
OXJaVzQiPkNvbmZpcm08L2E+PC9wPg==
--x--
`

// body returns a mail of plain text.
func plain(subject, text string) string {
	return "From: a@ticketing.example\nSubject: " + subject + "\n\n" + text + "\n"
}

func TestBox_CatchesMails(t *testing.T) {
	b := start(t)
	for _, mail := range []string{plain("First", "One."), multipart, "Subject: Without a sender\n\nThree.\n"} {
		if err := send(t, b, mail); err != nil {
			t.Fatal(err)
		}
	}
	got := b.Mails()
	want := []mailbox.Mail{
		{ID: 3, From: "bounces@ticketing.example", To: "ann@example.com", Subject: "Without a sender", Text: "Three.\n"},
		{ID: 2, From: "Ticketing <no-reply@ticketing.example>", To: "ann@example.com", Subject: "Bestätigen", Text: "Grüße, code 123456\nhttp://127.0.0.1:8080/confirm/verification#dG9rZW4",
			HTML: `<p><a href="http://127.0.0.1:8080/confirm/verification#dG9rZW4">Confirm</a></p>`},
		{ID: 1, From: "a@ticketing.example", To: "ann@example.com", Subject: "First", Text: "One.\n"},
	}
	if len(got) != len(want) {
		t.Fatalf("got the mails %+v, want %+v", got, want)
	}
	for i := range want {
		if want[i].At = got[i].At; got[i] != want[i] || got[i].At.IsZero() {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}

func TestBox_RejectsMails(t *testing.T) {
	b := start(t)
	nested := "Subject: x\nContent-Type: multipart/mixed; boundary=b0\n\n"
	for i := range 9 {
		nested += fmt.Sprintf("--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n", i, i+1)
	}
	for name, mail := range map[string]string{
		"no header":         "x\n",
		"no boundary":       "Subject: x\nContent-Type: multipart/alternative\n\n--x\n\nx\n",
		"an incomplete end": strings.TrimSuffix(multipart, "--x--\n"),
		"invalid base64":    "Subject: x\nContent-Transfer-Encoding: base64\n\n%%%\n",
		"deep nesting":      nested,
		"more than 1 MiB":   plain("Large", strings.Repeat(strings.Repeat("x", 70)+"\n", 16000)),
	} {
		if err := send(t, b, mail); err == nil {
			t.Errorf("%s: the mail was accepted", name)
		}
	}
	if got := b.Mails(); len(got) != 0 {
		t.Errorf("got the mails %+v, want none", got)
	}
}

// The box stores the last 100 mails.
func TestBox_Limit(t *testing.T) {
	b := start(t)
	for i := range 103 {
		if err := send(t, b, plain(fmt.Sprint("Number ", i+1), "x")); err != nil {
			t.Fatal(err)
		}
	}
	got := b.Mails()
	if len(got) != 100 || got[0].Subject != "Number 103" || got[99].Subject != "Number 4" {
		t.Errorf("got %d mails from %q to %q, want 100 from Number 103 to Number 4", len(got), got[0].Subject, got[len(got)-1].Subject)
	}
}

var templates, _ = mail.New("https://tickets.example", "")

// The page of the templates shows each mail in each language, without a mail in the box.
func TestPage_Templates(t *testing.T) {
	for _, b := range []*mailbox.Box{start(t), nil} {
		r, body := request(b, http.MethodGet, mailbox.TemplatesPath)
		if n := strings.Count(body, "<iframe "); r.StatusCode != http.StatusOK || n != len(mail.Names())*len(templates.Languages()) || n < 35 {
			t.Errorf("got %d and %d mails, want 200 and each of %v in each of %v", r.StatusCode, n, mail.Names(), templates.Languages())
		}
		for _, name := range mail.Names() {
			for _, language := range templates.Languages() {
				path := mailbox.TemplatesPath + "/" + language + "/" + string(name)
				if r, frame := request(b, http.MethodGet, path); r.StatusCode != http.StatusOK || !strings.Contains(body, `src="`+path+`"`) || !strings.Contains(frame, "tickets.example") ||
					!strings.Contains(r.Header.Get("Content-Security-Policy"), "sandbox") {
					t.Errorf("%s: got %d %v %s, want the mail in a sandbox", path, r.StatusCode, r.Header, frame)
				}
			}
		}
		for _, path := range []string{"/xx/recovery", "/en/unknown", "/en", "/en/recovery/", "/../1"} {
			if r, _ := request(b, http.MethodGet, mailbox.TemplatesPath+path); r.StatusCode != http.StatusNotFound {
				t.Errorf("%s: got %d, want 404", path, r.StatusCode)
			}
		}
	}
}

// next answers the requests that are not for the page.
var next = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })

func request(b *mailbox.Box, method, target string, header ...string) (*http.Response, string) {
	r := httptest.NewRequest(method, "http://127.0.0.1:8080"+target, nil)
	for i := 0; i < len(header); i += 2 {
		if r.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	w := httptest.NewRecorder()
	mailbox.Handler(b, templates, next).ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Result().Body)
	return w.Result(), string(body)
}

func TestPage(t *testing.T) {
	b := start(t)
	if r, body := request(b, "GET", "/mail"); r.StatusCode != http.StatusOK || !strings.Contains(body, "There are no mails yet.") {
		t.Errorf("got %d %s, want 200 without mails", r.StatusCode, body)
	}
	for _, mail := range []string{plain("Plain <b>", "Text </pre><script>alert(1)</script>"), multipart} {
		if err := send(t, b, mail); err != nil {
			t.Fatal(err)
		}
	}
	r, body := request(b, "GET", "/mail", "Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/html; charset=utf-8" || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("got %d %v, want 200, text/html, no-store and no-referrer", r.StatusCode, r.Header)
	}
	newest, oldest := strings.Index(body, "<h2>Bestätigen</h2>"), strings.Index(body, "<h2>Plain &lt;b&gt;</h2>")
	if newest < 0 || oldest < newest || strings.Contains(body, "<script") || strings.Contains(body, "style=") {
		t.Errorf("got the page %s, want the newest mail first, and no script", body)
	}
	if !strings.Contains(body, `<iframe src="/mail/2"`) || strings.Contains(body, `<iframe src="/mail/1"`) || !strings.Contains(body, `sandbox="allow-popups allow-popups-to-escape-sandbox"`) {
		t.Errorf("got the page %s, want one frame in a sandbox, for the HTML", body)
	}
	if policy := r.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "script-src") || strings.Contains(policy, "unsafe") {
		t.Errorf("got the policy %s, want one without scripts", policy)
	}
	r, body = request(b, "GET", "/mail/2")
	policy := r.Header.Get("Content-Security-Policy")
	if r.StatusCode != http.StatusOK || !strings.HasPrefix(body, `<base target="_blank"><p><a href=`) || !strings.Contains(policy, "; sandbox allow-popups allow-popups-to-escape-sandbox") || strings.Contains(policy, "allow-scripts") {
		t.Errorf("the HTML of a mail: got %d %s %s, want it in a sandbox", r.StatusCode, policy, body)
	}
	if r, _ = request(b, "GET", "/mail/page.css"); r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("the style sheet: got %d %v, want 200", r.StatusCode, r.Header)
	}
}

func TestPage_JSON(t *testing.T) {
	b := start(t)
	if _, body := request(b, "GET", "/mail?format=json"); body != `{"caught":true,"mails":[]}` {
		t.Errorf("without mails: got %s", body)
	}
	if err := send(t, b, multipart); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string][]string{"the query": {"/mail?format=json"}, "the header": {"/mail", "Accept", "application/json"}} {
		r, body := request(b, "GET", target[0], target[1:]...)
		var got struct {
			Mails []map[string]any `json:"mails"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || r.Header.Get("Content-Type") != "application/json" || len(got.Mails) != 1 {
			t.Fatalf("%s: got %v %s %v, want one mail as JSON", name, r.Header, body, err)
		}
		for member, want := range map[string]any{"from": "Ticketing <no-reply@ticketing.example>", "to": "ann@example.com", "subject": "Bestätigen", "text": b.Mails()[0].Text} {
			if got.Mails[0][member] != want {
				t.Errorf("%s: got %s %v, want %v", name, member, got.Mails[0][member], want)
			}
		}
	}
}

// With SMTP_URL the runner catches no mails.
func TestPage_MailsAreSent(t *testing.T) {
	if r, body := request(nil, "GET", "/mail"); r.StatusCode != http.StatusOK || !strings.Contains(body, "SMTP_URL is set") {
		t.Errorf("got %d %s, want 200 and a note about SMTP_URL", r.StatusCode, body)
	}
	if _, body := request(nil, "GET", "/mail?format=json"); body != `{"caught":false,"mails":[]}` {
		t.Errorf("got %s, want no mails", body)
	}
	if r, _ := request(nil, "GET", "/mail/1"); r.StatusCode != http.StatusNotFound {
		t.Errorf("a mail: got %d, want 404", r.StatusCode)
	}
}

// A page of another site cannot read the mails by a name that resolves to a loopback address.
func TestPage_OtherHosts(t *testing.T) {
	b := start(t)
	for host, want := range map[string]int{
		"127.0.0.1:8080": http.StatusOK, "localhost:8080": http.StatusOK, "LOCALHOST": http.StatusOK, "[::1]:8080": http.StatusOK, "127.1.2.3": http.StatusOK,
		"evil.example": http.StatusTeapot, "evil.example:8080": http.StatusTeapot, "localhost.evil.example": http.StatusTeapot, "127.0.0.1.evil.example:8080": http.StatusTeapot, "192.0.2.1:8080": http.StatusTeapot, "": http.StatusTeapot,
	} {
		if r, _ := request(b, "GET", "/mail", "Host", host); r.StatusCode != want {
			t.Errorf("the host %q: got %d, want %d", host, r.StatusCode, want)
		}
	}
}

func TestPage_OtherPathsAndMethods(t *testing.T) {
	b := start(t)
	for target, want := range map[string]int{"/mails": http.StatusTeapot, "/": http.StatusTeapot, "/mail/": http.StatusNotFound, "/mail/1": http.StatusNotFound, "/mail/x": http.StatusNotFound} {
		if r, _ := request(b, "GET", target); r.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, r.StatusCode, want)
		}
	}
	if r, _ := request(b, "POST", "/mail"); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: got %d %v, want 405", r.StatusCode, r.Header)
	}
}
