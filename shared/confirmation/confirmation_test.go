package confirmation_test

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/confirmation"
	"ticketing.com/auth/shared/events/event"
)

var subject = confirmation.Subject{User: "a.user.û", Purpose: event.Recovery, Nonce: "N0NCE", Expires: time.Unix(1_800_000_000, 0), Email: "ann@example.com"}

func keys(t *testing.T, text string) *confirmation.Keys {
	t.Helper()
	k, err := confirmation.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestToken(t *testing.T) {
	first, second := confirmation.NewKey(), confirmation.NewKey()
	k := keys(t, first)
	raw := k.Token(subject)
	token, err := confirmation.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := subject
	want.Email = ""
	if token.Subject != want {
		t.Errorf("got %+v, want %+v", token.Subject, want)
	}
	for name, c := range map[string]struct {
		keys, email string
		want        bool
	}{
		"the key":             {first, subject.Email, true},
		"a ring with the key": {second + "\n" + first, subject.Email, true},
		"another key":         {second, subject.Email, false},
		"another mailbox":     {first, "bob@example.com", false},
	} {
		if got := keys(t, c.keys).Authentic(token, c.email); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
	b, _ := base64.RawURLEncoding.DecodeString(raw)
	for i := range b { // no bit of a token is unprotected
		b[i] ^= 1
		forged, err := confirmation.Parse(base64.RawURLEncoding.EncodeToString(b))
		if err == nil && k.Authentic(forged, subject.Email) {
			t.Errorf("byte %d can be changed", i)
		}
		b[i] ^= 1
	}
}

func TestCode(t *testing.T) {
	first, second := confirmation.NewKey(), confirmation.NewKey()
	k := keys(t, first)
	code := k.Code(subject)
	if len(code) != 6 || strings.Trim(code, "0123456789") != "" {
		t.Fatalf("got %q, want six digits", code)
	}
	other := subject
	other.Nonce = "ANOTHER"
	for name, c := range map[string]struct {
		keys    string
		subject confirmation.Subject
		code    string
		want    bool
	}{
		"the key":                     {first, subject, code, true},
		"a ring with the key":         {second + " " + first, subject, code, true},
		"the code of another request": {first, other, code, k.Code(other) == code},
		"a prefix":                    {first, subject, code[:5], false},
		"nothing":                     {first, subject, "", false},
	} {
		if got := keys(t, c.keys).Matches(c.subject, c.code); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		s := subject
		s.Nonce = rand.Text()
		seen[k.Code(s)] = true
	}
	if len(seen) < 90 { // the probability of fewer is below 10⁻²⁰
		t.Errorf("100 requests have %d different codes", len(seen))
	}
	if b, err := base64.RawURLEncoding.DecodeString(k.Token(subject)); err != nil || strings.Contains(string(b), code) {
		t.Error("the token contains the code")
	}
}

func TestParse_Malformed(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	mac := strings.Repeat("m", 32)
	good := encode([]byte("u.recovery.n.1" + mac))
	if _, err := confirmation.Parse(good); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"nothing":                  "",
		"no base64url":             good + "=",
		"a line break":             good[:4] + "\n" + good[4:],
		"too few parts":            encode([]byte("recovery.n.1" + mac)),
		"no user":                  encode([]byte(".recovery.n.1" + mac)),
		"a user that is not UTF-8": encode([]byte("\xff.recovery.n.1" + mac)),
		"an expiry with a sign":    encode([]byte("u.recovery.n.+1" + mac)),
		"an expiry with a zero":    encode([]byte("u.recovery.n.01" + mac)),
		"only a MAC":               encode([]byte(mac)),
		"a long text":              encode([]byte(strings.Repeat("u", 600) + ".recovery.n.1" + mac)),
	} {
		if _, err := confirmation.Parse(s); !errors.Is(err, confirmation.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestParseKeys_Invalid(t *testing.T) {
	good := confirmation.NewKey()
	for name, text := range map[string]string{
		"nothing":      " \n",
		"a short key":  good + " " + good[:40],
		"no base64url": good + " " + good[:42] + "+",
	} {
		if _, err := confirmation.ParseKeys(text); err == nil || strings.Contains(err.Error(), good[:40]) {
			t.Errorf("%s: got %v, want an error without a key", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	k, _ := confirmation.ParseKeys(strings.Repeat("A", 43))
	f.Add(k.Token(subject))
	f.Fuzz(func(t *testing.T, s string) {
		if token, err := confirmation.Parse(s); err == nil && k.Authentic(token, subject.Email) && k.Token(confirmation.Subject{
			User: token.User, Purpose: token.Purpose, Nonce: token.Nonce, Expires: token.Expires, Email: subject.Email}) != s {
			t.Errorf("%q is authentic, and Token returns another string", s)
		}
	})
}
