// Package jwks is the function that publishes the public keys. With them every other service
// verifies access tokens by itself. The function holds no secret and opens no database.
package jwks

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/endpoint"
)

// Function serves GET /.well-known/jwks.json.
var Function = endpoint.Function{
	Name:  "jwks",
	Needs: []endpoint.Need{accesstoken.Keys},
	Endpoints: []endpoint.Endpoint{endpoint.WithOutput[token.Set](endpoint.Define(endpoint.Spec{
		Method:  http.MethodGet,
		Path:    "/.well-known/jwks.json",
		Access:  endpoint.Public,
		Success: http.StatusOK,
		Summary: "Publish the keys that verify access tokens (RFC 7517).",
		MaxAge:  5 * time.Minute, // a new key is published at least this long before it signs
	}, accesstoken.KeysFromConfig, handle))},
}

func handle(keys *token.VerifyingKeys, _ context.Context, _ endpoint.None) (jsontext.Value, error) {
	return keys.JWKS(), nil
}
