package token

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// SigningKeys is a private JWK Set. Its first key signs. The others are validated and do not
// sign yet.
type SigningKeys struct {
	id, algorithm string
	key           crypto.Signer
	public        *VerifyingKeys
}

// VerifyingKeys is a public JWK Set. Each of its keys verifies tokens.
type VerifyingKeys struct {
	byID     map[string]*Key
	document []byte
}

// A Key verifies the tokens that name its id.
type Key struct {
	Algorithm string           // the only algorithm of the key (RFC 8725 section 3.1)
	Public    crypto.PublicKey // an ed25519.PublicKey or an *ecdsa.PublicKey
}

// ParsePrivate parses a private JWK Set (RFC 7517 section 5). It rejects a set with an invalid
// key. The error gives the position of the key, from 1, and never contains the data. Unknown
// members are ignored.
func ParsePrivate(data []byte) (*SigningKeys, error) {
	set, err := parse(data, JWK.private)
	if err != nil {
		return nil, err
	}
	public := make([]crypto.PublicKey, 0, len(set))
	for _, key := range set {
		public = append(public, key.Public())
	}
	verifying, err := newVerifyingKeys(public)
	if err != nil {
		return nil, err
	}
	first := publicJWK(public[0])
	return &SigningKeys{first.ID, first.Algorithm, set[0], verifying}, nil
}

// ParsePublic parses a public JWK Set, with the same errors as ParsePrivate. It rejects a
// private key, because the set is published.
func ParsePublic(data []byte) (*VerifyingKeys, error) {
	set, err := parse(data, JWK.public)
	if err != nil {
		return nil, err
	}
	return newVerifyingKeys(set)
}

// Public returns the public keys of the set.
func (k *SigningKeys) Public() *VerifyingKeys { return k.public }

// Key implements KeySource. It returns nil for an unknown id, and never an error.
func (k *VerifyingKeys) Key(_ context.Context, id string) (*Key, error) { return k.byID[id], nil }

// Algorithms returns the algorithms of the keys, each once, in the order of the keys.
func (k *VerifyingKeys) Algorithms() (algorithms []string) {
	var set Set
	json.Unmarshal(k.document, &set) // newVerifyingKeys has encoded it
	for _, key := range set.Keys {
		if !slices.Contains(algorithms, key.Algorithm) {
			algorithms = append(algorithms, key.Algorithm)
		}
	}
	return algorithms
}

// JWKS returns the published JWK Set: the public keys in their order, each with its kid, alg
// and use only.
func (k *VerifyingKeys) JWKS() []byte { return bytes.Clone(k.document) }

// Format writes a fixed text for every verb: logs must not contain the private keys.
func (k *SigningKeys) Format(f fmt.State, _ rune) { io.WriteString(f, "signing keys") }

func newVerifyingKeys(keys []crypto.PublicKey) (*VerifyingKeys, error) {
	k := &VerifyingKeys{byID: make(map[string]*Key, len(keys))}
	var set Set
	for i, key := range keys {
		jwk := publicJWK(key)
		if k.byID[jwk.ID] != nil {
			return nil, fmt.Errorf("key %d: it is in the set twice", i+1)
		}
		k.byID[jwk.ID] = &Key{jwk.Algorithm, key}
		set.Keys = append(set.Keys, jwk)
	}
	var err error
	k.document, err = json.Marshal(set)
	return k, err
}

// parse parses a set and each of its keys.
func parse[Key any](data []byte, read func(JWK) (Key, error)) ([]Key, error) {
	var set Set
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, syntaxError(err)
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("the set has no key")
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

// syntaxError returns an error with the position of the JSON error. The decoder's own text
// quotes the JSON, and that may be a private key.
func syntaxError(err error) error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("not well-formed JSON (byte %d)", e.ByteOffset)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return fmt.Errorf("not a JWK Set (byte %d)", e.ByteOffset)
	}
	return errors.New("not a JWK Set")
}
