package openapi

import (
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/password/policy"
)

// A sample is a request and its response. The document shows it as an example.
type sample struct {
	name, summary string // the name is unique in the function
	body          string // JSON that the schema allows
	request       *request
	status        int
	headers       map[string]string // response headers that not every response has
	response      string            // JSON
}

func (x sample) documented() example {
	return example{Summary: x.summary, Request: x.request, Headers: x.headers, Value: raw(x.response)}
}

// These values stand for values that the system generates. A replay only checks that equal
// values stay equal. The tokens can be decoded.
const (
	issuer    = "https://api.ticketing.example"
	userID    = "7d5c0a2c49f14f0b8b5f3f6d0c9be6a1"
	jwtHeader = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9."

	first  = jwtHeader + "eyJzdWIiOiJhbm4iLCJuIjoxfQ.c2lnbmF0dXJl" // {"sub":"ann","n":1}
	second = jwtHeader + "eyJzdWIiOiJhbm4iLCJuIjoyfQ.c2lnbmF0dXJl"
	third  = jwtHeader + "eyJzdWIiOiJhbm4iLCJuIjozfQ.c2lnbmF0dXJl"
	fourth = jwtHeader + "eyJzdWIiOiJhbm4iLCJuIjo0fQ.c2lnbmF0dXJl"

	secret = "correct horse battery staple"
)

// examples returns the samples of each function. They form one conversation of the user
// ann@example.com. A replay sends them in the order of the document: by function, by status
// and then by position. Later samples use values from the responses to earlier ones.
func examples() map[string][]sample {
	key := &request{Headers: map[string]string{"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}}
	var wrong apierror.Fields
	wrong.Add("email", string(email.ErrMalformed))
	wrong.Add("password", string(policy.Guessable))
	return map[string][]sample{
		"signup": {
			{name: "success", summary: "A new account.", request: key, body: credentials("Ann@Example.com", secret),
				status: 201, response: grant(first, "refresh-token-1")},
			{name: "retry", summary: "A retry with the same key. The account exists already and gets another session.", request: key,
				body: credentials("Ann@Example.com", secret), status: 201, response: grant(second, "refresh-token-2")},
			with(key, rejected("key-reused", "The key was used with a different request.", credentials("bob@example.com", secret),
				apierror.New(apierror.Mismatch, "This Idempotency-Key, or this event, was used with another request."))),
			rejected("email-in-use", "Another account has this email.", credentials("ann@example.com", secret), apierror.Field("email", "This email is in use.")),
			rejected("invalid-members", "The response lists all invalid members.", credentials("ann@example", "password1"), wrong.Err()),
		},
		"signin": {
			{name: "success", summary: "A new session.", body: credentials("ann@example.com", secret), status: 200, response: grant(third, "refresh-token-3")},
			rejected("wrong-password", "The password is wrong.", credentials("ann@example.com", "wrong horse"), apierror.Credentials(nil)),
			rejected("unknown-email", "The response to an unknown email is the same as to a wrong password.", credentials("bob@example.com", secret), apierror.Credentials(nil)),
		},
		"signout": {
			{name: "success", summary: "The session of the token ends.", request: bearer(third), status: 200, response: `{"message":"Signed out."}`},
			{name: "retry", summary: "The session has already ended.", request: bearer(third), status: 200, response: `{"message":"Signed out."}`},
		},
		"currentuser": {
			{name: "success", summary: "The user of the token.", request: bearer(first), status: 200, response: `{"currentUser":{"id":"` + userID + `","email":"ann@example.com"}}`},
			{name: "anonymous", summary: "The request has no token.", status: 200, response: `{"currentUser":null}`},
			with(bearer(third), rejected("session-revoked", "The session of the token has ended.", "", apierror.InvalidToken(nil))),
		},
		"refresh": {
			{name: "success", summary: "A new access token and a new refresh token.", body: `{"refreshToken":"refresh-token-1"}`, status: 200, response: grant(fourth, "refresh-token-4")},
			{name: "retry", summary: "The same refresh token within 10 seconds gets the same response.", body: `{"refreshToken":"refresh-token-1"}`, status: 200, response: grant(fourth, "refresh-token-4")},
			rejected("session-revoked", "The session has ended.", `{"refreshToken":"refresh-token-3"}`, apierror.InvalidToken(nil)),
			rejected("invalid-token", "The service did not issue this token.", `{"refreshToken":"nonsense"}`, apierror.InvalidToken(nil)),
		},
		"introspect": {
			{name: "active", summary: "A valid token.", request: &request{Headers: service()}, body: "token=" + fourth, status: 200,
				response: `{"active":true,"token_type":"Bearer","iss":"` + issuer + `","aud":"ticketing","sub":"` + userID + `","sid":"1f0e2d3c4b5a69788796a5b4c3d2e1f0","jti":"1f0e2d3c4b5a69788796a5b4c3d2e1f0.1.a8d1f2c3b4a59687","client_id":"web","iat":1772366400,"exp":1772367300,"auth_time":1772366400,"amr":["pwd"],"acr":"aal1","email":"ann@example.com","email_verified":false}`},
			{name: "ended", summary: "The session of the token has ended. The answer to a forged or an expired token is the same.", request: &request{Headers: service()}, body: "token=" + third, status: 200, response: `{"active":false}`},
		},
		"revocations": {
			{name: "success", summary: "One session has ended.", status: 200, response: `{"cursor":"1772366370000","window":960,"sessions":["9b74c9897bac770ffc029102a200c5de"],"users":[]}`},
		},
		"oauthMetadata": {
			{name: "metadata", summary: "TOKEN_ISSUER is an https URL.", status: 200,
				response: `{"issuer":"` + issuer + `","jwks_uri":"` + issuer + `/.well-known/jwks.json","response_types_supported":[],"grant_types_supported":[]}`},
		},
		"openidConfiguration": {
			{name: "configuration", summary: "TOKEN_ISSUER is an https URL.", status: 200,
				response: `{"issuer":"` + issuer + `","jwks_uri":"` + issuer + `/.well-known/jwks.json","response_types_supported":[],"grant_types_supported":[],` +
					`"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["EdDSA"],` +
					`"claims_supported":["iss","aud","sub","client_id","sid","jti","iat","exp","email","email_verified","auth_time","amr","acr","roles"]}`},
		},
		"jwks": {
			{name: "keys", summary: "One key. During a key rotation there are several.", status: 200,
				response: `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","alg":"EdDSA","use":"sig"}]}`}, // RFC 8037 appendix A
		},
	}
}

func credentials(email, password string) string {
	return `{"email":"` + email + `","password":"` + password + `"}`
}

func grant(token, refreshToken string) string {
	return `{"user":{"id":"` + userID + `","email":"ann@example.com"},"token":"` + token + `","refreshToken":"` + refreshToken + `","expiresIn":900}`
}

func bearer(token string) *request {
	return &request{Headers: map[string]string{"Authorization": "Bearer " + token}}
}

func with(request *request, x sample) sample {
	x.request = request
	return x
}

func rejected(name, summary, body string, err error) sample {
	x := errorSample(name, summary, err)
	x.body = body
	return x
}
