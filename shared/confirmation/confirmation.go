// Package confirmation computes and checks the tokens and codes that users receive by mail.
//
//	token = base64url(user "." purpose "." nonce "." expiry || HMAC-SHA-256(key, "link", those, email))
//	code  = HMAC-SHA-256(key, "code", those, email) mod 1,000,000
//
// The store keeps the nonce and the expiry. Events contain both. Neither is secret: only a process
// with the key can compute a token or a code, so none of them is stored, logged or published. The
// email in the HMAC binds a token to the mailbox that receives it.
//
// A code has 20 bits (OWASP ASVS 5.0.0 requirement 6.5.4). Package ratelimit bounds the attempts.
package confirmation

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/user"
)

// Keys computes tokens and codes with its first key, and accepts those of all keys.
type Keys struct{ ring [][]byte }

// minKey is the minimum length of a key, in bytes: the output size of the HMAC (RFC 2104 section 3).
const minKey = sha256.Size

// NewKey returns a new random key in the form that ParseKeys reads.
func NewKey() string {
	key := make([]byte, minKey)
	rand.Read(key) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(key)
}

// ParseKeys parses keys that white space separates, each at least 32 bytes in base64url. The error
// does not contain a key.
func ParseKeys(text string) (*Keys, error) {
	k := &Keys{}
	for word := range strings.FieldsSeq(text) {
		key, err := base64.RawURLEncoding.Strict().DecodeString(word)
		if err != nil || len(key) < minKey {
			return nil, fmt.Errorf("key %d is not base64url of at least %d bytes", len(k.ring)+1, minKey)
		}
		k.ring = append(k.ring, key)
	}
	if len(k.ring) == 0 {
		return nil, errors.New("there is no key")
	}
	return k, nil
}

// A Subject is the subject of a token: the account and what its holder confirms.
type Subject struct {
	User    string
	Purpose event.Purpose
	Nonce   string
	Expires time.Time // whole seconds
	Email   string    // the address that receives the token
}

// A Token is a parsed token. It is authentic only if Keys.Authentic accepts it.
type Token struct {
	Subject // without the email
	mac     []byte
}

// ErrMalformed is the error of Parse for a string that is no token.
var ErrMalformed = errors.New("malformed token")

// maxToken is the maximum length of a token, in bytes.
const maxToken = 512

// Parse parses a token.
func Parse(s string) (Token, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if len(s) > maxToken || err != nil || base64.RawURLEncoding.EncodedLen(len(b)) != len(s) || len(b) <= sha256.Size {
		return Token{}, ErrMalformed
	}
	text, mac := string(b[:len(b)-sha256.Size]), b[len(b)-sha256.Size:]
	var parts [3]string // from the right: the id of a user can contain a dot
	for i := range parts {
		dot := strings.LastIndexByte(text, '.')
		if dot < 0 {
			return Token{}, ErrMalformed
		}
		text, parts[i] = text[:dot], text[dot+1:]
	}
	seconds, err := strconv.ParseInt(parts[0], 10, 64)
	t := Token{Subject{User: text, Purpose: event.Purpose(parts[2]), Nonce: parts[1], Expires: time.Unix(seconds, 0)}, mac}
	if err != nil || text == "" || !utf8.ValidString(text) || t.text() != string(b[:len(b)-sha256.Size]) {
		return Token{}, ErrMalformed
	}
	return t, nil
}

// text returns the part of a token that its HMAC protects, without the email.
func (s Subject) text() string {
	return fmt.Sprintf("%s.%s.%s.%d", s.User, s.Purpose, s.Nonce, s.Expires.Unix())
}

func (s Subject) mac(key []byte, use string) []byte {
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%s\x00%s\x00%s", use, s.text(), s.Email)
	return h.Sum(nil)
}

// Token returns the token of a subject.
func (k *Keys) Token(s Subject) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte(s.text()), s.mac(k.ring[0], "link")...))
}

// Authentic reports whether the token was computed with one of the keys for the email.
func (k *Keys) Authentic(t Token, email string) bool {
	t.Email = email
	for _, key := range k.ring {
		if hmac.Equal(t.mac, t.Subject.mac(key, "link")) {
			return true
		}
	}
	return false
}

// codes is the number of different codes.
const codes = 1_000_000

// Code returns the code of a subject, six digits.
func (k *Keys) Code(s Subject) string { return code(k.ring[0], s) }

func code(key []byte, s Subject) string {
	// 64 bits modulo 10⁶: the bias is below 10⁻¹²
	return fmt.Sprintf("%06d", binary.BigEndian.Uint64(s.mac(key, "code"))%codes)
}

// ByToken returns the proof of a client that presents a token.
func (k *Keys) ByToken(t Token) user.Proof {
	return func(p user.Pending) bool {
		return p.Nonce == t.Nonce && p.ExpiresAt.Equal(t.Expires) && k.Authentic(t, p.Email)
	}
}

// ByCode returns the proof of a client that presents a code to confirm something for a user.
func (k *Keys) ByCode(id string, purpose event.Purpose, presented string) user.Proof {
	return func(p user.Pending) bool {
		return k.Matches(Subject{User: id, Purpose: purpose, Nonce: p.Nonce, Expires: p.ExpiresAt, Email: p.Email}, presented)
	}
}

// Matches reports whether the code is that of the subject, computed with one of the keys.
func (k *Keys) Matches(s Subject, presented string) bool {
	right := 0
	for _, key := range k.ring {
		right |= subtle.ConstantTimeCompare([]byte(code(key, s)), []byte(presented))
	}
	return right == 1
}
