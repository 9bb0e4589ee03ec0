package smtp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/mail/smtp"
	"ticketing.com/auth/shared/testing/smtptest"
)

var message = smtp.Message{To: "ann@example.com", ID: "0123", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	Language: "ja", Subject: "メール", Text: "text\n", HTML: "<p>html</p>\n"}

func configure(t *testing.T, settings ...string) (*smtp.Server, error) {
	t.Helper()
	environment := map[string]string{}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		environment[name] = value
	}
	cfg := config.New(func(name string) (string, bool) { v, ok := environment[name]; return v, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.DiscardHandler }, time.Now)
	s := smtp.FromConfig(cfg)
	return s, cfg.Err()
}

// send sends the message with settings and with a time limit.
func send(t *testing.T, limit time.Duration, settings ...string) error {
	t.Helper()
	s, err := configure(t, settings...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Send(message)
}

func TestSend_Message(t *testing.T) {
	for name, o := range map[string]smtptest.Options{"STARTTLS": {}, "implicit TLS": {Implicit: true}} {
		t.Run(name, func(t *testing.T) {
			server := smtptest.Start(t, o)
			server.Require("ann@mail.example", "p@ss:w/rd?")
			if err := send(t, time.Minute, append(server.Settings(), "MAIL_FROM=Tickets <no-reply@tickets.example>")...); err != nil {
				t.Fatal(err)
			}
			mails := server.Mails()
			if len(mails) != 1 {
				t.Fatalf("got %d mails, want 1", len(mails))
			}
			m := mails[0]
			if m.From != "no-reply@tickets.example" || m.To != message.To || m.Subject() != message.Subject ||
				strings.TrimSpace(m.Text) != "text" || strings.TrimSpace(m.HTML) != "<p>html</p>" {
				t.Errorf("got the mail %+v", m)
			}
			for name, want := range map[string]string{
				"From": `"Tickets" <no-reply@tickets.example>`, "To": "<ann@example.com>", "Message-Id": "<0123@tickets.example>",
				"Date": "Fri, 02 Jan 2026 03:04:05 +0000", "Auto-Submitted": "auto-generated", "Content-Language": "ja",
				"User-Agent": "", "X-Mailer": "",
			} {
				if got := m.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if kind := m.Header.Get("Content-Type"); !strings.HasPrefix(kind, "multipart/alternative;") {
				t.Errorf("got the Content-Type %s, want multipart/alternative", kind)
			}
		})
	}
}

func reply(code int, enhanced ...int) *gosmtp.SMTPError {
	e := &gosmtp.SMTPError{Code: code, EnhancedCode: gosmtp.NoEnhancedCode, Message: "rejected <ann@example.com>"}
	if enhanced != nil {
		e.EnhancedCode = gosmtp.EnhancedCode(enhanced)
	}
	return e
}

// Each failure is classified. No error contains the address, the password or the text of the server.
func TestSend_Failures(t *testing.T) {
	const limit = 300 * time.Millisecond // for a server that hangs
	for name, c := range map[string]struct {
		options smtptest.Options
		prepare func(*smtptest.Server)
		want    smtp.Kind
		text    string
	}{
		"no STARTTLS":                                     {smtptest.Options{NoTLS: true}, func(*smtptest.Server) {}, smtp.Misconfigured, "offers no STARTTLS"},
		"a certificate of another host":                   {smtptest.Options{Certificate: "other.example"}, func(*smtptest.Server) {}, smtp.Misconfigured, "certificate"},
		"a certificate of another host with implicit TLS": {smtptest.Options{Certificate: "other.example", Implicit: true}, func(*smtptest.Server) {}, smtp.Misconfigured, "certificate"},
		"an unknown authority":                            {smtptest.Options{}, func(s *smtptest.Server) { s.CAFile = "" }, smtp.Misconfigured, "certificate"},
		"a wrong password":                                {smtptest.Options{}, func(s *smtptest.Server) { s.Require("ann", "wrong") }, smtp.Misconfigured, "535 before"},
		"a temporary failure of EHLO":                     {smtptest.Options{}, func(s *smtptest.Server) { s.Behave(smtptest.Behavior{Connect: func() error { return reply(421) }}) }, smtp.Temporary, "421 before"},
		"a final failure of EHLO":                         {smtptest.Options{}, func(s *smtptest.Server) { s.Behave(smtptest.Behavior{Connect: func() error { return reply(554) }}) }, smtp.Misconfigured, "before"},
		"a hanging server":                                {smtptest.Options{}, func(s *smtptest.Server) { s.Behave(smtptest.Behavior{Connect: func() error { s.Hang(); return nil }}) }, smtp.Temporary, "does not answer"},
		"a rejected sender": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Mail: func(string) error { return reply(550, 5, 7, 1) }})
		}, smtp.Misconfigured, "550 5.7.1"},
		"a temporary failure at MAIL": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Mail: func(string) error { return reply(451, 4, 3, 0) }})
		}, smtp.Temporary, "451 4.3.0"},
		"greylisting": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: func(string) error { return reply(450, 4, 2, 0) }})
		}, smtp.Temporary, "450 4.2.0"},
		"an unknown mailbox": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: func(string) error { return reply(550, 5, 1, 1) }})
		}, smtp.Address, "550 5.1.1"},
		"an unknown mailbox without an enhanced code": {smtptest.Options{}, func(s *smtptest.Server) { s.Behave(smtptest.Behavior{Rcpt: func(string) error { return reply(553) }}) }, smtp.Address, "553"},
		"a full mailbox": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: func(string) error { return reply(552, 5, 2, 2) }})
		}, smtp.Refused, "552 5.2.2"},
		"authentication required": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: func(string) error { return reply(530, 5, 7, 0) }})
		}, smtp.Misconfigured, "530 5.7.0"},
		"a hanging RCPT": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Rcpt: func(string) error { s.Hang(); return nil }})
		}, smtp.Temporary, "lost"},
		"a temporary failure after DATA": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Data: func(*gosmtp.Conn, smtptest.Mail) error { return reply(452, 4, 3, 1) }})
		}, smtp.Temporary, "452 4.3.1"},
		"a rejection after DATA": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Data: func(*gosmtp.Conn, smtptest.Mail) error { return reply(554, 5, 7, 1) }})
		}, smtp.Refused, "554 5.7.1"},
		"a connection closed after DATA": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Data: func(c *gosmtp.Conn, _ smtptest.Mail) error { c.Conn().Close(); return reply(554) }})
		}, smtp.Unanswered, "lost"},
		"a connection closed inside DATA": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{InData: func(c *gosmtp.Conn, r io.Reader) bool {
				r.Read(make([]byte, 10))
				c.Conn().Close()
				return true
			}})
		}, smtp.Unanswered, "lost"},
		"a server that hangs after DATA": {smtptest.Options{}, func(s *smtptest.Server) {
			s.Behave(smtptest.Behavior{Data: func(*gosmtp.Conn, smtptest.Mail) error { s.Hang(); return nil }})
		}, smtp.Unanswered, "lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := smtptest.Start(t, c.options)
			server.Require("sender", "the-password")
			settings := server.Settings()
			c.prepare(server)
			within := time.Minute
			if strings.Contains(name, "hang") {
				within = limit
			}
			if server.CAFile == "" {
				settings = settings[:1]
			}
			err := send(t, within, settings...)
			failed, is := errors.AsType[*smtp.Error](err)
			if !is || failed.Kind != c.want || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v (%+v), want the kind %d and %q", err, failed, c.want, c.text)
			}
			if err != nil && (strings.Contains(err.Error(), "ann@") || strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "rejected")) {
				t.Errorf("the error %v has the address, the password or the text of the server", err)
			}
			if len(server.Mails()) != 0 {
				t.Errorf("the server has accepted %d mails, want 0", len(server.Mails()))
			}
		})
	}
}

