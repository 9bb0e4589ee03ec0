package accesstoken

import (
	"time"

	"ticketing.com/auth/shared/bearer/token"
	"ticketing.com/auth/shared/config"
)

// cachedTokens bounds the verified tokens that a process remembers, about 1.5 KiB each.
const cachedTokens = 1024

// IssuerFromConfig returns the issuer that the environment configures, or nil without a signing
// key. It reads SIGNING_KEYS, TOKEN_ISSUER, TOKEN_AUDIENCE, TOKEN_CLIENT_ID and
// ACCESS_TOKEN_TTL. Only the issuer holds a private key.
//
// An access token must not outlive its session, so the lifetime of a session also bounds the
// default of ACCESS_TOKEN_TTL.
func IssuerFromConfig(cfg *config.Config, session time.Duration) *token.Issuer {
	return config.Part(cfg, "token issuer", func() *token.Issuer {
		issuer, audience := Names(cfg)
		ttl := duration(cfg, min(defaultTTL, session))
		if ttl > session {
			cfg.Problem("ACCESS_TOKEN_TTL", "must not be longer than SESSION_TTL")
		}
		clientID := cfg.Text("TOKEN_CLIENT_ID", "web")
		keys := document(cfg, "SIGNING_KEYS", token.ParsePrivate)
		if keys == nil {
			return nil
		}
		return token.NewIssuer(keys, issuer, audience, clientID, ttl)
	})
}

const defaultTTL = 15 * time.Minute

// TTL returns ACCESS_TOKEN_TTL, the lifetime of an access token.
func TTL(cfg *config.Config) time.Duration { return duration(cfg, defaultTTL) }

func duration(cfg *config.Config, or time.Duration) time.Duration {
	return cfg.Duration("ACCESS_TOKEN_TTL", or, time.Second, 24*time.Hour)
}

// VerifierFromConfig returns the verifier that the environment configures, or nil without keys.
// It reads VERIFYING_KEYS, TOKEN_ISSUER and TOKEN_AUDIENCE.
func VerifierFromConfig(cfg *config.Config) *token.Verifier {
	return config.Part(cfg, "token verifier", func() *token.Verifier {
		issuer, audience := Names(cfg)
		keys := KeysFromConfig(cfg)
		if keys == nil {
			return nil
		}
		return token.NewVerifier(keys, issuer, audience, cfg.Now(), cachedTokens)
	})
}

// KeysFromConfig returns the public keys in VERIFYING_KEYS, or nil without keys.
func KeysFromConfig(cfg *config.Config) *token.VerifyingKeys {
	return config.Part(cfg, "verifying keys", func() *token.VerifyingKeys { return document(cfg, "VERIFYING_KEYS", token.ParsePublic) })
}

// Names returns the settings TOKEN_ISSUER and TOKEN_AUDIENCE.
func Names(cfg *config.Config) (issuer, audience string) {
	return IssuerName(cfg), cfg.Text("TOKEN_AUDIENCE", "ticketing")
}

// IssuerName returns the setting TOKEN_ISSUER.
func IssuerName(cfg *config.Config) string { return cfg.Text("TOKEN_ISSUER", "ticketing") }

func document[Keys any](cfg *config.Config, setting string, parse func([]byte) (*Keys, error)) *Keys {
	name, text := cfg.Document(setting)
	if text == nil {
		return nil
	}
	keys, err := parse(text)
	if err != nil {
		cfg.Problem(name, "is not a key set: "+err.Error())
		return nil
	}
	return keys
}
