package confirmation

import (
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// Confirming is the need of a function that computes or checks tokens and codes.
var Confirming = endpoint.Need{Secret: &endpoint.Secret{Setting: "MAIL_KEYS", Name: "mail-keys", Key: "keys",
	Sample: func() string { return "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }}}

// FromConfig returns the keys of MAIL_KEYS, or nil without keys.
func FromConfig(cfg *config.Config) *Keys {
	return config.Part(cfg, "mail keys", func() *Keys {
		name, text := cfg.Document("MAIL_KEYS")
		if text == nil {
			return nil
		}
		keys, err := ParseKeys(string(text))
		if err != nil {
			cfg.Problem(name, "is not a list of keys: "+err.Error())
			return nil
		}
		return keys
	})
}
