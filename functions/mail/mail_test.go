package mail_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"
	"go.mongodb.org/mongo-driver/v2/bson"

	"ticketing.com/auth/functions/mail"
	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mail/journal"
	"ticketing.com/auth/shared/testing/endpointtest"
	"ticketing.com/auth/shared/testing/mongotest"
	"ticketing.com/auth/shared/testing/smtptest"
)

const (
	requested = "com.ticketing.user.mail.requested.v1"
	failed    = "com.ticketing.user.mail.failed.v1"

	address = "ann@example.com"
	userID  = "user-1"
	nonce   = "N0NCE"
)

// A fixture is the function with a mail server.
type fixture struct {
	*endpointtest.Fixture
	server *smtptest.Server
	keys   string
}

func setup(t *testing.T, settings ...string) fixture {
	t.Helper()
	return withServer(t, smtptest.Start(t, smtptest.Options{}), settings...)
}

func withServer(t *testing.T, server *smtptest.Server, settings ...string) fixture {
	t.Helper()
	keys := confirmation.NewKey()
	settings = append([]string{"EVENTS=on", "MAIL_KEYS=" + keys, "PUBLIC_URL=https://tickets.example", "MAIL_FROM=Tickets <no-reply@tickets.example>"}, settings...)
	return fixture{endpointtest.New(t, mail.Function, append(server.Settings(), settings...)...), server, keys}
}

