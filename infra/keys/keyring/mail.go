package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ticketing.com/auth/shared/confirmation"
)

// MailFile holds the keys of package confirmation (MAIL_KEYS_FILE), one per line. The first one
// computes the tokens and codes of mails. The following ones only accept earlier tokens.
const MailFile = "mail.keys"

// mailLife is the longest lifetime of a token in a mail: an undo link is valid for 7 days. The
// margin is for the deployment of the new key.
const mailLife = 8 * 24 * time.Hour

// A MailStep is the result of RotateMail.
type MailStep struct {
	Kind Kind      // Promoted: there is a new first key; Withdrawn: only the first key remains
	Path string    // of the file
	Next time.Time // time from which the next step is safe
	Risk bool      // the step was forced before it was safe
}

// EnsureMail returns the path of the mail keys. It creates the directory and a first key if there
// is none.
func EnsureMail(dir string) (path string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	unlock, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	path = filepath.Join(dir, MailFile)
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	return path, writeMail(dir, confirmation.NewKey())
}

// RotateMail takes the next step of a rotation: it adds a new first key or, once the tokens of the
// old keys have expired, withdraws those. now is compared with the time of the last change, that of
// the file.
func RotateMail(dir string, now time.Time, force bool) (MailStep, error) {
	unlock, err := lock(dir)
	if err != nil {
		return MailStep{}, err
	}
	defer unlock()
	s := MailStep{Kind: Promoted, Path: filepath.Join(dir, MailFile)}
	info, err := os.Stat(s.Path)
	if err != nil {
		return MailStep{}, err
	}
	text, err := os.ReadFile(s.Path)
	if err != nil {
		return MailStep{}, err
	}
	if _, err := confirmation.ParseKeys(string(text)); err != nil {
		return MailStep{}, fmt.Errorf("%s: %w", s.Path, err)
	}
	keys := strings.Fields(string(text))
	if len(keys) == 1 {
		s.Next = now.Add(mailLife)
		return s, writeMail(dir, confirmation.NewKey(), keys[0])
	}
	s.Kind = Withdrawn
	until := info.ModTime().Add(mailLife)
	s.Risk = now.Before(until)
	if s.Risk && !force {
		return MailStep{}, &TooEarly{Withdrawn, until.UTC().Truncate(time.Second).Add(time.Second)}
	}
	return s, writeMail(dir, keys[0])
}

func writeMail(dir string, keys ...string) error {
	return replace(dir, MailFile, 0o600, []byte(strings.Join(keys, "\n")+"\n"))
}
