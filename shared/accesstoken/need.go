// Package accesstoken configures the issuer and the verifier of access tokens. Package token, which
// other services import too, knows no settings.
package accesstoken

import (
	"crypto/ed25519"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/endpoint"
)

// The needs of a function that issues tokens, verifies tokens, or publishes the keys.
var (
	Signing = endpoint.Need{
		Secret: &endpoint.Secret{Setting: "SIGNING_KEYS", Name: "signing-keys", Key: "signing.jwks",
			Sample: func() string { return sampleSet(sampleKey()) }},
		Settings: []string{"TOKEN_ISSUER", "TOKEN_AUDIENCE", "TOKEN_CLIENT_ID", "ACCESS_TOKEN_TTL"},
	}
	Verifying = endpoint.Need{Secret: verifyingKeys, Settings: []string{"TOKEN_ISSUER", "TOKEN_AUDIENCE"}}
	Keys      = endpoint.Need{Secret: verifyingKeys}
)

var verifyingKeys = &endpoint.Secret{Setting: "VERIFYING_KEYS", Name: "verifying-keys", Key: "verifying.jwks", Public: true,
	Sample: func() string { return sampleSet(sampleKey().Public()) }}

func sampleKey() token.JWK {
	return token.NewJWK(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
}

func sampleSet(key token.JWK) string {
	document, err := json.Marshal(token.Set{Keys: []token.JWK{key}})
	if err != nil {
		panic(err) // a generated key can always be encoded
	}
	return string(document)
}