// A server that accepts the mail and then closes the connection has accepted it.
func TestSend_ClosedAfterAcceptance(t *testing.T) {
	listener := raw(t, func(r *bufio.Reader, w io.Writer) {
		inData := false
		for {
			line, err := r.ReadString('\n')
			switch {
			case err != nil:
				return
			case inData && line == ".\r\n":
				fmt.Fprint(w, "250 accepted\r\n")
				return
			case inData:
			case strings.HasPrefix(line, "DATA"):
				inData = true
				fmt.Fprint(w, "354 go\r\n")
			default:
				fmt.Fprint(w, "250 fine\r\n")
			}
		}
	})
	if err := send(t, time.Minute, "SMTP_URL=smtp://"+listener+"?tls=none"); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func TestDial_Unreachable(t *testing.T) {
	closed := raw(t, nil)
	greeting := func(text string) string {
		return raw(t, func(_ *bufio.Reader, w io.Writer) { io.WriteString(w, text) })
	}
	for name, c := range map[string]struct {
		url  string
		want smtp.Kind
	}{
		"a refused connection":            {"smtp://" + closed, smtp.Temporary},
		"a greeting that is temporary":    {"smtp://" + greeting("421 later\r\n"), smtp.Temporary},
		"a greeting that rejects":         {"smtp://" + greeting("554 go away\r\n"), smtp.Misconfigured},
		"a connection closed at once":     {"smtp://" + greeting(""), smtp.Temporary},
		"a server of another protocol":    {"smtp://" + greeting("HTTP/1.1 400 Bad Request\r\n\r\n"), smtp.Misconfigured},
		"a server without TLS on smtps":   {"smtps://" + greeting("220 hello\r\n"), smtp.Misconfigured},
		"a server that closes in the TLS": {"smtps://" + greeting(""), smtp.Temporary},
	} {
		t.Run(name, func(t *testing.T) {
			err := send(t, 10*time.Second, "SMTP_URL="+c.url)
			if failed, is := errors.AsType[*smtp.Error](err); !is || failed.Kind != c.want {
				t.Errorf("got %v, want the kind %d", err, c.want)
			}
		})
	}
}

// raw starts a server that calls serve for each connection, and returns its address. Without serve
// nothing listens on the address.
func raw(t *testing.T, serve func(*bufio.Reader, io.Writer)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if serve == nil {
		listener.Close()
		return listener.Addr().String()
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			if !strings.Contains(t.Name(), "Unreachable") {
				fmt.Fprint(c, "220 hello\r\n")
			}
			serve(bufio.NewReader(c), c)
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	return listener.Addr().String()
}

func TestFromConfig_Problems(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	if err := os.WriteFile(noPEM, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	remote := []string{"MAIL_FROM=no-reply@tickets.example", "PUBLIC_URL=https://tickets.example"}
	for name, c := range map[string]struct {
		settings []string
		want     string // a part of the problem; empty: none
	}{
		"a server with a password":               {append(remote, "SMTP_URL=smtp://user:secret@mail.example:587"), ""},
		"implicit TLS on the default port":       {append(remote, "SMTP_URL=smtps://user:secret@mail.example"), ""},
		"clear text to another host":             {append(remote, "SMTP_URL=smtp://mail.example:25?tls=none"), ""},
		"clear text with a password on loopback": {[]string{"SMTP_URL=smtp://user:secret@127.0.0.1:25?tls=none"}, ""},
		"loopback needs no other setting":        {[]string{"SMTP_URL=smtp://[::1]:25"}, ""},
		"not set":                                {nil, "SMTP_URL (or SMTP_URL_FILE) is not set"},
		"another scheme":                         {append(remote, "SMTP_URL=http://user:secret@mail.example"), "SMTP_URL must be smtp://"},
		"no host":                                {append(remote, "SMTP_URL=smtp://"), "SMTP_URL must be smtp://"},
		"a password that needs percent-encoding": {append(remote, "SMTP_URL=smtp://user:secret/@mail.example"), "percent-encoding"},
		"a password without a user":              {append(remote, "SMTP_URL=smtp://:secret@mail.example"), "both a user and a password"},
		"a user without a password":              {append(remote, "SMTP_URL=smtp://user@mail.example"), "both a user and a password"},
		"a password that is sent in clear text":  {append(remote, "SMTP_URL=smtp://user:secret@mail.example?tls=none"), "clear text"},
		"clear text with implicit TLS":           {append(remote, "SMTP_URL=smtps://mail.example?tls=none"), "no query"},
		"an unknown query":                       {append(remote, "SMTP_URL=smtp://mail.example?tls=maybe"), "no query"},
		"a path":                                 {append(remote, "SMTP_URL=smtp://mail.example/inbox"), "SMTP_URL must be smtp://"},
		"a remote server without the other two":  {[]string{"SMTP_URL=smtp://mail.example"}, "MAIL_FROM is not set\nPUBLIC_URL is not set"},
		"a sender that is no address":            {[]string{"SMTP_URL=smtp://localhost", "MAIL_FROM=Tickets"}, "MAIL_FROM must be an address"},
		"two senders":                            {[]string{"SMTP_URL=smtp://localhost", "MAIL_FROM=a@b.example, c@d.example"}, "MAIL_FROM must be an address"},
		"a file of authorities that is missing":  {[]string{"SMTP_URL=smtp://localhost", "SMTP_CA_FILE=/nonexistent"}, "SMTP_CA_FILE names a file that cannot be read"},
		"a file of authorities without any":      {[]string{"SMTP_URL=smtp://localhost", "SMTP_CA_FILE=" + noPEM}, "SMTP_CA_FILE names a file with no certificate"},
	} {
		_, err := configure(t, c.settings...)
		text := fmt.Sprint(err)
		if (err == nil) != (c.want == "") || !strings.Contains(text, c.want) || strings.Contains(text, "secret") {
			t.Errorf("%s: got %v, want %q and no password", name, err, c.want)
		}
	}
}
