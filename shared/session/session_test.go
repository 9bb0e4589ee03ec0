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

func TestARefreshTokenIsReadAsItWasWritten(t *testing.T) {
	for _, id := range []string{session.NewID(), "5f7c1c1c1c1c1c1c1c1c1c1c", "û", strings.Repeat("x", 128)} {
		_, r := session.Open(id, now, time.Hour)
		got, err := session.Parse(r.String())
		if err != nil || got.User != id || got.Session != r.Session || got.String() != r.String() {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
}

func TestWhatIsNoRefreshTokenIsMalformed(t *testing.T) {
	_, r := session.Open("ann", now, time.Hour)
	good := r.String()
	for name, s := range map[string]string{
		"nothing":                       "",
		"nothing but the fixed parts":   base64.RawURLEncoding.EncodeToString(make([]byte, 68)),
		"one that was cut":              good[:40],
		"one with padding":              good + "=",
		"one with a line break":         good[:10] + "\n" + good[10:],
		"one with a carriage return":    good + "\r",
		"the standard alphabet":         "+/" + good[2:],
		"bits that are not used":        base64.RawURLEncoding.EncodeToString(make([]byte, 71))[:94] + "B",
		"a user that is no valid UTF-8": base64.RawURLEncoding.EncodeToString(append(make([]byte, 68), 0xff)),
		"a generation out of range":     base64.RawURLEncoding.EncodeToString(append(bytes.Repeat([]byte{0xff}, 68), 'a')),
		"one that is too long":          base64.RawURLEncoding.EncodeToString(make([]byte, 68+129)),
	} {
		if _, err := session.Parse(s); !errors.Is(err, session.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheRecordHoldsNothingThatRefreshes(t *testing.T) {
	s, r := session.Open("ann", now, time.Hour)
	token, err := base64.RawURLEncoding.DecodeString(r.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, stored := range [][]byte{s.Family, s.Token} {
		if strings.Contains(string(token), string(stored)) {
			t.Error("the record holds a part of the token")
		}
	}
	if s.ExpiresAt != now.Truncate(time.Millisecond).Add(time.Hour) || s.CreatedAt != s.RotatedAt {
		t.Errorf("record %+v", s)
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

func TestTheNextTokenFollowsFromTheOneBeforeAndTheSaltAlone(t *testing.T) {
	s, r := session.Open("ann", now, time.Hour)
	rotation := r.Rotation(now, time.Hour, 0)
	if string(rotation.Used) != string(s.Token) || string(rotation.Family) != string(s.Family) {
		t.Error("the rotation does not match the record")
	}
	next := r.Next(rotation.Salt)
	if again := r.Next(rotation.Salt); again.String() != next.String() {
		t.Error("the same salt gives another token")
	}
	after := next.Rotation(now, time.Hour, 0)
	if string(after.Used) != string(rotation.Token) {
		t.Error("the next token is not the one the rotation stored")
	}
	if other := r.Rotation(now, time.Hour, 0); string(other.Token) == string(rotation.Token) {
		t.Error("two rotations of one token are alike")
	}
}

func FuzzParse(f *testing.F) {
	_, r := session.Open("ann", now, time.Hour)
	f.Add(r.String())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := session.Parse(s); err == nil && r.String() != s {
			t.Errorf("%q is read as %q", s, r.String())
		}
	})
}
