// Package origin describes the client of a request to the owner of an account: in the list of
// sessions, in the history and in notices. It authenticates nothing.
package origin

import (
	"context"
	"slices"

	"github.com/mileusna/useragent"
	"golang.org/x/text/language"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/ratelimit"
	"ticketing.com/auth/shared/telemetry"
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
	telemetry.NoteNetwork(ctx, o.From.Place)
	o.Language = preferred(accepted.AcceptLanguage)
	return nil
}

// maxLanguage is the maximum length of a tag, in bytes (RFC 5646 section 4.4.1).
const maxLanguage = 35

// browsers and systems are those that Agent names. Mails show them, so a client must not choose the
// text.
var browsers = []string{useragent.Chrome, useragent.Edge, useragent.Firefox, useragent.InternetExplorer, useragent.Opera, useragent.OperaMini,
	useragent.OperaTouch, useragent.Safari, useragent.SamsungBrowser, useragent.Vivaldi}
var systems = []string{useragent.Android, useragent.ChromeOS, useragent.FreeBSD, useragent.IOS, useragent.Linux, useragent.MacOS, useragent.Windows}

// Agent returns the browser and the system of a User-Agent header, such as "Chrome on macOS", in at most
// 64 bytes. It returns "" for an unknown client.
func Agent(header string) string {
	parsed := useragent.Parse(header)
	switch {
	case !slices.Contains(browsers, parsed.Name):
		return ""
	case !slices.Contains(systems, parsed.OS):
		return parsed.Name
	}
	return parsed.Name + " on " + parsed.OS
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
