// Package smtp sends mails over SMTP (RFC 5321), with TLS or STARTTLS unless the operator disables
// both. It classifies every failure, so that a caller knows whether another attempt can help.
//
// No error contains the text of a server: such texts quote the address of the recipient, and those
// of an authentication can quote more.
package smtp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	netmail "net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	client "github.com/wneessen/go-mail/smtp"
)

// A Server is the mail server that takes all mails. It is safe for concurrent use.
type Server struct {
	host, port     string
	user, password string
	security       security
	tls            *tls.Config
	from           netmail.Address
	domain         string // of the sender
}

type security uint8

const (
	startTLS    security = iota // required
	implicitTLS                 // RFC 8314 section 3.3
	plainText
)

// A Kind is the cause of a failure.
type Kind uint8

// The kinds.
const (
	// Temporary is a lost or refused connection, a timeout or a 4xx reply. Another attempt can help.
	Temporary Kind = iota
	// Misconfigured is a failure that concerns all mails: no STARTTLS, an invalid certificate, a 5xx
	// reply to the greeting, the authentication or the sender. An operator must act. Then another
	// attempt can help.
	Misconfigured
	// Address is a final rejection of the recipient's address.
	Address
	// Refused is another final rejection of the mail.
	Refused
	// Unanswered is a lost connection or a timeout after the transfer. The server may have accepted the
	// mail, so another attempt can send it twice.
	Unanswered
)

// An Error is a failure. Its text has the step and the reply code.
type Error struct {
	Kind Kind
	text string
}

func (e *Error) Error() string { return e.text }

// A Message is a mail to one recipient.
type Message struct {
	To                  string // a plain address
	ID                  string // of the Message-ID, without the domain
	Date                time.Time
	Language            string
	Subject, Text, HTML string
}

// A Connection is a connection to a server, ready for a mail.
type Connection struct {
	from    netmail.Address
	net     net.Conn
	mail    *gomail.Client
	smtp    *client.Client
	sent    bool        // the server has accepted the mail
	release func() bool // from the context, which closes the connection at its end
}

// Dial connects and authenticates. When the context ends, it closes the connection, also during a
// later Send. A failure is an *Error.
func (s *Server) Dial(ctx context.Context) (*Connection, error) {
	c := &Connection{release: func() bool { return true }}
	var dialing error
	policy := gomail.NoTLS // also for implicit TLS, which dial establishes
	if s.security == startTLS {
		policy = gomail.TLSMandatory
	}
	o := []gomail.Option{
		gomail.WithTimeout(timeLeft(ctx)), gomail.WithHELO(s.domain), gomail.WithoutNoop(), gomail.WithoutSMTPUTF8(),
		gomail.WithTLSConfig(s.tls), gomail.WithTLSPolicy(policy),
		gomail.WithDialContextFunc(func(context.Context, string, string) (conn net.Conn, err error) {
			conn, dialing = s.dial(ctx, c)
			return conn, dialing
		}),
	}
	if s.user != "" {
		o = append(o, gomail.WithSMTPAuthCustom(&login{server: s}))
	}
	var err error
	if c.mail, err = gomail.NewClient(s.host, o...); err != nil {
		return nil, &Error{Misconfigured, "the settings of the mail server are not accepted"}
	}
	c.from = s.from
	if c.smtp, err = c.mail.DialToSMTPClientWithContext(ctx); err == nil {
		return c, nil
	}
	c.Close()
	return nil, connecting(cmp.Or(dialing, err))
}

// timeLeft returns the time until the deadline of a context.
func timeLeft(ctx context.Context) time.Duration {
	deadline, limited := ctx.Deadline()
	if !limited {
		return time.Minute
	}
	return max(time.Until(deadline), time.Millisecond)
}

// dial opens the connection for a Connection. go-mail does not close it after a failure.
func (s *Server) dial(ctx context.Context, c *Connection) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(s.host, s.port))
	if err != nil {
		return nil, err
	}
	c.net = raw
	c.release = context.AfterFunc(ctx, func() { raw.Close() })
	if s.security != implicitTLS {
		return raw, nil
	}
	encrypted := tls.Client(raw, s.tls) // unchanged: go-mail recognizes the type
	return encrypted, encrypted.HandshakeContext(ctx)
}