// data returns the data of an event, with changes. A nil value removes a member.
func (f fixture) data(changes map[string]any) string {
	now := f.Clock.Now().UTC()
	members := map[string]any{
		"userId": userID, "to": address, "locale": "de-AT", "template": "recovery", "purpose": "recovery", "nonce": nonce,
		"expiresAt": now.Truncate(time.Second).Add(time.Hour), "at": now, "agent": "Chrome on macOS", "place": "203.0.113.0/24",
	}
	maps.Copy(members, changes)
	maps.DeleteFunc(members, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func notice(name string) map[string]any {
	return map[string]any{"template": name, "purpose": name, "nonce": nil, "expiresAt": nil}
}

func (f fixture) deliver(t *testing.T, id string, changes map[string]any) endpointtest.Reply {
	t.Helper()
	return f.Deliver(t, endpointtest.Binary, endpointtest.Event(id, requested, f.data(changes)))
}

// expect fails the test unless the server has accepted this many mails.
func (f fixture) expect(t *testing.T, mails int) {
	t.Helper()
	if got := len(f.server.Mails()); got != mails {
		t.Errorf("got %d mails, want %d", got, mails)
	}
}

var unavailable = endpointtest.Errors("The service is unavailable. Try again shortly.")

// subject returns the subject of the token in a mail.
func (f fixture) subject(purpose event.Purpose, to string) confirmation.Subject {
	return confirmation.Subject{User: userID, Purpose: purpose, Nonce: nonce, Expires: f.Clock.Now().Truncate(time.Second).Add(time.Hour), Email: to}
}

func TestMail_TokenAndCode(t *testing.T) {
	t.Parallel()
	for _, mode := range []endpointtest.Mode{endpointtest.Binary, endpointtest.Structured} {
		for _, purpose := range []event.Purpose{event.Verification, event.Recovery, event.EmailChange, event.EmailUndo} {
			t.Run(fmt.Sprintf("%s %s", mode, purpose), func(t *testing.T) {
				t.Parallel()
				f := setup(t)
				data := f.data(map[string]any{"template": purpose, "purpose": purpose})
				f.Deliver(t, mode, endpointtest.Event("one", requested, data)).Expect(t, http.StatusOK, "", "")
				f.expect(t, 1)
				m := f.server.Mails()[0]
				keys, err := confirmation.ParseKeys(f.keys)
				if err != nil {
					t.Fatal(err)
				}
				subject := f.subject(purpose, address)
				link := "https://tickets.example/confirm/" + string(purpose) + "#" + keys.Token(subject)
				code := keys.Code(subject)
				if m.To != address || m.Header.Get("Content-Language") != "de" {
					t.Errorf("got the recipient %s and the language %s", m.To, m.Header.Get("Content-Language"))
				}
				for form, text := range map[string]string{"text": m.Text, "HTML": m.HTML} {
					if !strings.Contains(text, link) || strings.Contains(text, code) != (purpose != event.EmailUndo) {
						t.Errorf("the %s has not the link %s, or not the code %s:\n%s", form, link, code, text)
					}
				}
				found := regexp.MustCompile(`#(\S+)`).FindStringSubmatch(m.Text)
				token, err := confirmation.Parse(found[1])
				if err != nil || !keys.Authentic(token, address) || keys.Authentic(token, "bob@example.com") {
					t.Errorf("the token of the mail is not authentic for its address alone: %v", err)
				}
			})
		}
	}
}

func TestMail_Notices(t *testing.T) {
	t.Parallel()
	f := setup(t)
	deletion := notice("deletion")
	deletion["deletesAt"] = "2026-02-01T00:00:00Z"
	for i, changes := range []map[string]any{notice("newdevice"), notice("passwordchanged"), deletion} {
		f.deliver(t, fmt.Sprint(i), changes).Expect(t, http.StatusOK, "", "")
	}
	f.expect(t, 3)
	for _, m := range f.server.Mails() {
		if strings.Contains(m.Raw, "confirm/") || strings.Contains(m.Text, "Code:") {
			t.Errorf("a notice has a link or a code:\n%s", m.Text)
		}
	}
}

func TestMail_RepeatedDelivery(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for range 3 {
		f.deliver(t, "one", nil).Expect(t, http.StatusOK, "", "")
	}
	f.expect(t, 1)
	f.deliver(t, "two", nil).Expect(t, http.StatusOK, "", "")
	f.expect(t, 2)
	ids := map[string]bool{}
	for _, m := range f.server.Mails() {
		ids[m.Header.Get("Message-Id")] = true
		if m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Date") != "Fri, 02 Jan 2026 03:04:05 +0000" {
			t.Errorf("got the headers %v", m.Header)
		}
	}
	if len(ids) != 2 {
		t.Errorf("got the ids %v, want two", ids)
	}
}

// The id of a mail depends on the event alone, so a mail program can drop a repeated mail.
func TestMail_MessageIDIsStable(t *testing.T) {
	t.Parallel()
	var ids []string
	for range 2 {
		f := setup(t)
		f.deliver(t, "one", nil)
		ids = append(ids, f.server.Mails()[0].Header.Get("Message-Id"))
	}
	if ids[0] != ids[1] || !strings.HasSuffix(ids[0], "@tickets.example>") {
		t.Errorf("got the ids %v, want the same one twice", ids)
	}
}

func TestMail_ParallelDeliveries(t *testing.T) {
	t.Parallel()
	f := setup(t)
	release := make(chan struct{})
	var entered sync.Once
	waiting := make(chan struct{})
	f.server.Behave(smtptest.Behavior{Rcpt: func(string) error {
		entered.Do(func() { close(waiting) })
		<-release
		return nil
	}})
	first := make(chan endpointtest.Reply)
	go func() { first <- f.deliver(t, "one", nil) }()
	<-waiting
	f.deliver(t, "one", nil).Expect(t, http.StatusServiceUnavailable, "", endpointtest.Errors("The service is busy. Try again shortly."))
	close(release)
	(<-first).Expect(t, http.StatusOK, "", "")
	f.deliver(t, "one", nil).Expect(t, http.StatusOK, "", "")
	f.expect(t, 1)
}

// A broker that does not wait for the answer does not interrupt the transfer.
func TestMail_DisconnectedBroker(t *testing.T) {
	t.Parallel()
	f := setup(t)
	waiting, release := make(chan struct{}), make(chan struct{})
	received := make(chan struct{})
	f.server.Behave(smtptest.Behavior{
		Rcpt: func(string) error {
			close(waiting)
			<-release
			return nil
		},
		Data: func(*gosmtp.Conn, smtptest.Mail) error { close(received); return nil },
	})
	data := f.data(nil)
	ctx, disconnect := context.WithCancel(t.Context())
	go func() {
		<-waiting
		disconnect()
	}()
	if err := f.Send(ctx, endpointtest.Event("one", requested, data)); err == nil {
		t.Fatal("the broker has received an answer, want that it disconnected before")
	}
	close(release)
	<-received
	f.server.Behave(smtptest.Behavior{})
	for reply := (endpointtest.Reply{}); reply.Status != http.StatusOK; { // until the first delivery has recorded the mail
		reply = f.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data))
	}
	f.expect(t, 1)
}

