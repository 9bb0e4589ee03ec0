package jwks_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"testing"

	"ticketing.com/auth/functions/jwks"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/testing/endpointtest"
)

// The function must start without a database and without a private key.
func TestJWKS(t *testing.T) {
	endpointtest.EveryTransport(t, jwks.Function, play, "SIGNING_KEYS=", "MONGODB_URI=")
}

func play(t *testing.T, b *endpointtest.Fixture) {
	public := b.Keys.Public().(ed25519.PublicKey)
	set := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(public) +
		`","kid":"` + token.Thumbprint(public) + `","alg":"EdDSA","use":"sig"}]}`
	cached := http.Header{"Cache-Control": {"public, max-age=300"}}
	b.Play(t,
		endpointtest.Case{Name: "the public keys are published, without their private parts", Status: http.StatusOK, JSON: set, Want: cached},
		endpointtest.Case{Name: "HEAD has the headers and no body", Call: endpointtest.Call{Method: http.MethodHead}, Status: http.StatusOK, Want: cached},
		endpointtest.Case{Name: "a token is ignored", Call: endpointtest.Call{Header: http.Header{"Authorization": {"Bearer x", "Basic y"}}}, Status: http.StatusOK, JSON: set, Want: cached},
	)
	b.Play(t, endpointtest.HostileRoutes(jwks.Function)...)
}