// connecting returns the *Error for a connection that cannot be opened.
func connecting(err error) *Error {
	if reply, is := errors.AsType[*textproto.Error](err); is {
		kind := Misconfigured
		if reply.Code < 500 {
			kind = Temporary
		}
		return &Error{kind, fmt.Sprintf("the mail server answers %d before the mail", reply.Code)}
	}
	if _, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return &Error{Misconfigured, "the certificate of the mail server is not valid for its name, has expired or has an unknown authority"}
	}
	if e, is := errors.AsType[*net.DNSError](err); is && e.IsNotFound {
		return &Error{Misconfigured, "the host of the mail server does not exist"}
	}
	if _, is := errors.AsType[tls.RecordHeaderError](err); is {
		return &Error{Misconfigured, "the mail server does not use TLS on this port: use smtp:// for STARTTLS"}
	}
	if _, is := errors.AsType[net.Error](err); is || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return &Error{Temporary, "the mail server cannot be reached, or does not answer"}
	}
	switch {
	case errors.Is(err, errNoMechanism), errors.Is(err, client.ErrUnencrypted):
		return &Error{Misconfigured, errNoMechanism.Error()}
	case strings.Contains(err.Error(), "not support STARTTLS"): // go-mail has no value for it
		return &Error{Misconfigured, "the mail server offers no STARTTLS"}
	}
	return &Error{Misconfigured, fmt.Sprintf("the mail server does not speak SMTP as expected (%T)", err)}
}

// Send sends a mail. A failure is an *Error.
func (c *Connection) Send(m Message) error {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	_, domain, _ := strings.Cut(c.from.Address, "@")
	msg.SetMessageIDWithValue(m.ID + "@" + domain)
	msg.SetDateWithValue(m.Date)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")   // RFC 3834 section 5
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")    // Exchange
	msg.SetGenHeader(gomail.HeaderContentLang, m.Language) // RFC 3282
	msg.Subject(m.Subject)
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	if err := msg.FromFormat(c.from.Name, c.from.Address); err != nil {
		return &Error{Misconfigured, "MAIL_FROM is not accepted"}
	}
	if err := msg.To(m.To); err != nil {
		return &Error{Address, "the address is not valid"}
	}
	err := c.mail.SendWithSMTPClient(c.smtp, msg)
	if err == nil || msg.IsDelivered() { // the server has accepted it, and did not answer the next command
		c.sent = true
		return nil
	}
	failed, is := errors.AsType[*gomail.SendError](err)
	if !is {
		return &Error{Temporary, fmt.Sprintf("the mail cannot be sent (%T)", err)}
	}
	return classify(failed.Reason, failed.ErrorCode(), failed.EnhancedStatusCode())
}

// classify returns the *Error for a failed step, with the reply code (RFC 5321 section 4.2), or 0
// without a reply, and with the enhanced status code (RFC 3463), if any.
func classify(step gomail.SendErrReason, code int, enhanced string) *Error {
	kind := Refused
	switch {
	case code == 0 && (step == gomail.ErrGetRcpts):
		return &Error{Address, "the address is not valid"}
	case code == 0 && step == gomail.ErrSMTPDataClose:
		kind = Unanswered
	case code < 500:
		kind = Temporary
	case step == gomail.ErrSMTPMailFrom, code == 530, code == 534, code == 535, code == 538, enhanced == "5.1.7", enhanced == "5.1.8":
		kind = Misconfigured // the sender, or its authentication (RFC 4954)
	case step == gomail.ErrSMTPRcptTo && (strings.HasPrefix(enhanced, "5.1.") || enhanced == "" && (code == 550 || code == 551 || code == 553)):
		kind = Address
	}
	if code == 0 {
		return &Error{kind, "the connection to the mail server was lost: " + step.String()}
	}
	return &Error{kind, strings.TrimSpace(fmt.Sprintf("the mail server answers %d %s", code, enhanced)) + ": " + step.String()}
}

// quitTimeout bounds the wait for the answer to QUIT, after the mail was sent.
const quitTimeout = 500 * time.Millisecond

// Close ends the connection.
func (c *Connection) Close() {
	c.release()
	if c.sent && c.smtp.UpdateDeadline(quitTimeout) == nil {
		c.smtp.Quit() // a courtesy: the server may be gone
	}
	if c.net != nil {
		c.net.Close()
	}
}

// A login authenticates with the strongest mechanism of the server that it knows.
type login struct {
	client.Auth
	server *Server
}

var errNoMechanism = errors.New("the mail server offers no authentication that is known here")

// Start implements client.Auth.
func (l *login) Start(info *client.ServerInfo) (mechanism string, response []byte, err error) {
	user, password, clear := l.server.user, l.server.password, l.server.security == plainText
	for _, known := range []struct {
		name string
		auth func() client.Auth
	}{
		{"SCRAM-SHA-256", func() client.Auth { return client.ScramSHA256Auth(user, password) }},
		{"PLAIN", func() client.Auth { return client.PlainAuth("", user, password, l.server.host, clear) }},
		{"LOGIN", func() client.Auth { return client.LoginAuth(user, password, l.server.host, clear) }},
		{"CRAM-MD5", func() client.Auth { return client.CRAMMD5Auth(user, password) }},
	} {
		if slices.Contains(info.Auth, known.name) {
			l.Auth = known.auth()
			return l.Auth.Start(info)
		}
	}
	return "", nil, errNoMechanism
}