// Another process takes over the mail of a process that was killed, but not before its lease ends.
func TestMail_LeaseOfKilledProcess(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var key string
	f.server.Behave(smtptest.Behavior{Rcpt: func(string) error { return &gosmtp.SMTPError{Code: 450} }})
	f.deliver(t, "one", nil)
	f.server.Behave(smtptest.Behavior{})
	var stored struct {
		ID string `bson:"_id"`
	}
	mails := f.Collection(t).Database().Collection("mails")
	if err := mails.FindOne(t.Context(), bson.D{{Key: "result", Value: ""}}).Decode(&stored); err != nil {
		t.Fatal(err)
	}
	key = stored.ID
	until := f.Clock.Now().Add(journal.Lease)
	if _, err := mails.UpdateOne(t.Context(), bson.D{{Key: "_id", Value: key}}, bson.D{{Key: "$set", Value: bson.D{{Key: "owner", Value: "killed"}, {Key: "until", Value: until}}}}); err != nil {
		t.Fatal(err)
	}
	data := f.data(nil)
	again := func() endpointtest.Reply {
		return f.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data))
	}
	f.Clock.Advance(journal.Lease - time.Second)
	again().Expect(t, http.StatusServiceUnavailable, "", endpointtest.Errors("The service is busy. Try again shortly."))
	f.expect(t, 0)
	f.Clock.Advance(time.Second)
	again().Expect(t, http.StatusOK, "", "")
	f.expect(t, 1)
}

func TestMail_LeaseExceedsBudget(t *testing.T) {
	t.Parallel()
	const skew = 30 * time.Second // between the clocks of two processes
	for _, r := range mail.Function.Receivers {
		if r.Limit()+skew >= journal.Lease {
			t.Errorf("the time limit of %v and a skew of %v exceed the lease of %v", r.Limit(), skew, journal.Lease)
		}
	}
}

func TestMail_OutOfDate(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for id, changes := range map[string]map[string]any{
		"an expired token":  {"expiresAt": f.Clock.Now()},
		"an old notice":     {"template": "newdevice", "purpose": "newdevice", "nonce": nil, "expiresAt": nil, "at": f.Clock.Now().Add(-journal.Retention)},
		"an old long token": {"expiresAt": f.Clock.Now().Add(time.Hour), "at": f.Clock.Now().Add(-journal.Retention)},
	} {
		f.deliver(t, id, changes).Expect(t, http.StatusOK, "", "")
	}
	f.expect(t, 0)
	if n := strings.Count(f.Logs(), "mail not sent: it is out of date"); n != 3 {
		t.Errorf("got %d log lines about a mail that is out of date, want 3:\n%s", n, f.Logs())
	}
}

func TestMail_Switch(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]int{"all": 5, "none": 2, "newdevice, deletion": 4} {
		f := setup(t, "MAIL_NOTICES="+setting)
		for _, name := range []string{"newdevice", "passwordchanged", "deletion"} {
			f.deliver(t, name, notice(name)).Expect(t, http.StatusOK, "", "")
		}
		f.deliver(t, "undo", map[string]any{"template": "undo", "purpose": "undo"}).Expect(t, http.StatusOK, "", "")
		f.deliver(t, "recovery", nil).Expect(t, http.StatusOK, "", "") // no notice: always sent
		f.expect(t, want)
	}
}

