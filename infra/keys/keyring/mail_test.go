package keyring_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/shared/confirmation"
)

func readKeys(t *testing.T, dir string) (*confirmation.Keys, []string) {
	t.Helper()
	path := filepath.Join(dir, keyring.MailFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("got the mode %v, want 0600", info.Mode())
	}
	keys, err := confirmation.ParseKeys(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return keys, strings.Fields(string(text))
}

// Tokens of the old key are valid until the last step, and the new key computes the new ones.
func TestRotateMail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	now := time.Now()
	if _, err := keyring.RotateMail(dir, now, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without keys: got %v, want ErrNotExist", err)
	}
	for range 2 { // the second call changes nothing
		if path, err := keyring.EnsureMail(dir); err != nil || path != filepath.Join(dir, keyring.MailFile) {
			t.Fatalf("got %s and %v, want the path of the keys", path, err)
		}
	}
	subject := confirmation.Subject{User: "user", Purpose: "undo", Nonce: "N", Expires: now.Add(time.Hour).Truncate(time.Second), Email: "ann@example.com"}
	first, old := readKeys(t, dir)
	token, err := confirmation.Parse(first.Token(subject))
	if err != nil || len(old) != 1 {
		t.Fatalf("got %d keys and %v, want 1", len(old), err)
	}

	s, err := keyring.RotateMail(dir, now, false)
	both, ring := readKeys(t, dir)
	if err != nil || s.Kind != keyring.Promoted || s.Risk || len(ring) != 2 || ring[1] != old[0] {
		t.Fatalf("got %+v, %v and %d keys, want a new key before the old one", s, err, len(ring))
	}
	if !both.Authentic(token, subject.Email) || both.Token(subject) == first.Token(subject) {
		t.Error("the ring must accept the token of the old key, and compute tokens with the new one")
	}

	early := now.Add(8*24*time.Hour - time.Minute)
	if _, err := keyring.RotateMail(dir, early, false); !strings.Contains(errText(err), "too early to withdraw the old key: try again from ") {
		t.Errorf("before the last token has expired: got %v, want that it is too early", err)
	}
	if _, again := readKeys(t, dir); len(again) != 2 {
		t.Errorf("a step that is too early: got %d keys, want 2", len(again))
	}
	for _, force := range []bool{true, false} {
		if err := os.WriteFile(filepath.Join(dir, keyring.MailFile), []byte(strings.Join(ring, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		at := early
		if !force {
			at = time.Now().Add(8*24*time.Hour + time.Minute)
		}
		s, err := keyring.RotateMail(dir, at, force)
		last, left := readKeys(t, dir)
		if err != nil || s.Kind != keyring.Withdrawn || s.Risk != force || len(left) != 1 || left[0] != ring[0] || last.Authentic(token, subject.Email) {
			t.Errorf("force %t: got %+v, %v and %d keys, want the new key alone", force, s, err, len(left))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, keyring.MailFile), []byte("damaged "+ring[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.RotateMail(dir, now, true); err == nil || strings.Contains(err.Error(), ring[0]) {
		t.Errorf("damaged keys: got %v, want an error without a key", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
