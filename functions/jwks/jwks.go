// Package jwks is the function that publishes the public keys. With them every other service
// verifies access tokens by itself. The function holds no secret and opens no database.
package jwks

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/token"
)

// Endpoint is GET /.well-known/jwks.json.
var Endpoint = endpoint.WithOutput[token.Set](endpoint.Define(endpoint.Spec{
	Name:    "jwks",
	Method:  http.MethodGet,
	Path:    "/.well-known/jwks.json",
	Success: http.StatusOK,
	Summary: "Publish the keys that verify access tokens (RFC 7517).",
	MaxAge:  5 * time.Minute, // a new key is published at least this long before it signs
}, newHandler))

func newHandler(cfg *config.Config) endpoint.Handler[endpoint.None, jsontext.Value] {
	keys := token.KeysFromConfig(cfg)
	return func(context.Context, endpoint.None) (jsontext.Value, error) {
		return keys.JWKS(), nil
	}
}
