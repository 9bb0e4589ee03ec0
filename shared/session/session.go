// Package session makes sessions and their refresh tokens, and hands them to
// their owner as a Grant.
//
// A refresh token names its user and session and carries two secrets. The family
// secret is the same for every refresh token of the session: it proves that a
// token was once issued. The other is the token's own: it proves that the token
// is the newest. The database holds the SHA-256 of both and nothing more; the
// secrets have 128 and 256 bits of entropy, so a fast hash is enough (NIST SP
// 800-63B §3.1.2.2).
//
// The newest secret is not drawn but derived, from the one before it and a random
// salt that the database keeps. So an answer that got lost can be given again,
// though it is stored nowhere; and only to somebody who holds the token that was
// exchanged for it.
//
// The package stores nothing: package user does.
package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"time"
	"unicode/utf8"

	"ticketing.com/auth/shared/user"
)

// The parts of a refresh token, in bytes. The user's id, which may be one that
// was brought along, is what follows them.
const (
	idSize     = 16
	familySize = 16
	secretSize = sha256.Size
	countSize  = 4
	fixedSize  = familySize + secretSize + idSize + countSize
)

// ErrMalformed: not a refresh token of this system.
var ErrMalformed = errors.New("malformed refresh token")

// A Refresh is a refresh token.
type Refresh struct {
	User       string // the user's id
	Session    string // the session's id
	Generation int    // how often the session was refreshed before

	family, secret []byte
}

// NewID returns a new id of 128 random bits, as 32 hexadecimal digits.
func NewID() string { return hex.EncodeToString(random(idSize)) }

// IDFromKey returns the id of a key, so that the same request made twice makes the same
// id; a new id where the key is empty. Keys come from strangers, hence the digest.
func IDFromKey(key string) string {
	if key == "" {
		return NewID()
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:idSize])
}

// Open makes a session of a user that begins now and ends after life, and its
// first refresh token. Times are whole milliseconds, as MongoDB keeps them.
func Open(userID string, now time.Time, ttl time.Duration) (user.Session, Refresh) {
	now = now.Truncate(time.Millisecond)
	r := Refresh{User: userID, Session: NewID(), family: random(familySize), secret: random(secretSize)}
	return user.Session{
		ID:        r.Session,
		Family:    hash(r.family),
		Token:     hash(r.secret),
		CreatedAt: now,
		RotatedAt: now,
		ExpiresAt: now.Add(ttl),
	}, r
}

// Rotation asks the store to exchange the token for the one that Next makes of
// the rotation's salt.
func (r Refresh) Rotation(now time.Time, ttl, maxTTL time.Duration) user.Rotation {
	salt := random(idSize)
	return user.Rotation{
		User:       r.User,
		Session:    r.Session,
		Generation: r.Generation,
		Family:     hash(r.family),
		Used:       hash(r.secret),
		Token:      hash(r.Next(salt).secret),
		Salt:       salt,
		ExpiresAt:  now.Add(ttl),
		MaxTTL:     maxTTL,
	}
}

// Next returns the token that takes this one's place.
func (r Refresh) Next(salt []byte) Refresh {
	h := hmac.New(sha256.New, r.secret)
	h.Write(salt)
	r.secret = h.Sum(nil)
	r.Generation++
	return r
}

// String returns the token as its owner gets it.
func (r Refresh) String() string {
	b := make([]byte, 0, fixedSize+len(r.User))
	b = append(b, r.family...)
	b = append(b, r.secret...)
	id, err := hex.DecodeString(r.Session)
	if err != nil {
		panic("session id is not hexadecimal") // NewID and Parse make no other
	}
	b = append(b, id...)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Generation))
	b = append(b, r.User...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Parse reads a refresh token, or returns ErrMalformed. That it is well formed
// says nothing of its worth.
func Parse(s string) (Refresh, error) {
	if len(s) > base64.RawURLEncoding.EncodedLen(fixedSize+user.MaxID) {
		return Refresh{}, ErrMalformed
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) <= fixedSize || base64.RawURLEncoding.EncodedLen(len(b)) != len(s) {
		return Refresh{}, ErrMalformed // the last: a decoder skips line breaks
	}
	family, b := b[:familySize], b[familySize:]
	secret, b := b[:secretSize], b[secretSize:]
	id, b := b[:idSize], b[idSize:]
	generation, owner := binary.BigEndian.Uint32(b), b[countSize:]
	if !utf8.Valid(owner) || generation > math.MaxInt32 {
		return Refresh{}, ErrMalformed
	}
	return Refresh{User: string(owner), Session: hex.EncodeToString(id), Generation: int(generation), family: family, secret: secret}, nil
}

func hash(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}
