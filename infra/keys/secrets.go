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
)

// rootFile holds what the passwords of the database's users are derived from, so
// that they are the same each time. Whoever reads it has them all.
const rootFile = "mongodb.key"

// secrets returns the manifests of the Secrets of a directory's keys.
func secrets(dir, mongodb string) (string, error) {
	verifying, err := keyring.Public(dir) // which checks that the two files belong together
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
	manifests, err := knative.Secrets(catalog.Functions(), knative.Material{
		Signing: signing, Verifying: verifying, MongoDB: strings.TrimSpace(mongodb),
		Password: func(user string) string {
			key, err := hkdf.Key(sha256.New, root, nil, "password of the database user "+user, 24)
			if err != nil {
				panic(err) // 24 bytes can be had
			}
			return hex.EncodeToString(key)
		},
	})
	return string(manifests), err
}

// ensureRoot reads the file, or makes it: 32 random bytes, in hexadecimal.
func ensureRoot(path string) ([]byte, error) {
	made := make([]byte, 32)
	rand.Read(made) // never fails
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		written, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		root, err := hex.DecodeString(string(written))
		if err != nil || len(root) != len(made) {
			return nil, fmt.Errorf("%s is damaged: the passwords that were made of it cannot be made again", path)
		}
		return root, nil
	}
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "%x", made)
	return made, errors.Join(err, f.Sync(), f.Close())
}

func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
