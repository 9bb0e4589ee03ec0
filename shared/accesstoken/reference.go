package accesstoken

import "ticketing.com/auth/shared/reference"

// Set describes a public token.Set, for the API reference.
type Set struct {
	Keys []JWK `json:"keys"`
}

// JWK describes a public token.JWK.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	Y         string `json:"y,omitempty"`
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

// Members implements reference.Described.
func (JWK) Members() []reference.Member {
	return []reference.Member{
		{Name: "kty", About: "OKP for a key of Ed25519, EC for a key of P-256."},
		{Name: "x", Opaque: true, About: "The public key or its x coordinate, in base64url."},
		{Name: "y", Opaque: true, About: "The y coordinate of a key of P-256."},
		{Name: "kid", Opaque: true, About: "The thumbprint of the key (RFC 7638). The header of a token names it."},
		{Name: "alg", About: "EdDSA or ES256. The key verifies no token with another algorithm."},
	}
}
