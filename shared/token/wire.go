package token

import (
	"time"

	"ticketing.com/auth/shared/app"
)

// WireIssuer returns the issuer of the environment: SIGNING_KEYS, TOKEN_ISSUER,
// TOKEN_AUDIENCE, TOKEN_CLIENT_ID, ACCESS_TOKEN_TTL. It is the only part that holds a private
// key; nil where there is none. No token lives longer than a session, which bounds the default.
func WireIssuer(w *app.Wiring, session time.Duration) *Issuer {
	return app.Part(w, "token issuer", func() *Issuer {
		issuer, audience := names(w)
		life := w.Duration("ACCESS_TOKEN_TTL", min(15*time.Minute, session), time.Second, 24*time.Hour)
		if life > session {
			w.Fault("ACCESS_TOKEN_TTL", "must not be longer than SESSION_TTL")
		}
		clientID := w.Text("TOKEN_CLIENT_ID", "web")
		keys := document(w, "SIGNING_KEYS", ParsePrivate)
		if keys == nil {
			return nil
		}
		return NewIssuer(keys, issuer, audience, clientID, life)
	})
}

// WireVerifier returns the verifier of the environment: VERIFYING_KEYS,
// TOKEN_ISSUER, TOKEN_AUDIENCE; nil where there are no keys.
func WireVerifier(w *app.Wiring) *Verifier {
	return app.Part(w, "token verifier", func() *Verifier {
		issuer, audience := names(w)
		keys := WireKeys(w)
		if keys == nil {
			return nil
		}
		return NewVerifier(keys, issuer, audience, w.Now())
	})
}

// WireKeys returns the public keys of the environment: VERIFYING_KEYS; nil where
// there are none.
func WireKeys(w *app.Wiring) *VerifyingKeys {
	return app.Part(w, "verifying keys", func() *VerifyingKeys { return document(w, "VERIFYING_KEYS", ParsePublic) })
}

func names(w *app.Wiring) (issuer, audience string) {
	return w.Text("TOKEN_ISSUER", "ticketing"), w.Text("TOKEN_AUDIENCE", "ticketing")
}

func document[Keys any](w *app.Wiring, setting string, parse func([]byte) (*Keys, error)) *Keys {
	name, text := w.Document(setting)
	if text == nil {
		return nil
	}
	keys, err := parse(text)
	if err != nil {
		w.Fault(name, "is no key set: "+err.Error())
		return nil
	}
	return keys
}
