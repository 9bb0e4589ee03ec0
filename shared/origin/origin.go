// Package origin describes the client of a request to the owner of an account: in the list of
// sessions, in the history and in notices. It authenticates nothing.
package origin

import (
	"context"
	"strings"

	"github.com/mileusna/useragent"
	"golang.org/x/text/language"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/user"
)

// Origin is the origin of a request. Embed it in an input. It is empty for an event.
type Origin struct {
	From     user.Origin
	Language string // the preferred language, a tag (RFC 5646), or empty

	proxies ratelimit.Proxies
}

// Reading is the need of a function whose input embeds Origin.
var Reading = endpoint.Need{Settings: []string{"TRUSTED_PROXIES", "PROXY_NETWORKS"}, ReadsClient: true}

// ConfigurePart reads the settings that determine the client address.
func (o *Origin) ConfigurePart(cfg *config.Config) { o.proxies = ratelimit.ProxiesFromConfig(cfg) }

// ReadPart implements endpoint.Part.
func (o *Origin) ReadPart(ctx context.Context, r *endpoint.Request) error {
	var agent endpoint.Agent
	var accepted endpoint.Language
	agent.ReadPart(ctx, r)    // returns nil
	accepted.ReadPart(ctx, r) // returns nil
	o.From = user.Origin{Agent: Agent(agent.UserAgent), Place: o.proxies.Network(r.Client)}
	o.Language = preferred(accepted.AcceptLanguage)
	return nil
}

const maxAgent, maxLanguage = 64, 35 // bytes; RFC 5646 section 4.4.1 has the latter

// Agent returns the browser and the system of a User-Agent header, such as "Chrome on macOS", in at
// most 64 bytes of letters, digits, spaces and some punctuation. For an unknown client it returns the
// first name in the header, or "".
func Agent(header string) string {
	if header == "" {
		return ""
	}
	parsed := useragent.Parse(header)
	text := parsed.Name
	if parsed.OS != "" {
		text += " on " + parsed.OS
	}
	text = strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(" .-+_", r) {
			return r
		}
		return -1
	}, text)
	return strings.TrimSpace(text[:min(len(text), maxAgent)])
}

// anyLanguage is the tag of "*".
var anyLanguage = language.Make("mul")

// preferred returns the first language of an Accept-Language header (RFC 9110 section 12.5.4), or "".
func preferred(header string) string {
	tags, _, err := language.ParseAcceptLanguage(header)
	if err != nil || len(tags) == 0 || tags[0] == language.Und || tags[0] == anyLanguage {
		return ""
	}
	if tag := tags[0].String(); len(tag) <= maxLanguage {
		return tag
	}
	return ""
}
