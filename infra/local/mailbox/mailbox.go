// Package mailbox catches the mails of the local runner: an SMTP server on a loopback port, and a
// page that shows the last mails. It is for development. It stores the mails in memory only, and
// sends none.
//
// The SMTP server is github.com/emersion/go-smtp, because a mail must pass the same protocol as in
// a deployment.
package mailbox

import (
	"errors"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	// limit bounds the stored mails.
	limit = 100
	// maxMail bounds a mail, in bytes.
	maxMail = 1 << 20
	// timeout bounds how long a client may take for a command or a mail.
	timeout = 10 * time.Second
)

// A Mail is a caught mail.
type Mail struct {
	ID      int       `json:"id"`
	At      time.Time `json:"at"`
	From    string    `json:"from"`
	To      string    `json:"to"` // the recipients, separated by commas
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	HTML    string    `json:"-"`
	Frame   string    `json:"-"` // the path of HTML
}

// A Box catches mails. It is safe for concurrent use.
type Box struct {
	server   *smtp.Server
	listener net.Listener
	served   chan struct{} // closed when the server has stopped
	caught   func(Mail)    // called for each mail, in their order

	mu    sync.Mutex
	mails []Mail // the oldest first
	last  int    // the id of the last mail
}

// Start starts a box on an address, such as a free loopback port. It calls caught for each mail unless
// that is nil.
func Start(addr string, caught func(Mail)) (*Box, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	b := &Box{listener: listener, served: make(chan struct{}), caught: caught}
	b.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{box: b}, nil }))
	b.server.Domain = "localhost"
	b.server.MaxMessageBytes, b.server.MaxRecipients = maxMail, limit
	b.server.ReadTimeout, b.server.WriteTimeout = timeout, timeout
	b.server.EnableSMTPUTF8 = true
	b.server.ErrorLog = log.New(io.Discard, "", 0) // a client that disconnects
	go func() {
		b.server.Serve(listener) // until Stop closes the listener
		close(b.served)
	}()
	return b, nil
}

// Stop stops the SMTP server. The box may be nil.
func (b *Box) Stop() {
	if b != nil {
		b.server.Close()
		b.listener.Close() // the server may not know it yet
		<-b.served
	}
}

// URL returns the setting SMTP_URL for the box.
func (b *Box) URL() string { return "smtp://" + b.listener.Addr().String() + "?tls=none" }

// Mails returns the last mails, the newest first.
func (b *Box) Mails() []Mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(b.mails)
	slices.Reverse(all)
	return all
}

// mail returns the mail with an id.
func (b *Box) mail(id int) (Mail, bool) {
	for _, m := range b.Mails() {
		if m.ID == id {
			return m, true
		}
	}
	return Mail{}, false
}

func (b *Box) add(m Mail) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	m.ID, m.At = b.last, time.Now()
	b.mails = append(b.mails, m)
	b.mails = slices.Delete(b.mails, 0, max(0, len(b.mails)-limit))
	if b.caught != nil {
		b.caught(m)
	}
}

// A session is an SMTP session. It implements smtp.Session.
type session struct {
	box  *Box
	from string
	to   []string
}

func (s *session) Reset() { s.from, s.to = "", nil }

func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	m, err := parse(r)
	if errors.Is(err, smtp.ErrDataTooLarge) {
		return err
	}
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "The mail is malformed"}
	}
	m.To = strings.Join(s.to, ", ")
	if m.From == "" {
		m.From = s.from
	}
	s.box.add(m)
	return nil
}
