package mailbox

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
)

// maxDepth bounds the nesting of the parts of a mail.
const maxDepth = 5

// parse reads a mail (RFC 5322, RFC 2045): its sender, its subject and its first parts with text and
// HTML. It reads all text as UTF-8.
func parse(r io.Reader) (m Mail, err error) {
	message, err := mail.ReadMessage(r)
	if err != nil {
		return m, err
	}
	m.From, m.Subject = word(message.Header.Get("From")), word(message.Header.Get("Subject"))
	return m, m.read(textproto.MIMEHeader(message.Header), message.Body, 0)
}

// word decodes a header. It returns the header unchanged if the encoding is unknown.
func word(header string) string {
	if decoded, err := new(mime.WordDecoder).DecodeHeader(header); err == nil {
		return decoded
	}
	return header
}

// read reads a part of the mail.
func (m *Mail) read(h textproto.MIMEHeader, body io.Reader, depth int) error {
	contentType, parameters, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		contentType = "text/plain"
	}
	if strings.HasPrefix(contentType, "multipart/") {
		if depth == maxDepth {
			return errors.New("the parts are nested too deeply")
		}
		return m.readParts(multipart.NewReader(body, parameters["boundary"]), depth+1)
	}
	switch strings.ToLower(h.Get("Content-Transfer-Encoding")) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	content, err := io.ReadAll(body)
	text := strings.ReplaceAll(strings.ToValidUTF8(string(content), "\ufffd"), "\r\n", "\n")
	switch {
	case contentType == "text/plain" && m.Text == "":
		m.Text = text
	case contentType == "text/html" && m.HTML == "":
		m.HTML = text
	}
	return err
}

func (m *Mail) readParts(parts *multipart.Reader, depth int) error {
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = m.read(part.Header, part, depth)
		}
		if err != nil {
			return err
		}
	}
}
