package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"ticketing.com/auth/shared/reference"
)

// A Set is a JWK Set (RFC 7517 section 5).
type Set struct {
	Keys []JWK `json:"keys"`
}

// A JWK is the JSON form of an Ed25519 key (RFC 8037 section 2). It serves programs that create
// and store keys. Signing and verifying use a parsed set.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`          // the public key, in base64url
	D         string `json:"d,omitzero"` // the seed of a private key; empty for a public key
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

// Members implements reference.Described, for a public key.
func (JWK) Members() []reference.Member {
	return []reference.Member{
		{Name: "x", Opaque: true, About: "The public key, in base64url."},
		{Name: "d", Secret: true},
		{Name: "kid", Opaque: true, About: "The thumbprint of the key (RFC 7638). The header of a token names it."},
	}
}

// NewJWK returns the JSON form of a private key.
func NewJWK(key ed25519.PrivateKey) JWK {
	k := publicJWK(key.Public().(ed25519.PublicKey))
	k.D = b64.EncodeToString(key.Seed())
	return k
}

func publicJWK(key ed25519.PublicKey) JWK {
	return JWK{
		KeyType:   "OKP",
		Curve:     "Ed25519",
		X:         b64.EncodeToString(key),
		ID:        Thumbprint(key),
		Algorithm: algorithm,
		Use:       "sig",
	}
}

// Public returns the key without its private part.
func (k JWK) Public() JWK {
	k.D = ""
	return k
}

// Format writes the key id only, for every verb: logs must not contain the private key.
func (k JWK) Format(f fmt.State, _ rune) { io.WriteString(f, k.ID) }

// LogValue returns the key id, for the same reason.
func (k JWK) LogValue() slog.Value { return slog.StringValue(k.ID) }

// Thumbprint returns the kid of a key. It is the SHA-256 digest of the required members in lexical
// order, without white space (RFC 7638 section 3.2, RFC 8037 section 2).
func Thumbprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + b64.EncodeToString(key) + `"}`))
	return b64.EncodeToString(sum[:])
}

var b64 = base64.RawURLEncoding.Strict()

func (k JWK) public() (ed25519.PublicKey, error) {
	if k.D != "" {
		return nil, errors.New("it is private (it has d) and the set is public")
	}
	return k.check()
}

func (k JWK) private() (ed25519.PrivateKey, error) {
	x, err := k.check()
	if err != nil {
		return nil, err
	}
	if k.D == "" {
		return nil, errors.New("it is public (it has no d) and the set is private")
	}
	d, ok := decode32(k.D)
	if !ok {
		return nil, errors.New("d is not 32 bytes in base64url")
	}
	key := ed25519.NewKeyFromSeed(d)
	if !x.Equal(key.Public()) {
		return nil, errors.New("x is not the public key of d")
	}
	return key, nil
}

// check validates the members of a public key and returns the key.
func (k JWK) check() (ed25519.PublicKey, error) {
	if k.KeyType != "OKP" {
		return nil, errors.New("kty is not OKP")
	}
	if k.Curve != "Ed25519" {
		return nil, errors.New("crv is not Ed25519")
	}
	if k.Algorithm != "" && k.Algorithm != algorithm {
		return nil, errors.New("alg is not " + algorithm)
	}
	if k.Use != "" && k.Use != "sig" {
		return nil, errors.New("use is not sig")
	}
	x, ok := decode32(k.X)
	if !ok {
		return nil, errors.New("x is not 32 bytes in base64url")
	}
	if k.ID != "" && k.ID != Thumbprint(x) {
		return nil, errors.New("kid is not the thumbprint of the key")
	}
	return x, nil
}

// decode32 decodes 32 bytes. It checks the length before and after decoding, because package
// base64 skips line breaks.
func decode32(s string) ([]byte, bool) {
	b, err := b64.DecodeString(s)
	return b, err == nil && len(b) == 32 && len(s) == b64.EncodedLen(32)
}
