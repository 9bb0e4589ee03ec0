// Package identity provides the verified identity of a client to an endpoint. An input
// embeds one of its types, and the handler then receives verified claims:
//
//	type Input struct {
//		identity.Required
//		Title string `json:"title"`
//	}
//
// The claims prove the user and the time of issue. They do not prove that the session is
// still valid: that state is in the user's document (see package token).
package identity

import (
	"context"

	"ticketing.com/auth/shared/accesstoken"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// Required rejects a request without a valid bearer token.
type Required struct {
	Identity token.Claims
	verifier *token.Verifier
}

// Optional admits a request without a bearer token. It rejects an invalid token.
type Optional struct {
	Identity *token.Claims // nil without a token
	verifier *token.Verifier
}

// Expired is Required, but it admits an authentic token that has expired. Use it only to end the
// session of the token.
type Expired struct {
	Identity token.Claims
	verifier *token.Verifier
}

// Access implements the endpoint's identifier.
func (*Required) Access() endpoint.Access { return endpoint.Required }

// Access implements the endpoint's identifier.
func (*Optional) Access() endpoint.Access { return endpoint.Optional }

// Access implements the endpoint's identifier.
func (*Expired) Access() endpoint.Access { return endpoint.Required }

// ConfigurePart reads the settings of accesstoken.VerifierFromConfig.
func (r *Required) ConfigurePart(cfg *config.Config) {
	r.verifier = accesstoken.VerifierFromConfig(cfg)
}

// ConfigurePart reads the settings of accesstoken.VerifierFromConfig.
func (o *Optional) ConfigurePart(cfg *config.Config) {
	o.verifier = accesstoken.VerifierFromConfig(cfg)
}

// ConfigurePart reads the settings of accesstoken.VerifierFromConfig.
func (e *Expired) ConfigurePart(cfg *config.Config) { e.verifier = accesstoken.VerifierFromConfig(cfg) }

// ReadPart implements endpoint.Part.
func (r *Required) ReadPart(ctx context.Context, request *endpoint.Request) (err error) {
	r.Identity, err = verified(ctx, request, r.verifier.Verify)
	return err
}

// ReadPart implements endpoint.Part.
func (o *Optional) ReadPart(ctx context.Context, request *endpoint.Request) error {
	raw, err := request.Bearer()
	if err != nil || raw == "" {
		return err
	}
	claims, err := o.verifier.Verify(ctx, raw)
	if err != nil {
		return apierror.InvalidToken(err)
	}
	o.Identity = &claims
	return nil
}

// ReadPart implements endpoint.Part.
func (e *Expired) ReadPart(ctx context.Context, request *endpoint.Request) (err error) {
	e.Identity, err = verified(ctx, request, e.verifier.VerifyExpired)
	return err
}

func verified(ctx context.Context, request *endpoint.Request, verify func(context.Context, string) (token.Claims, error)) (token.Claims, error) {
	raw, err := request.Bearer()
	if err != nil {
		return token.Claims{}, err
	}
	if raw == "" {
		return token.Claims{}, apierror.NoToken()
	}
	claims, err := verify(ctx, raw)
	if err != nil {
		return token.Claims{}, apierror.InvalidToken(err)
	}
	return claims, nil
}
