// Package jwks is the function that publishes the public keys, and the documents in which libraries
// find them. With the keys every other service verifies access tokens by itself. The function holds
// no secret and opens no database.
package jwks

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/reference"
)

const keysPath = "/.well-known/jwks.json"

// Function serves the keys and the two discovery documents.
var Function = endpoint.Function{
	Name:  "jwks",
	Needs: []endpoint.Need{accesstoken.Keys, {Settings: []string{"TOKEN_ISSUER"}}},
	Endpoints: []endpoint.Endpoint{
		endpoint.WithOutput[accesstoken.Set](endpoint.Define(spec("jwks", keysPath,
			"Publish the keys that verify access tokens (RFC 7517)."), accesstoken.KeysFromConfig, handle)),
		endpoint.Define(discovery("oauthMetadata", "/.well-known/oauth-authorization-server",
			"Publish the issuer and the address of the keys (RFC 8414)."), newMetadata, metadata.oauth),
		endpoint.Define(discovery("openidConfiguration", "/.well-known/openid-configuration",
			"Publish the same for libraries of OpenID Connect (OpenID Connect Discovery 1.0)."), newMetadata, metadata.openid),
	},
}

func spec(id, path, summary string) endpoint.Spec {
	return endpoint.Spec{
		ID: id, Method: http.MethodGet, Path: path, Access: endpoint.Public, Success: http.StatusOK, Summary: summary,
		MaxAge: 5 * time.Minute, // a new key is published at least this long before it signs
	}
}

func discovery(id, path, summary string) endpoint.Spec {
	s := spec(id, path, summary)
	s.Refuses = []apierror.Kind{apierror.NotFound}
	return s
}

func handle(keys *token.VerifyingKeys, _ context.Context, _ endpoint.None) (jsontext.Value, error) {
	return keys.JWKS(), nil
}

// OAuth is the metadata of RFC 8414. It names no endpoint of OAuth, because users sign in at the
// endpoints of this system.
type OAuth struct {
	Issuer        string   `json:"issuer"`
	KeysURL       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	GrantTypes    []string `json:"grant_types_supported"`
}

// OpenID is the configuration of OpenID Connect Discovery 1.0, section 3.
type OpenID struct {
	Issuer        string   `json:"issuer"`
	KeysURL       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	GrantTypes    []string `json:"grant_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	Claims        []string `json:"claims_supported"`
}

var described = []reference.Member{
	{Name: "issuer", Format: "uri", About: "The claim iss of every token."},
	{Name: "jwks_uri", Format: "uri"},
	{Name: "response_types_supported", About: "Always empty: there is no authorization endpoint."},
	{Name: "grant_types_supported", About: "Always empty: there is no token endpoint."},
}

// Members implements reference.Described.
func (OAuth) Members() []reference.Member { return described }

// Members implements reference.Described.
func (OpenID) Members() []reference.Member {
	return append(described[:len(described):len(described)],
		reference.Member{Name: "subject_types_supported", About: "Always public: all services see the same id of a user."},
		reference.Member{Name: "id_token_signing_alg_values_supported", About: "The algorithms of the published keys. Access tokens are signed with them."},
		reference.Member{Name: "claims_supported", About: "The claims of an access token."})
}

type metadata struct {
	issuer string // empty unless it is an https URL
	keys   *token.VerifyingKeys
}

// newMetadata reads TOKEN_ISSUER. The documents exist only if it is an https URL without a path:
// with a path they would be at other addresses (RFC 8414 section 3.1).
func newMetadata(cfg *config.Config) metadata {
	issuer := accesstoken.IssuerName(cfg)
	if u, err := url.Parse(issuer); err != nil || u.Scheme != "https" || u.Host == "" || issuer != "https://"+u.Host {
		issuer = ""
	}
	return metadata{issuer, accesstoken.KeysFromConfig(cfg)}
}

func (m metadata) oauth(context.Context, endpoint.None) (OAuth, error) {
	if m.issuer == "" {
		return OAuth{}, notFound()
	}
	return OAuth{Issuer: m.issuer, KeysURL: m.issuer + keysPath, ResponseTypes: []string{}, GrantTypes: []string{}}, nil
}

func (m metadata) openid(context.Context, endpoint.None) (OpenID, error) {
	if m.issuer == "" {
		return OpenID{}, notFound()
	}
	return OpenID{
		Issuer: m.issuer, KeysURL: m.issuer + keysPath, ResponseTypes: []string{}, GrantTypes: []string{},
		SubjectTypes: []string{"public"},
		Algorithms:   m.keys.Algorithms(),
		Claims: []string{"iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp", "email", "email_verified",
			"auth_time", "amr", "acr", "roles"},
	}, nil
}

func notFound() error { return apierror.New(apierror.NotFound, "There is nothing here.") }
