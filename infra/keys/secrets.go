package main

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ticketing.com/auth/infra/catalog"
	"ticketing.com/auth/infra/keys/keyring"
	"ticketing.com/auth/infra/knative"
	"ticketing.com/auth/shared/mail/smtp"
)

// rootFile holds the secret of the passwords of all database users. They are derived from it, so
// each run prints the same ones. An attacker that reads the file has all passwords.
const rootFile = "mongodb.key"

// secrets returns the manifests of the Secrets, with the keys of a directory.
func secrets(dir, mongodb, smtpFile string) (string, error) {
	verifying, err := keyring.Public(dir) // also checks that the two files belong together
	if err != nil {
		return "", err
	}
	signing, err := os.ReadFile(filepath.Join(dir, keyring.SigningFile))
	if err != nil {
		return "", err
	}
	root, err := ensureRoot(filepath.Join(dir, rootFile))
	if err != nil {
		return "", err
	}
	mailKeys, err := readMail(dir)
	if err != nil {
		return "", err
	}
	server, err := mailServer(smtpFile)
	if err != nil {
		return "", err
	}
	manifests, err := knative.Secrets(catalog.Functions(), knative.Material{
		Signing: signing, Verifying: verifying, Mail: mailKeys, SMTP: server, MongoDB: strings.TrimSpace(mongodb),
		Password: func(user string) string {
			key, err := hkdf.Key(sha256.New, root, nil, "password of the database user "+user, 24)
			if err != nil {
				panic(err) // 24 bytes are within the limit of HKDF
			}
			return hex.EncodeToString(key)
		},
	})
	return string(manifests), err
}

// readMail returns the keys of the tokens in mails. It creates them if there are none.
func readMail(dir string) ([]byte, error) {
	path, err := keyring.EnsureMail(dir)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// mailServer returns the URL of the mail server in a file. A URL on the command line would show its
// password to all users of the machine. Without a file, the server does not exist: mail answers 503.
func mailServer(file string) (string, error) {
	if file == "" {
		return smtp.Sending.Secret.Sample(), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	url := strings.TrimSpace(string(text))
	if err := smtp.Check(url); err != nil {
		return "", fmt.Errorf("%s %w", file, err)
	}
	return url, nil
}

// ensureRoot reads the file, or creates it with 32 random bytes in hexadecimal.
func ensureRoot(path string) ([]byte, error) {
	generated := make([]byte, 32)
	rand.Read(generated) // never fails
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		written, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		root, err := hex.DecodeString(string(written))
		if err != nil || len(root) != len(generated) {
			return nil, fmt.Errorf("%s is damaged: restore it from a backup, because the passwords cannot be derived without it", path)
		}
		return root, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "%x", generated)
	return generated, errors.Join(err, f.Sync(), f.Close())
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
