package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// The algorithms (RFC 8037, RFC 7518 section 3.4). A key has exactly one.
const (
	EdDSA = "EdDSA" // over Ed25519
	ES256 = "ES256" // ECDSA over P-256 with SHA-256
)

const p256Size = 32 // of a coordinate, in bytes

// A Set is a JWK Set (RFC 7517 section 5).
type Set struct {
	Keys []JWK `json:"keys"`
}

// A JWK is the JSON form of a key (RFC 8037 section 2, RFC 7518 section 6.2). It serves programs
// that create and store keys. Signing and verifying use a parsed set.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`          // the public key or its x coordinate, in base64url
	Y         string `json:"y,omitzero"` // the y coordinate of a P-256 key
	D         string `json:"d,omitzero"` // the seed or the scalar of a private key; empty for a public key
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

// GenerateKey returns a new private key of an algorithm.
func GenerateKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case EdDSA:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, errors.New("the algorithm is not " + EdDSA + " or " + ES256)
}

// NewJWK returns the JSON form of a private key: an ed25519.PrivateKey or an *ecdsa.PrivateKey
// over P-256. It panics for another type.
func NewJWK(key crypto.Signer) JWK {
	k := publicJWK(key.Public())
	switch key := key.(type) {
	case ed25519.PrivateKey:
		k.D = b64.EncodeToString(key.Seed())
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		if err != nil {
			panic("token: " + err.Error()) // a programming error
		}
		k.D = b64.EncodeToString(d)
	}
	return k
}

func publicJWK(key crypto.PublicKey) JWK {
	k := JWK{Use: "sig"}
	switch key := key.(type) {
	case ed25519.PublicKey:
		k.KeyType, k.Curve, k.Algorithm, k.X = "OKP", "Ed25519", EdDSA, b64.EncodeToString(key)
	case *ecdsa.PublicKey:
		point, err := key.Bytes() // 4, x, y
		if err != nil || key.Curve != elliptic.P256() {
			panic("token: the key is not a key over P-256") // a programming error
		}
		k.KeyType, k.Curve, k.Algorithm = "EC", "P-256", ES256
		k.X, k.Y = b64.EncodeToString(point[1:1+p256Size]), b64.EncodeToString(point[1+p256Size:])
	default:
		panic(fmt.Sprintf("token: %T is not a key of a token", key)) // a programming error
	}
	k.ID = k.thumbprint()
	return k
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

// Thumbprint returns the kid of a public key. It is the SHA-256 digest of the required members in
// lexical order, without white space (RFC 7638 section 3.2, RFC 8037 section 2).
func Thumbprint(key crypto.PublicKey) string { return publicJWK(key).ID }

func (k JWK) thumbprint() string {
	y := ""
	if k.KeyType == "EC" {
		y = `,"y":"` + k.Y + `"`
	}
	sum := sha256.Sum256([]byte(`{"crv":"` + k.Curve + `","kty":"` + k.KeyType + `","x":"` + k.X + `"` + y + `}`))
	return b64.EncodeToString(sum[:])
}

var b64 = base64.RawURLEncoding.Strict()

func (k JWK) public() (crypto.PublicKey, error) {
	if k.D != "" {
		return nil, errors.New("it is private (it has d) and the set is public")
	}
	return k.check()
}

func (k JWK) private() (crypto.Signer, error) {
	public, err := k.check()
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
	var key crypto.Signer
	if k.KeyType == "OKP" {
		key = ed25519.NewKeyFromSeed(d)
	} else if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), d); err != nil {
		return nil, errors.New("d is not a private key over P-256")
	}
	if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
		return nil, errors.New("d is the private key of another public key")
	}
	return key, nil
}

// check validates the members of a public key and returns the key.
func (k JWK) check() (crypto.PublicKey, error) {
	var curve, algorithm string
	switch k.KeyType {
	case "OKP":
		curve, algorithm = "Ed25519", EdDSA
	case "EC":
		curve, algorithm = "P-256", ES256
	default:
		return nil, errors.New("kty is not OKP or EC")
	}
	if k.Curve != curve {
		return nil, errors.New("crv is not " + curve)
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
	var key crypto.PublicKey = ed25519.PublicKey(x)
	if k.KeyType == "EC" {
		y, ok := decode32(k.Y)
		if !ok {
			return nil, errors.New("y is not 32 bytes in base64url")
		}
		point, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil { // an invalid curve attack (RFC 8725 section 3.4)
			return nil, errors.New("x and y are not a point of P-256")
		}
		key = point
	}
	if k.ID != "" && k.ID != Thumbprint(key) {
		return nil, errors.New("kid is not the thumbprint of the key")
	}
	return key, nil
}

// decode32 decodes 32 bytes. It checks the length before and after decoding, because package
// base64 skips line breaks.
func decode32(s string) ([]byte, bool) {
	b, err := b64.DecodeString(s)
	return b, err == nil && len(b) == 32 && len(s) == b64.EncodedLen(32)
}
