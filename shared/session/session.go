// Package session creates sessions and their refresh tokens. It returns them to the owner as a
// Grant.
//
// A refresh token names its user and session and contains two secrets. The family secret is the
// same for every refresh token of the session. It proves that the token was issued. The second
// secret belongs to one token. It proves that the token is the newest.
//
// The database stores only the SHA-256 digests of both. The secrets have 128 and 256 bits of
// entropy, so a fast hash is enough (NIST SP 800-63B section 3.1.2.2).
//
// Each new secret derives from the previous one and a random salt that the database stores. So
// a lost response can be sent again, although it is stored nowhere. Only a client with the
// exchanged token receives it.
//
// The package stores nothing. Package user stores the sessions.
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

// The sizes of the parts of a refresh token, in bytes. The user's id follows them. Its length
// varies, because an imported user can have any id.
const (
	idSize     = 16
	familySize = 16
	secretSize = sha256.Size
	countSize  = 4
	fixedSize  = familySize + secretSize + idSize + countSize
)

// ErrMalformed is the error of Parse for a string that is not a refresh token of this system.
var ErrMalformed = errors.New("malformed refresh token")

// A Refresh is a refresh token.
type Refresh struct {
	User       string // the user's id
	Session    string // the session's id
	Generation int    // number of earlier refreshes of the session

	family, secret []byte
}

// NewID returns a new id of 128 random bits, as 32 hexadecimal digits.
func NewID() string { return hex.EncodeToString(random(idSize)) }

// IDFromKey returns an id derived from a key, so a repeated request gives the same id. For an
// empty key it returns a new id. The id is a digest because unauthenticated clients choose keys.
func IDFromKey(key string) string {
	if key == "" {
		return NewID()
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:idSize])
}

// Open creates a session of a user that begins now and expires after ttl. It also returns the
// first refresh token. Times are whole milliseconds, the precision of MongoDB.
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

// Rotation returns a request to the store: exchange the token for the one that Next derives
// with the salt of the rotation.
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

// Next returns the token that replaces this one.
func (r Refresh) Next(salt []byte) Refresh {
	h := hmac.New(sha256.New, r.secret)
	h.Write(salt)
	r.secret = h.Sum(nil)
	r.Generation++
	return r
}

// String returns the token in the form that its owner receives.
func (r Refresh) String() string {
	b := make([]byte, 0, fixedSize+len(r.User))
	b = append(b, r.family...)
	b = append(b, r.secret...)
	id, err := hex.DecodeString(r.Session)
	if err != nil {
		panic("session id is not hexadecimal") // NewID and Parse return hexadecimal ids only
	}
	b = append(b, id...)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Generation))
	b = append(b, r.User...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Parse parses a refresh token. It returns ErrMalformed for any other string. A well-formed
// token may still be expired, revoked or forged.
func Parse(s string) (Refresh, error) {
	if len(s) > base64.RawURLEncoding.EncodedLen(fixedSize+user.MaxID) {
		return Refresh{}, ErrMalformed
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) <= fixedSize || base64.RawURLEncoding.EncodedLen(len(b)) != len(s) {
		return Refresh{}, ErrMalformed // the length differs if the decoder has skipped line breaks
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