// The limit per recipient and purpose. A flood of one kind of mail does not affect another kind.
func TestMail_Limit(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for i := range 10 {
		f.deliver(t, fmt.Sprint(i), nil).Expect(t, http.StatusOK, "", "")
	}
	f.expect(t, 3)
	for range 2 { // a repeated delivery has the same outcome
		f.deliver(t, "9", nil).Expect(t, http.StatusOK, "", "")
	}
	f.deliver(t, "upper case", map[string]any{"to": "ANN@example.com"}).Expect(t, http.StatusOK, "", "")
	f.expect(t, 3)
	f.deliver(t, "notice", notice("passwordchanged")).Expect(t, http.StatusOK, "", "")
	f.deliver(t, "other", map[string]any{"to": "bob@example.com"}).Expect(t, http.StatusOK, "", "")
	f.expect(t, 5)
	if !strings.Contains(f.Logs(), `"mail not sent","user":"user-1","purpose":"recovery","result":"limited","error":null`) {
		t.Errorf("the limit is not logged:\n%s", f.Logs())
	}
	f.Clock.Advance(time.Hour)
	f.deliver(t, "later", nil).Expect(t, http.StatusOK, "", "")
	f.expect(t, 6)
}

// An attempt that fails counts once, however often the broker repeats it.
func TestMail_LimitCountsNoRetries(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.server.Behave(smtptest.Behavior{Rcpt: func(string) error { return &gosmtp.SMTPError{Code: 450} }})
	data := f.data(nil)
	for range 6 {
		f.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data)).Expect(t, http.StatusServiceUnavailable, "", unavailable)
	}
	f.server.Behave(smtptest.Behavior{})
	f.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data)).Expect(t, http.StatusOK, "", "")
	f.expect(t, 1)
}

func smtpError(code int, enhanced gosmtp.EnhancedCode) func(string) error {
	return func(string) error {
		return &gosmtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: "rejected <" + address + ">"}
	}
}

// What the broker receives for each failure of the mail server, and whether a later delivery
// succeeds when the server is repaired.
func TestMail_ServerFailures(t *testing.T) {
	t.Parallel()
	final := func(reason string) string {
		return `{"userId":"` + userID + `","purpose":"recovery","reason":"` + reason + `"}`
	}
	for name, c := range map[string]struct {
		options smtptest.Options
		fail    func(*smtptest.Server)
		status  int
		reply   string // the data of the reply event
		level   string
	}{
		"a temporary failure at RCPT": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: smtpError(450, gosmtp.EnhancedCode{4, 2, 0})})
		}, status: 503, level: "WARN"},
		"an unknown mailbox": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: smtpError(550, gosmtp.EnhancedCode{5, 1, 1})})
		}, status: 200, reply: final("address"), level: "WARN"},
		"a rejection at RCPT": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: smtpError(554, gosmtp.EnhancedCode{5, 7, 1})})
		}, status: 200, reply: final("refused"), level: "WARN"},
		"a rejection after DATA": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Data: func(*gosmtp.Conn, smtptest.Mail) error { return smtpError(554, gosmtp.EnhancedCode{5, 7, 1})("") }})
		}, status: 200, reply: final("refused"), level: "WARN"},
		"a temporary failure after DATA": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Data: func(*gosmtp.Conn, smtptest.Mail) error { return smtpError(451, gosmtp.EnhancedCode{4, 7, 1})("") }})
		}, status: 503, level: "WARN"},
		"a connection closed inside DATA": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{InData: func(c *gosmtp.Conn, r io.Reader) bool { r.Read(make([]byte, 10)); c.Conn().Close(); return true }})
		}, status: 503, level: "WARN"},
		"a wrong password": {fail: func(s *smtptest.Server) { s.Require("sender", "changed") }, status: 503, level: "ERROR"},
		"a rejected session": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Connect: func() error { return smtpError(554, gosmtp.EnhancedCode{5, 3, 2})("") }})
		}, status: 503, level: "ERROR"},
		"a rejected sender": {fail: func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Mail: smtpError(550, gosmtp.EnhancedCode{5, 7, 1})})
		}, status: 503, level: "ERROR"},
		"no STARTTLS":                   {options: smtptest.Options{NoTLS: true}, status: 503, level: "ERROR"},
		"a certificate of another host": {options: smtptest.Options{Certificate: "other.example"}, status: 503, level: "ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := smtptest.Start(t, c.options)
			server.Require("sender", "smtp-password")
			f := withServer(t, server)
			if c.fail != nil {
				c.fail(server)
			}
			data := f.data(nil)
			deliver := func() endpointtest.Reply {
				return f.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data))
			}
			for range 2 { // a repeated delivery has the same outcome
				if c.status == http.StatusOK {
					deliver().Expect(t, c.status, failed, c.reply)
				} else {
					deliver().Expect(t, c.status, "", unavailable)
				}
			}
			f.expect(t, 0)
			if !strings.Contains(f.Logs(), `"level":"`+c.level+`"`) || c.level == "WARN" && strings.Contains(f.Logs(), `"level":"ERROR"`) {
				t.Errorf("want log lines of the level %s at most:\n%s", c.level, f.Logs())
			}
			if c.status == http.StatusOK && !regexp.MustCompile(`"mail not sent".*"error":"the mail server answers 55\d 5`).MatchString(f.Logs()) {
				t.Errorf("want the reply code in a log line:\n%s", f.Logs())
			}
			for _, secret := range []string{address, "smtp-password", "rejected"} {
				if strings.Contains(f.Logs(), secret) {
					t.Errorf("a log line has %q:\n%s", secret, f.Logs())
				}
			}
			server.Behave(smtptest.Behavior{})
			server.Require("sender", "smtp-password")
			if c.status != http.StatusOK && c.options == (smtptest.Options{}) {
				deliver().Expect(t, http.StatusOK, "", "")
				f.expect(t, 1)
			}
		})
	}
}

