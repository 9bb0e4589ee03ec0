package token

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// SigningKeys is a private JWK Set. Its first key signs; the others are checked
// and wait for their turn.
type SigningKeys struct {
	id     string
	key    ed25519.PrivateKey
	public *VerifyingKeys
}

// VerifyingKeys is a public JWK Set: each of its keys verifies.
type VerifyingKeys struct {
	byID     map[string]ed25519.PublicKey
	document []byte
}

// ParsePrivate reads a private JWK Set (RFC 7517 §5). It refuses a set in which
// any key is doubtful; the error says which, by its place from 1, and never holds
// any of the data. Members it does not know are ignored.
func ParsePrivate(data []byte) (*SigningKeys, error) {
	set, err := parse(data, JWK.private)
	if err != nil {
		return nil, err
	}
	public := make([]ed25519.PublicKey, 0, len(set))
	for _, key := range set {
		public = append(public, key.Public().(ed25519.PublicKey))
	}
	verifying, err := newVerifyingKeys(public)
	if err != nil {
		return nil, err
	}
	return &SigningKeys{Thumbprint(public[0]), set[0], verifying}, nil
}

// ParsePublic reads a public JWK Set as ParsePrivate reads a private one. It
// refuses a private key: what is in this set gets published.
func ParsePublic(data []byte) (*VerifyingKeys, error) {
	set, err := parse(data, JWK.public)
	if err != nil {
		return nil, err
	}
	return newVerifyingKeys(set)
}

// Public returns the public halves.
func (k *SigningKeys) Public() *VerifyingKeys { return k.public }

// JWKS returns the JWK Set as it is published: the public keys in their order,
// each with its kid, alg and use, and nothing else.
func (k *VerifyingKeys) JWKS() []byte { return bytes.Clone(k.document) }

// Format keeps the private keys out of logs, whatever the verb.
func (k *SigningKeys) Format(f fmt.State, _ rune) { io.WriteString(f, "signing keys") }

func newVerifyingKeys(keys []ed25519.PublicKey) (*VerifyingKeys, error) {
	k := &VerifyingKeys{byID: make(map[string]ed25519.PublicKey, len(keys))}
	var set Set
	for i, key := range keys {
		jwk := publicJWK(key)
		if _, twice := k.byID[jwk.ID]; twice {
			return nil, fmt.Errorf("key %d: it is in the set twice", i+1)
		}
		k.byID[jwk.ID] = key
		set.Keys = append(set.Keys, jwk)
	}
	var err error
	k.document, err = json.Marshal(set)
	return k, err
}

// parse reads a set and each key of it.
func parse[Key any](data []byte, read func(JWK) (Key, error)) ([]Key, error) {
	var set Set
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, unreadable(err)
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("there is no key in the set")
	}
	keys := make([]Key, 0, len(set.Keys))
	for i, jwk := range set.Keys {
		key, err := read(jwk)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// unreadable says where the JSON is wrong. The decoder's own words quote it, and
// it may be a private key.
func unreadable(err error) error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("not well-formed JSON (byte %d)", e.ByteOffset)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return fmt.Errorf("not a JWK Set (byte %d)", e.ByteOffset)
	}
	return errors.New("not a JWK Set")
}
