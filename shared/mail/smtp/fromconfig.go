package smtp

import (
	"crypto/tls"
	"errors"
	netmail "net/mail"
	"net/url"
	"os"
	"strings"
	"unicode"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/mail"
	"ticketing.com/auth/shared/tlsconfig"
)

// Sending is the need of a function that sends mails.
var Sending = endpoint.Need{
	Mails:    true,
	Settings: []string{"MAIL_FROM", "SMTP_CA_FILE"},
	Secret: &endpoint.Secret{Setting: "SMTP_URL", Name: "smtp", Key: "url", Optional: true,
		Sample: func() string { return "smtp://localhost:1025?tls=none" }},
}

// FromConfig returns the server of SMTP_URL, MAIL_FROM and SMTP_CA_FILE. It connects to no server.
//
// With a server on another machine, users receive the mails, so MAIL_FROM and PUBLIC_URL have no
// defaults.
func FromConfig(cfg *config.Config) *Server {
	return config.Part(cfg, "mail server", func() *Server {
		from := cfg.Text("MAIL_FROM", "Ticketing <no-reply@ticketing.example>")
		roots := cfg.Text("SMTP_CA_FILE", "")
		name, text := cfg.Document("SMTP_URL")
		if text == nil {
			return nil
		}
		s, err := parse(strings.TrimSpace(string(text)))
		if err != nil {
			cfg.Problem(name, err.Error())
			return nil
		}
		if !mail.IsLoopback(s.host) {
			cfg.Required("MAIL_FROM")
			cfg.Required("PUBLIC_URL")
		}
		if err := s.setFrom(from); err != nil {
			cfg.Problem("MAIL_FROM", err.Error())
		}
		if err := s.trust(roots); err != nil {
			cfg.Problem("SMTP_CA_FILE", err.Error())
		}
		return s
	})
}

// Check reports whether a text can be SMTP_URL. The error does not contain the text.
func Check(text string) error {
	_, err := parse(text)
	return err
}

// parse parses SMTP_URL. The error does not contain the text, which can have a password.
func parse(text string) (*Server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" || u.Path != "" || u.Fragment != "" {
		return nil, errors.New("must be smtp://user:password@host:587 (STARTTLS) or smtps://user:password@host:465 (TLS), with percent-encoding in the user and the password")
	}
	s := &Server{host: u.Hostname(), port: u.Port(), tls: &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}}
	s.user = u.User.Username()
	s.password, _ = u.User.Password()
	if s.port == "" {
		s.port = map[string]string{"smtp": "587", "smtps": "465"}[u.Scheme]
	}
	if u.Scheme == "smtps" {
		s.security = implicitTLS
	}
	switch query := u.RawQuery; {
	case query == "tls=none" && u.Scheme == "smtp":
		s.security = plainText
	case query != "":
		return nil, errors.New("must have no query, or ?tls=none with smtp://")
	}
	switch {
	case (s.user == "") != (s.password == "") || strings.ContainsFunc(s.user+s.password, unicode.IsControl):
		return nil, errors.New("must have both a user and a password, or neither")
	case s.security == plainText && s.user != "" && !mail.IsLoopback(s.host):
		return nil, errors.New("must not have a password with ?tls=none: the password would cross the network in clear text")
	}
	return s, nil
}

// setFrom sets the sender: an address, or a name and an address in angle brackets.
func (s *Server) setFrom(text string) error {
	from, err := netmail.ParseAddress(text)
	if err == nil {
		_, err = email.Parse(from.Address)
	}
	if err != nil {
		return errors.New("must be an address such as no-reply@tickets.example, or Name <no-reply@tickets.example>")
	}
	s.from = *from
	_, s.domain, _ = strings.Cut(from.Address, "@")
	return nil
}

// trust adds the certificate authorities in a file to those of the system.
func (s *Server) trust(file string) error {
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return errors.New("names a file that cannot be read")
	}
	s.tls.RootCAs, err = tlsconfig.Roots(pem)
	if err != nil {
		return errors.New("names a file with no certificate in PEM form")
	}
	return nil
}