// A server that hangs costs the broker no more than the time limit of the function.
func TestMail_HangingServer(t *testing.T) {
	// Not parallel: the second delivery has 500 ms.
	f := setup(t)
	short := mail.Function
	short.Receivers = slices.Clone(short.Receivers)
	short.Receivers[0].Budget = 500 * time.Millisecond
	b := fixture{endpointtest.New(t, short, append(f.server.Settings(), "EVENTS=on", "MAIL_KEYS="+f.keys)...), f.server, f.keys}
	f.server.Behave(smtptest.Behavior{Rcpt: func(string) error { f.server.Hang(); return nil }})
	began := time.Now()
	data := b.data(nil)
	b.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data)).Expect(t, http.StatusServiceUnavailable, "", unavailable)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the answer took %v, want about 0.5 s", took)
	}
	f.server.Behave(smtptest.Behavior{})
	b.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data)).Expect(t, http.StatusOK, "", "")
	b.expect(t, 1)
}

// A mail server that takes each mail and never answers gets a mail five times at most.
func TestMail_UnansweredTransfers(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var transfers atomic.Int32
	f.server.Behave(smtptest.Behavior{Data: func(c *gosmtp.Conn, _ smtptest.Mail) error {
		transfers.Add(1)
		c.Conn().Close()
		return io.EOF
	}})
	data := f.data(nil)
	deliver := func() endpointtest.Reply {
		return f.Deliver(t, endpointtest.Binary, endpointtest.Event("one", requested, data))
	}
	for range 4 {
		deliver().Expect(t, http.StatusServiceUnavailable, "", unavailable)
	}
	for range 2 {
		deliver().Expect(t, http.StatusOK, "", "")
	}
	if n := transfers.Load(); n != 5 {
		t.Errorf("the mail was transferred %d times, want 5", n)
	}
	if n := strings.Count(f.Logs(), "the mail counts as sent"); n != 1 {
		t.Errorf("%d log lines say that the mail counts as sent, want 1:\n%s", n, f.Logs())
	}
}

