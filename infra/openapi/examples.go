package openapi

import (
	"time"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/confirmation"
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

	fifth = jwtHeader + "eyJzdWIiOiJjYXJvbCIsIm4iOjF9.c2lnbmF0dXJl" // {"sub":"carol","n":1}
	sixth = jwtHeader + "eyJzdWIiOiJkYXZlIiwibiI6MX0.c2lnbmF0dXJl"  // {"sub":"dave","n":1}

	firstSession, thirdSession = "1f0e2d3c4b5a69788796a5b4c3d2e1f0", "9b74c9897bac770ffc029102a200c5de"
	secondSession              = "6c8b1f0a7e5d4c3b2a190817f6e5d4c3"

	secret     = "correct horse battery staple"
	nextSecret = "nine quiet rivers under snow"
)

// These values stand for the tokens in mails. A replay reads the tokens in the mails of the running
// system.
const (
	verificationToken = "N2Q1YzBhMmM0OWYxNGYwYi52ZXJpZmljYXRpb24"
	recoveryToken     = "YzE5NGU3ZDA1ZjMzNGI2Yi5yZWNvdmVyeQ"
	emailToken        = "ZDA3ZDk4NmE1YzFlNGQwOC5lbWFpbA"
	undoToken         = "ZDA3ZDk4NmE1YzFlNGQwOC51bmRv"
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
			{name: "second-account", summary: "The account of another user.", body: credentials("carol@example.com", secret), status: 201,
				response: grantOf("c194e7d05f334b6bb2f5a0b6e6a9d1f2", "carol@example.com", fifth, "refresh-token-5")},
			{name: "third-account", summary: "The account of a third user.", body: credentials("dave@example.com", secret), status: 201,
				response: grantOf("d07d986a5c1e4d08a7f3b1c2e5f60718", "dave@example.com", sixth, "refresh-token-6")},
			with(key, rejected("key-reused", "The key was used with a different request.", credentials("bob@example.com", secret),
				apierror.New(apierror.Mismatch, "This Idempotency-Key, or this event, was used with another request."))),
			rejected("email-in-use", "Another account has this email.", credentials("ann@example.com", secret), apierror.Field("email", "This email is in use.")),
			rejected("invalid-members", "The response lists all invalid members.", credentials("ann@example", "password1"), wrong.Err()),
		},
		"signin": {
			{name: "success", summary: "A new session.", body: credentials("ann@example.com", secret), status: 200, response: grant(third, "refresh-token-3")},
			rejected("wrong-password", "The password is wrong.", credentials("ann@example.com", "wrong horse"), apierror.Credentials(nil)),
			rejected("unknown-email", "The response to an unknown email is the same as to a wrong password.", credentials("bob@example.com", secret), apierror.Credentials(nil)),
			rejected("deletion-requested", "The password is right, and the account can be restored.", credentials("carol@example.com", secret), apierror.New(apierror.Forbidden, "This account will be deleted. Restore it to sign in.")),
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
		"account": {
			{name: "success", summary: "The account of the token.", request: bearer(first), status: 200,
				response: `{"account":{"id":"` + userID + `","email":"ann@example.com","emailVerified":false,"createdAt":"2026-03-01T12:00:00Z","roles":[],"factors":[]}}`},
			with(bearer(third), rejected("session-revoked", "The session of the token has ended.", "", apierror.InvalidToken(nil))),
		},
		"deleteAccount": {
			{name: "success", summary: "The user can restore the account for 30 days.", request: bearer(fifth), body: current(secret), status: 202, response: `{"deletesAt":"2026-03-31T12:00:00Z"}`},
			with(bearer(first), rejected("wrong-password", "The current password is wrong.", current("wrong horse"), notCurrent)),
		},
		"restoreAccount": {
			{name: "success", summary: "The user can sign in again.", body: credentials("carol@example.com", secret), status: 200, response: message("The account is restored. Sign in.")},
			rejected("wrong-password", "The password is wrong, or the account does not exist any more.", credentials("carol@example.com", "wrong horse"), apierror.Credentials(nil)),
		},
		"verification": {
			{name: "success", summary: "The system sends a mail.", request: bearer(first), status: 202, response: message("A mail is on its way.")},
			with(bearer(fourth), rejected("already-verified", "The user has verified the email.", "", apierror.New(apierror.Conflict, "The email is already verified."))),
			mailLimit,
		},
		"confirmVerification": {
			{name: "success", summary: "The token in the link of the mail.", body: tokenOf(verificationToken), status: 200, response: message("The email is verified.")},
			rejected("wrong-token", "The token is wrong, expired or used.", tokenOf("nonsense"), confirmation.Invalid("token")),
			with(bearer(first), rejected("wrong-code", "The code is wrong, expired or used.", `{"code":"000000"}`, confirmation.Invalid("code"))),
			codeLimit,
		},
		"password": {
			{name: "success", summary: "One other session has ended.", request: bearer(first), body: passwords(secret, nextSecret), status: 200, response: `{"ended":1}`},
			with(bearer(first), rejected("wrong-password", "The current password is wrong.", passwords(secret, "five loud rivers under snow"), notCurrent)),
			with(bearer(first), rejected("guessable", "Many users have the new password.", passwords(nextSecret, "password1"), apierror.Field("newPassword", string(policy.Guessable)))),
		},
		"recovery": {
			{name: "success", summary: "The response is the same for every email.", body: `{"email":"carol@example.com"}`, status: 202, response: message("If an account has this email, a mail is on its way.")},
			{name: "unknown-email", summary: "No account has the email.", body: `{"email":"bob@example.com"}`, status: 202, response: message("If an account has this email, a mail is on its way.")},
			rejected("malformed-email", "The email is malformed.", `{"email":"carol@example"}`, apierror.Field("email", string(email.ErrMalformed))),
		},
		"confirmRecovery": {
			{name: "success", summary: "The token in the link of the mail.", body: `{"token":"` + recoveryToken + `","newPassword":"` + nextSecret + `"}`, status: 200, response: message("The password is changed. Sign in with it.")},
			rejected("wrong-token", "The token is wrong, expired or used.", `{"token":"nonsense","newPassword":"`+nextSecret+`"}`, confirmation.Invalid("token")),
			rejected("wrong-code", "The code is wrong, expired or used, or no account has the email.", `{"email":"carol@example.com","code":"000000","newPassword":"`+nextSecret+`"}`, confirmation.Invalid("code")),
			codeLimit,
		},
		"email": {
			{name: "success", summary: "The system sends a mail to the new email.", request: bearer(sixth), body: changeEmail("dave@tickets.example", secret), status: 202, response: message("A mail to the new email is on its way.")},
			with(bearer(sixth), rejected("wrong-password", "The current password is wrong.", changeEmail("dave@tickets.example", "wrong horse"), notCurrent)),
			with(bearer(sixth), rejected("same-email", "The account has this email.", changeEmail("dave@example.com", secret), apierror.Field("email", "This is already the email of the account."))),
			mailLimit,
		},
		"confirmEmail": {
			{name: "success", summary: "The token in the link of the mail to the new email.", body: tokenOf(emailToken), status: 200, response: message("The email is changed.")},
			rejected("wrong-token", "The token is wrong, expired or used.", tokenOf("nonsense"), confirmation.Invalid("token")),
			rejected("email-in-use", "Another account has the email.", tokenOf(emailToken), apierror.New(apierror.Conflict, "Another account has this email.")),
			codeLimit,
		},
		"undoEmail": {
			{name: "success", summary: "The token in the link of the mail to the earlier email.", body: tokenOf(undoToken), status: 200, response: message("The earlier email is restored. Reset the password to sign in.")},
			rejected("wrong-token", "The token is wrong, expired or used.", tokenOf("nonsense"), confirmation.Invalid("token")),
			rejected("email-in-use", "Another account has the earlier email.", tokenOf(undoToken), apierror.New(apierror.Conflict, "Another account has this email.")),
		},
		"sessions": {
			{name: "success", summary: "One session.", request: bearer(first), status: 200,
				response: `{"sessions":[{"id":"` + firstSession + `","current":true,"createdAt":"2026-03-01T12:00:00Z","seenAt":"2026-03-01T12:00:00Z","agent":"Chrome on macOS","place":"203.0.113.0/24","amr":["pwd"]}]}`},
		},
		"endOtherSessions": {
			{name: "success", summary: "There are no other sessions.", request: bearer(first), status: 200, response: `{"ended":0}`},
		},
		"endSession": {
			with(bearer(first), rejected("unknown-session", "The user has no such session.", "", apierror.New(apierror.NotFound, "The session does not exist."))),
		},
		"history": {
			{name: "success", summary: "The newest event is first.", request: bearer(first), status: 200, response: `{"events":[` +
				entry("passwordchanged", firstSession, origin) + "," + entry("verified", "", origin) + "," + entry("signedout", thirdSession, `,"reason":"user"`) + "," +
				entry("signedin", thirdSession, origin) + "," + entry("signedin", secondSession, origin) + "," + entry("signedup", firstSession, origin) + `]}`},
		},
		"introspect": {
			{name: "active", summary: "A valid token.", request: &request{Headers: service()}, body: "token=" + fourth, status: 200,
				response: `{"active":true,"token_type":"Bearer","iss":"` + issuer + `","aud":"ticketing","sub":"` + userID + `","sid":"` + firstSession + `","jti":"1f0e2d3c4b5a69788796a5b4c3d2e1f0.1.a8d1f2c3b4a59687","client_id":"web","iat":1772366400,"exp":1772367300,"auth_time":1772366400,"amr":["pwd"],"acr":"aal1","email":"ann@example.com","email_verified":false}`},
			{name: "ended", summary: "The session of the token has ended. The answer to a forged or an expired token is the same.", request: &request{Headers: service()}, body: "token=" + third, status: 200, response: `{"active":false}`},
		},
		"revocations": {
			{name: "success", summary: "Some sessions have ended.", status: 200, response: `{"cursor":"1772366370000","window":960,"sessions":["` + thirdSession + `","` + secondSession + `","c3d2e1f01f0e2d3c4b5a69788796a5b4","d4c36c8b1f0a7e5d4c3b2a190817f6e5"],"users":[]}`},
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
	return grantOf(userID, "ann@example.com", token, refreshToken)
}

func grantOf(id, email, token, refreshToken string) string {
	return `{"user":{"id":"` + id + `","email":"` + email + `"},"token":"` + token + `","refreshToken":"` + refreshToken + `","expiresIn":900}`
}

func message(text string) string { return `{"message":"` + text + `"}` }

func tokenOf(text string) string { return `{"token":"` + text + `"}` }

func current(password string) string { return `{"currentPassword":"` + password + `"}` }

func passwords(current, next string) string {
	return `{"currentPassword":"` + current + `","newPassword":"` + next + `"}`
}

func changeEmail(to, password string) string {
	return `{"email":"` + to + `","currentPassword":"` + password + `"}`
}

const origin = `,"agent":"Chrome on macOS","place":"203.0.113.0/24"`

// entry returns an entry of a history with more members.
func entry(kind, session, more string) string {
	if session != "" {
		session = `,"sessionId":"` + session + `"`
	}
	return `{"type":"` + kind + `","at":"2026-03-01T12:00:00Z"` + session + more + `}`
}

var (
	notCurrent = apierror.Field("currentPassword", "This is not the current password.")
	mailLimit  = errorSample("mail-limit", "Too many mails were requested for the account.", apierror.Limited("mail", 3, time.Hour, 20*time.Minute))
	codeLimit  = errorSample("code-limit", "Too many codes were compared for the account or the email.", apierror.Limited("code", 5, time.Hour, 20*time.Minute))
)

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
