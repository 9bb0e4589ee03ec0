package session_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/session"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC)

func TestParse_RoundTrip(t *testing.T) {
	for _, id := range []string{session.NewID(), "5f7c1c1c1c1c1c1c1c1c1c1c", "û", strings.Repeat("x", 128)} {
		_, r := session.Open(id, now, time.Hour)
		got, err := session.Parse(r.String())
		if err != nil || got.User != id || got.Session != r.Session || got.String() != r.String() {
			t.Errorf("user %q: got %v, %v; want %v", id, got, err, r)
		}
	}
}

func TestParse_Malformed(t *testing.T) {
	_, r := session.Open("ann", now, time.Hour)
	good := r.String()
	for name, s := range map[string]string{
		"an empty string":            "",
		"the fixed parts alone":      base64.RawURLEncoding.EncodeToString(make([]byte, 68)),
		"a truncated token":          good[:40],
		"padding":                    good + "=",
		"a line break":               good[:10] + "\n" + good[10:],
		"a carriage return":          good + "\r",
		"the standard alphabet":      "+/" + good[2:],
		"unused bits that are set":   base64.RawURLEncoding.EncodeToString(make([]byte, 71))[:94] + "B",
		"a user id of invalid UTF-8": base64.RawURLEncoding.EncodeToString(append(make([]byte, 68), 0xff)),
		"a generation out of range":  base64.RawURLEncoding.EncodeToString(append(bytes.Repeat([]byte{0xff}, 68), 'a')),
		"a user id over the limit":   base64.RawURLEncoding.EncodeToString(make([]byte, 68+129)),
	} {
		if _, err := session.Parse(s); !errors.Is(err, session.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestOpen_RecordHoldsNoSecret(t *testing.T) {
	s, r := session.Open("ann", now, time.Hour)
	token, err := base64.RawURLEncoding.DecodeString(r.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, stored := range [][]byte{s.Family, s.Token} {
		if strings.Contains(string(token), string(stored)) {
			t.Errorf("the record holds %x, a part of the token; want digests only", stored)
		}
	}
	if s.ExpiresAt != now.Truncate(time.Millisecond).Add(time.Hour) || s.CreatedAt != s.RotatedAt {
		t.Errorf("got %+v, want one that was just created and expires in an hour, in whole milliseconds", s)
	}
}

func TestOpen_SecretsAreUnique(t *testing.T) {
	first, r := session.Open("ann", now, time.Hour)
	second, other := session.Open("ann", now, time.Hour)
	if first.ID == second.ID || string(first.Family) == string(second.Family) || string(first.Token) == string(second.Token) {
		t.Errorf("two sessions share a secret: %+v, %+v", first, second)
	}
	const size = 16 + 32 + 16 // family, secret and session id, in bytes
	if n := len(r.String()) * 6 / 8; n < size || r.String() == other.String() {
		t.Errorf("got tokens of %d bytes, alike: %t; want at least %d bytes", n, r.String() == other.String(), size)
	}
}

func TestRefresh_NextDependsOnTokenAndSaltOnly(t *testing.T) {
	s, r := session.Open("ann", now, time.Hour)
	rotation := r.Rotation(now, time.Hour, 0)
	if string(rotation.Used) != string(s.Token) || string(rotation.Family) != string(s.Family) {
		t.Errorf("the rotation has digests %x and %x, want those of the record, %x and %x", rotation.Used, rotation.Family, s.Token, s.Family)
	}
	next := r.Next(rotation.Salt)
	if again := r.Next(rotation.Salt); again.String() != next.String() {
		t.Errorf("the same salt gives %v, want %v again", again, next)
	}
	after := next.Rotation(now, time.Hour, 0)
	if string(after.Used) != string(rotation.Token) {
		t.Errorf("the next token has the digest %x, want %x of the rotation", after.Used, rotation.Token)
	}
	if other := r.Rotation(now, time.Hour, 0); string(other.Token) == string(rotation.Token) {
		t.Errorf("two rotations of one token have the same next token, %x", other.Token)
	}
}

func FuzzParse(f *testing.F) {
	_, r := session.Open("ann", now, time.Hour)
	f.Add(r.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := session.Parse(s); err == nil && r.String() != s {
			t.Errorf("Parse(%q).String(): got %q, want the input", s, r.String())
		}
	})
}