func TestMail_BadAddress(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for i, to := range []string{"", "ann", "ann@localhost", "ann@example.com\r\nBcc: bob@example.com", "ann@example.com, bob@example.com", "Ann <ann@example.com>", "<ann@example.com>", `"ann"@example.com`, strings.Repeat("a", 300) + "@example.com"} {
		f.deliver(t, fmt.Sprint(i), map[string]any{"to": to}).Expect(t, http.StatusOK, failed, `{"userId":"user-1","purpose":"recovery","reason":"address"}`)
	}
	f.expect(t, 0)
	if strings.Contains(f.Logs(), "ann") {
		t.Errorf("a log line has an address:\n%s", f.Logs())
	}
}

func TestMail_InvalidEvent(t *testing.T) {
	t.Parallel()
	f := setup(t)
	field := endpointtest.FieldError
	for name, c := range map[string]struct {
		changes map[string]any
		want    string
	}{
		"no user":                       {map[string]any{"userId": ""}, field("userId", "userId must not be empty.")},
		"no time":                       {map[string]any{"at": nil}, field("at", "at is missing.")},
		"an unknown template":           {map[string]any{"template": "../../etc/passwd"}, "*"},
		"an unknown purpose":            {map[string]any{"purpose": "login"}, field("purpose", "purpose must be a purpose of the template.")},
		"a template without a token":    {map[string]any{"template": "newdevice"}, field("purpose", "purpose must be a purpose of the template.")},
		"a token without a nonce":       {map[string]any{"nonce": nil}, field("nonce", "nonce is missing.")},
		"a token that never expires":    {map[string]any{"expiresAt": nil}, field("expiresAt", "expiresAt is missing.")},
		"a time that is no time":        {map[string]any{"at": "yesterday"}, "*"},
		"a recipient that is no string": {map[string]any{"to": []string{address}}, field("to", "to must be a string.")},
	} {
		r := f.deliver(t, name, c.changes)
		if c.want == "*" {
			c.want = r.JSON
		}
		r.Expect(t, http.StatusBadRequest, "", c.want)
	}
	f.expect(t, 0)
}

// The function can be the sink of other functions: it ignores events that it does not know.
func TestMail_AsSink(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.Deliver(t, endpointtest.Binary, endpointtest.Event("one", "com.ticketing.user.signedup.v1", `{}`)).Expect(t, http.StatusOK, "", "")
	f.expect(t, 0)
}

// Texts from a client add no header and no link to a mail.
func TestMail_HeaderInjection(t *testing.T) {
	t.Parallel()
	f := setup(t)
	hostile := "x\r\nBcc: bob@example.com\r\n\r\n<a href=\"https://evil.example\">"
	f.deliver(t, "one", map[string]any{"agent": hostile, "place": hostile, "locale": hostile}).Expect(t, http.StatusOK, "", "")
	f.expect(t, 1)
	m := f.server.Mails()[0]
	if m.Header.Get("Bcc") != "" || strings.Contains(m.Text+m.HTML, "evil.example") || strings.Contains(m.Text, "Bcc: ") {
		t.Errorf("got the mail\n%s", m.Raw)
	}
}

// No token, code, key, password or address is in a log line, in the database or in a reply.
func TestMail_NoSecrets(t *testing.T) {
	t.Parallel()
	server := smtptest.Start(t, smtptest.Options{})
	server.Require("sender", "smtp-password")
	f := withServer(t, server)
	var replies strings.Builder
	deliver := func(id string, changes map[string]any) {
		r := f.deliver(t, id, changes)
		fmt.Fprint(&replies, r.Status, r.Type, r.JSON)
	}
	for i := range 5 { // the last two are over the limit
		deliver(fmt.Sprint(i), nil)
	}
	deliver("undo", map[string]any{"template": "undo", "purpose": "undo"})
	for id, fail := range map[string]func(string) error{
		"temporary": smtpError(450, gosmtp.EnhancedCode{4, 2, 0}), "final": smtpError(550, gosmtp.EnhancedCode{5, 1, 1}),
	} {
		server.Behave(smtptest.Behavior{Rcpt: fail})
		deliver(id, map[string]any{"template": "email", "purpose": "email"})
	}
	server.Require("sender", "changed")
	deliver("password", map[string]any{"template": "verification", "purpose": "verification"})

	keys, err := confirmation.ParseKeys(f.keys)
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{f.keys, address, "smtp-password", nonce}
	for _, purpose := range []event.Purpose{event.Recovery, event.EmailUndo, event.EmailChange, event.Verification} {
		subject := f.subject(purpose, address)
		secrets = append(secrets, keys.Token(subject), url.QueryEscape(keys.Token(subject)))
		if purpose != event.EmailUndo {
			secrets = append(secrets, `"`+keys.Code(subject)+`"`, ` `+keys.Code(subject))
		}
	}
	if !strings.Contains(server.Mails()[0].Text, secrets[4]) {
		t.Fatal("the first mail does not have the expected token: the test would find nothing")
	}
	for place, text := range map[string]string{"log": f.Logs(), "database": dump(t, f), "reply": replies.String()} {
		if len(text) < 100 {
			t.Errorf("the %s has only %q", place, text)
		}
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s has the secret %q:\n%s", place, secret, text)
			}
		}
	}
}

