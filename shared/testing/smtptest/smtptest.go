// Package smtptest is a real SMTP server for tests, with TLS and a certificate authority of its
// own. A test reads the mails that it has accepted, and can make each step fail.
package smtptest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// A Server accepts mails.
type Server struct {
	Address string // host and port
	CAFile  string // its certificate authority, PEM

	implicit bool
	stopped  chan struct{}

	mu             sync.Mutex
	user, password string
	behavior       Behavior
	mails          []Mail
	connections    int
}

// A Behavior replaces steps of a server. A nil function accepts.
type Behavior struct {
	Connect func() error                                // rejects EHLO
	Mail    func(from string) error                     // rejects MAIL
	Rcpt    func(to string) error                       // rejects RCPT
	Data    func(c *smtp.Conn, m Mail) error            // rejects the transferred mail
	InData  func(c *smtp.Conn, r io.Reader) (done bool) // replaces the transfer
}

// Behave replaces the behavior for further commands.
func (s *Server) Behave(b Behavior) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behavior = b
}

func (s *Server) behaves() Behavior {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behavior
}

// Require makes the server require a user and a password.
func (s *Server) Require(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user, s.password = user, password
}

func (s *Server) login() (user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.user, s.password
}

// Options of a server.
type Options struct {
	Implicit    bool   // TLS from the beginning
	NoTLS       bool   // no STARTTLS
	Certificate string // the host in the certificate; localhost if empty
}

// A Mail is an accepted mail.
type Mail struct {
	From, To string // of the envelope
	Header   mail.Header
	Text     string
	HTML     string
	Raw      string
}

// Subject returns the decoded subject.
func (m Mail) Subject() string {
	s, _ := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	return s
}

// Start starts a server on a free port of localhost. The end of the test stops it.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	certificate, ca := certificates(t, o.Certificate)
	s := &Server{implicit: o.Implicit, stopped: make(chan struct{}), CAFile: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(s.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		s.mu.Lock()
		s.connections++
		s.mu.Unlock()
		if connect := s.behaves().Connect; connect != nil {
			if err := connect(); err != nil {
				return nil, err
			}
		}
		user, _ := s.login()
		return &session{server: s, conn: c, authentic: user == ""}, nil
	}))
	server.Domain, server.ReadTimeout, server.WriteTimeout, server.AllowInsecureAuth = "localhost", time.Minute, time.Minute, true
	server.MaxMessageBytes = 1 << 20
	server.ErrorLog = discard{}
	server.EnableSMTPUTF8 = true
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	s.Address = net.JoinHostPort("localhost", port)
	if !o.NoTLS {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	if o.Implicit {
		listener = tls.NewListener(listener, server.TLSConfig)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener) // returns when it is closed
	}()
	t.Cleanup(func() {
		close(s.stopped)
		server.Close()
		<-done
	})
	return s
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

// URL returns the value of SMTP_URL.
func (s *Server) URL() string {
	u := url.URL{Scheme: "smtp", Host: s.Address}
	if s.implicit {
		u.Scheme = "smtps"
	}
	if user, password := s.login(); user != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

// Settings returns the settings with which a function sends its mails to the server.
func (s *Server) Settings() []string {
	return []string{"SMTP_URL=" + s.URL(), "SMTP_CA_FILE=" + s.CAFile}
}

// Mails returns the accepted mails so far, in order.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// Connections returns the number of sessions so far. A session begins with EHLO.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// Hang blocks until the server stops.
func (s *Server) Hang() { <-s.stopped }

type session struct {
	server    *Server
	conn      *smtp.Conn
	authentic bool
	mail      Mail
}

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string {
	if user, _ := s.server.login(); user == "" {
		return nil
	}
	return []string{sasl.Plain}
}

// Auth implements smtp.AuthSession.
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if wantUser, wantPassword := s.server.login(); user != wantUser || password != wantPassword {
			return smtp.ErrAuthFailed
		}
		s.authentic = true
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.mail.From = from
	if !s.authentic {
		return smtp.ErrAuthRequired
	}
	if reject := s.server.behaves().Mail; reject != nil {
		return reject(from)
	}
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.To = to
	if reject := s.server.behaves().Rcpt; reject != nil {
		return reject(to)
	}
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	behavior := s.server.behaves()
	if behavior.InData != nil && behavior.InData(s.conn, r) {
		return nil
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := s.mail
	if err := m.parse(raw); err != nil {
		return err
	}
	if behavior.Data != nil {
		if err := behavior.Data(s.conn, m); err != nil {
			return err
		}
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, m)
	return nil
}

// Reset implements smtp.Session.
func (s *session) Reset() {}

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }

// parse parses a mail with an alternative for plain text and one for HTML.
func (m *Mail) parse(raw []byte) error {
	parsed, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	m.Header, m.Raw = parsed.Header, string(raw)
	_, parameters, err := mime.ParseMediaType(parsed.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	parts := multipart.NewReader(parsed.Body, parameters["boundary"])
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			return err
		}
		if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind == "text/html" {
			m.HTML = string(content)
		} else {
			m.Text = string(content)
		}
	}
}

// certificates returns a certificate for a host, and its authority in PEM.
func certificates(t testing.TB, host string) (tls.Certificate, []byte) {
	t.Helper()
	if host == "" {
		host = "localhost"
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "smtptest"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
}
