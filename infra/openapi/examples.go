package openapi

import (
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/email"
	"ticketing.com/auth/shared/password/policy"
)

// A scene is a request and its answer.
type scene struct {
	name, summary string // the name is the function's own
	body          string // JSON that the schema allows
	request       *exchange
	status        int
	headers       map[string]string // of the answer, beside those it always has
	answer        string            // JSON
}

func (x scene) documented() example {
	return example{Summary: x.summary, Request: x.request, Headers: x.headers, Value: raw(x.answer)}
}

// What the system makes is written here as something else, of which it only matters
// where it comes again. The tokens say who they are to whoever decodes them.
const (
	ann  = "7d5c0a2c49f14f0b8b5f3f6d0c9be6a1"
	head = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9."

	first  = head + "eyJzdWIiOiJhbm4iLCJuIjoxfQ.c2lnbmF0dXJl" // {"sub":"ann","n":1}
	second = head + "eyJzdWIiOiJhbm4iLCJuIjoyfQ.c2lnbmF0dXJl"
	third  = head + "eyJzdWIiOiJhbm4iLCJuIjozfQ.c2lnbmF0dXJl"
	fourth = head + "eyJzdWIiOiJhbm4iLCJuIjo0fQ.c2lnbmF0dXJl"

	secret = "correct horse battery staple"
)

// examples returns the story of Ann, by function. They are replayed as the document has
// them: function by function, status by status, and each status's from its first to its
// last. What one makes the next ones use.
func examples() map[string][]scene {
	key := &exchange{Headers: map[string]string{"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}}
	var wrong apierror.Fields
	wrong.Add("email", string(email.ErrMalformed))
	wrong.Add("password", string(policy.Guessable))
	return map[string][]scene{
		"signup": {
			{name: "ann", summary: "A new account.", request: key, body: credentials("Ann@Example.com", secret),
				status: 201, answer: granted(first, "refresh-token-1")},
			{name: "again", summary: "The same again, since the answer was lost: the account is there, and gets another session.", request: key,
				body: credentials("Ann@Example.com", secret), status: 201, answer: granted(second, "refresh-token-2")},
			with(key, refused("another-body", "The key of another request.", credentials("bob@example.com", secret),
				apierror.New(apierror.Mismatch, "This Idempotency-Key, or this event, was used with another request."))),
			refused("used-email", "Ann has an account.", credentials("ann@example.com", secret), apierror.Field("email", "This email is in use.")),
			refused("all-wrong", "All faulty members are listed at once.", credentials("ann@example", "password1"), wrong.Err()),
		},
		"signin": {
			{name: "ann", summary: "Another session.", body: credentials("ann@example.com", secret), status: 200, answer: granted(third, "refresh-token-3")},
			refused("wrong-password", "A wrong password.", credentials("ann@example.com", "wrong horse"), apierror.Credentials(nil)),
			refused("unknown-email", "An email that nobody has is not to be told from a wrong password.", credentials("bob@example.com", secret), apierror.Credentials(nil)),
		},
		"signout": {
			{name: "ann", summary: "The session of the token ends.", request: bearer(third), status: 200, answer: `{"message":"Signed out."}`},
			{name: "again", summary: "It has ended already.", request: bearer(third), status: 200, answer: `{"message":"Signed out."}`},
		},
		"currentuser": {
			{name: "ann", summary: "Somebody.", request: bearer(first), status: 200, answer: `{"currentUser":{"id":"` + ann + `","email":"ann@example.com"}}`},
			{name: "nobody", summary: "No token was sent.", status: 200, answer: `{"currentUser":null}`},
			with(bearer(third), refused("ended", "The session was ended a moment ago.", "", apierror.InvalidToken(nil))),
		},
		"refresh": {
			{name: "ann", summary: "New tokens for old.", body: `{"refreshToken":"refresh-token-1"}`, status: 200, answer: granted(fourth, "refresh-token-4")},
			{name: "again", summary: "The same token again within 10 seconds: the same answer.", body: `{"refreshToken":"refresh-token-1"}`, status: 200, answer: granted(fourth, "refresh-token-4")},
			refused("ended", "The session has ended.", `{"refreshToken":"refresh-token-3"}`, apierror.InvalidToken(nil)),
			refused("no-such-token", "The token was not made here.", `{"refreshToken":"nonsense"}`, apierror.InvalidToken(nil)),
		},
		"jwks": {
			{name: "keys", summary: "One key, as long as none is about to replace it.", status: 200,
				answer: `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","alg":"EdDSA","use":"sig"}]}`}, // RFC 8037 appendix A
		},
	}
}

func credentials(email, password string) string {
	return `{"email":"` + email + `","password":"` + password + `"}`
}

func granted(token, refreshToken string) string {
	return `{"user":{"id":"` + ann + `","email":"ann@example.com"},"token":"` + token + `","refreshToken":"` + refreshToken + `","expiresIn":900}`
}

func bearer(token string) *exchange {
	return &exchange{Headers: map[string]string{"Authorization": "Bearer " + token}}
}

func with(request *exchange, x scene) scene {
	x.request = request
	return x
}

func refused(name, summary, body string, err error) scene {
	x := faulty(name, summary, err)
	x.body = body
	return x
}
