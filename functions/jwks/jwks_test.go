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
	t.Parallel()
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

// Libraries find the keys by the issuer. Without an https URL as the issuer there are no documents.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	const issuer = "https://api.ticketing.example"
	oauth := `{"issuer":"` + issuer + `","jwks_uri":"` + issuer + `/.well-known/jwks.json","response_types_supported":[],"grant_types_supported":[]`
	documents := map[string]string{
		"/.well-known/oauth-authorization-server": oauth + `}`,
		"/.well-known/openid-configuration": oauth + `,"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["EdDSA"],` +
			`"claims_supported":["iss","aud","sub","client_id","sid","jti","iat","exp","email","email_verified","auth_time","amr","acr","roles"]}`,
	}
	endpointtest.EveryTransport(t, jwks.Function, func(t *testing.T, b *endpointtest.Fixture) {
		for path, document := range documents {
			b.Play(t,
				endpointtest.Case{Name: path, Call: endpointtest.Call{Path: path}, Status: http.StatusOK, JSON: document, Want: http.Header{"Cache-Control": {"public, max-age=300"}}},
				endpointtest.Case{Name: path + " by POST", Call: endpointtest.Call{Method: http.MethodPost, Path: path}, Status: http.StatusMethodNotAllowed,
					JSON: endpointtest.Errors("This method is not allowed here."), Want: http.Header{"Allow": {"GET, HEAD"}}},
				endpointtest.Case{Name: path + " with a suffix", Call: endpointtest.Call{Path: path + "/tenant"}, Status: http.StatusNotFound, JSON: endpointtest.Errors("There is nothing here.")},
			)
		}
	}, "TOKEN_ISSUER="+issuer, "MONGODB_URI=")
	for _, issuer := range []string{"ticketing", "http://api.ticketing.example", issuer + "/", issuer + "/tenant", issuer + "?x=y", issuer + "#x", "https://ann@api.ticketing.example", "https://", "https:api"} {
		t.Run(issuer, func(t *testing.T) {
			b := endpointtest.New(t, jwks.Function, "TOKEN_ISSUER="+issuer, "MONGODB_URI=")
			for path := range documents {
				endpointtest.Check(t, endpointtest.Case{Status: http.StatusNotFound, JSON: endpointtest.Errors("There is nothing here.")}, b.Do(t, endpointtest.Call{Path: path}))
			}
		})
	}
}
