package mail

import (
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// Rendering is the need of a function that renders mails.
var Rendering = endpoint.Need{Settings: []string{"PUBLIC_URL", "MAIL_TEMPLATES"}}

// FromConfig returns the templates of PUBLIC_URL and MAIL_TEMPLATES.
func FromConfig(cfg *config.Config) *Templates {
	return config.Part(cfg, "mail templates", func() *Templates {
		origin, dir := cfg.Text("PUBLIC_URL", "http://localhost:8080"), cfg.Text("MAIL_TEMPLATES", "")
		if _, err := ParseOrigin(origin); err != nil {
			cfg.Problem("PUBLIC_URL", err.Error())
			return nil
		}
		t, err := New(origin, dir)
		if err != nil {
			cfg.Problem("MAIL_TEMPLATES", err.Error())
		}
		return t
	})
}