// dump returns all documents of all collections.
func dump(t *testing.T, f fixture) string {
	t.Helper()
	database := f.Collection(t).Database()
	names, err := database.ListCollectionNames(t.Context(), bson.D{})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, name := range names {
		cursor, err := database.Collection(name).Find(t.Context(), bson.D{})
		if err != nil {
			t.Fatal(err)
		}
		var all []bson.Raw
		if err := cursor.All(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		for _, document := range all {
			fmt.Fprintln(&out, name, document)
		}
	}
	return out.String()
}

// The database fails when the result of a mail is recorded. The mail must not be sent again.
func TestMail_RecordIsRetried(t *testing.T) {
	t.Parallel()
	tap := mongotest.NewTap(t)
	f := setup(t, "MONGODB_URI="+tap.URI)
	f.server.Behave(smtptest.Behavior{Data: func(*gosmtp.Conn, smtptest.Mail) error {
		tap.Writes() // those before the transfer
		tap.Reply("update mails", bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: int32(11601)}, {Key: "errmsg", Value: "interrupted"}})
		return nil
	}})
	replied := make(chan endpointtest.Reply)
	go func() { replied <- f.deliver(t, "one", nil) }()
	deadline := time.After(10 * time.Second)
	for writes := 0; len(f.server.Mails()) == 0 || writes < 3; { // the record failed at least twice
		if len(f.server.Mails()) > 0 {
			writes += len(tap.Writes())
		}
		select {
		case <-deadline:
			t.Fatalf("got %d attempts to record the mail, want 3", writes)
		case <-time.After(10 * time.Millisecond):
		}
	}
	f.server.Behave(smtptest.Behavior{})
	tap.Reply("update mails", nil)
	(<-replied).Expect(t, http.StatusOK, "", "")
	f.deliver(t, "one", nil).Expect(t, http.StatusOK, "", "")
	f.expect(t, 1)
}

// A process transfers one mail at a time, so that a kill repeats at most one. It opens the
// connections for the next mails meanwhile.
func TestMail_OneTransferAtATime(t *testing.T) {
	t.Parallel()
	f := setup(t)
	const events = 4
	var mu sync.Mutex
	active, most := 0, 0
	f.server.Behave(smtptest.Behavior{
		Mail: func(string) error {
			mu.Lock()
			defer mu.Unlock()
			active++
			most = max(most, active)
			return nil
		},
		Data: func(*gosmtp.Conn, smtptest.Mail) error {
			for f.server.Connections() < 2*events { // each begins a session before and after STARTTLS
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			defer mu.Unlock()
			active--
			return nil
		},
	})
	var group sync.WaitGroup
	for i := range events {
		group.Go(func() {
			f.deliver(t, fmt.Sprint(i), map[string]any{"to": fmt.Sprintf("u%d@example.com", i)}).Expect(t, http.StatusOK, "", "")
		})
	}
	group.Wait()
	f.expect(t, events)
	if most != 1 {
		t.Errorf("%d mails were transferred at the same time, want 1", most)
	}
}
