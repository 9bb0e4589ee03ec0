package bearer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"ticketing.com/auth/shared/bearer/token"
)

// A Config has the settings of a Verifier. FromEnv reads them from the environment variables in
// the comments. At least one of Keys, KeysFile and KeysURL must be set.
type Config struct {
	// Keys (VERIFYING_KEYS) is the public JWK Set of the auth system. KeysFile
	// (VERIFYING_KEYS_FILE) is the path of a file that contains it, such as a mounted Secret. The
	// file is read again after 5 minutes, and for an unknown key id at most every 30 seconds.
	Keys, KeysFile string

	// KeysURL (VERIFYING_KEYS_URL) is the URL of the set. It is fetched without Keys and KeysFile,
	// or for a key id that they lack. The keys are used for 24 hours after the last response.
	KeysURL string

	// Issuer and Audience (TOKEN_ISSUER, TOKEN_AUDIENCE) are iss and aud of the tokens. The
	// default of both is "ticketing".
	Issuer, Audience string

	// RevocationsURL (REVOCATIONS_URL) is the URL of the revocation feed. Without it, the token of
	// a session that has ended is accepted until it expires.
	RevocationsURL string

	// Strict (REVOCATIONS_STRICT=on) refuses every token with 503 if the feed has not answered for
	// 30 seconds. The default accepts a token until it expires.
	Strict bool

	// IntrospectionURL (INTROSPECTION_URL) is asked about the few tokens of which the feed is not
	// sure. IntrospectionSecret (INTROSPECTION_SECRET), in the form name:secret, authenticates
	// this service there.
	IntrospectionURL, IntrospectionSecret string

	Now    func() time.Time // the clock; the default is time.Now
	Client *http.Client     // its Transport sends the requests; the default is http.DefaultTransport
	Log    *slog.Logger     // receives outages of the auth system; the default is slog.Default()
}

// FromEnv returns a verifier with the settings that lookup returns, such as os.Getenv. White space
// around a setting does not count. The options then change the settings. The error has all
// problems, one a line.
func FromEnv(lookup func(name string) string, options ...func(*Config)) (*Verifier, error) {
	get := func(name string) string { return strings.TrimSpace(lookup(name)) }
	c := Config{
		Keys:                get("VERIFYING_KEYS"),
		KeysFile:            get("VERIFYING_KEYS_FILE"),
		KeysURL:             get("VERIFYING_KEYS_URL"),
		Issuer:              get("TOKEN_ISSUER"),
		Audience:            get("TOKEN_AUDIENCE"),
		RevocationsURL:      get("REVOCATIONS_URL"),
		IntrospectionURL:    get("INTROSPECTION_URL"),
		IntrospectionSecret: get("INTROSPECTION_SECRET"),
	}
	var p problems
	switch get("REVOCATIONS_STRICT") {
	case "on":
		c.Strict = true
	case "", "off":
	default:
		p.add("REVOCATIONS_STRICT must be on or off")
	}
	for _, option := range options {
		option(&c)
	}
	return newVerifier(c, p)
}

// New returns a verifier. It sends no request. The error names the settings by their environment
// variables. It has all problems, one a line, and never a secret.
func New(c Config) (*Verifier, error) { return newVerifier(c, nil) }

type problems []error

func (p *problems) add(format string, values ...any) { *p = append(*p, fmt.Errorf(format, values...)) }

func newVerifier(c Config, p problems) (*Verifier, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	client := newClient(c.Client)
	v := &Verifier{now: c.Now}
	v.tokens = token.NewVerifier(c.keys(client, &p), cmp.Or(c.Issuer, "ticketing"), cmp.Or(c.Audience, "ticketing"), c.Now, cachedTokens)
	v.feed = c.feed(client, &p)
	if len(p) > 0 {
		return nil, errors.Join(p...)
	}
	return v, nil
}

func (c Config) keys(client *http.Client, p *problems) (all sources) {
	if c.Keys == "" && c.KeysFile == "" && c.KeysURL == "" {
		p.add("VERIFYING_KEYS, VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL must be set")
	}
	if c.Keys != "" && c.KeysFile != "" {
		p.add("VERIFYING_KEYS and VERIFYING_KEYS_FILE are both set")
		return nil
	}
	if c.Keys != "" {
		keys, err := parseKeys([]byte(c.Keys), c.Log)
		if err != nil {
			p.add("VERIFYING_KEYS is not a public JWK Set: %w", err)
		}
		all = append(all, keys)
	}
	if c.KeysFile != "" {
		file := c.keySet(fileKeys(c.KeysFile), 0)
		document, err := file.load(context.Background())
		if err == nil {
			file.tried = c.Now()
			err = file.set(document)
		}
		if err != nil {
			p.add("VERIFYING_KEYS_FILE is not the path of a public JWK Set: %w", err)
		}
		all = append(all, file)
	}
	if c.KeysURL != "" {
		if target := p.url("VERIFYING_KEYS_URL", c.KeysURL); target != nil {
			all = append(all, c.keySet(urlKeys(client, target.String()), keysLast))
		}
	}
	return all
}

func (c Config) keySet(load func(context.Context) ([]byte, error), last time.Duration) *keySet {
	return &keySet{load: load, last: last, now: c.Now, log: c.Log, outage: outage{
		log: c.Log, start: "the verifying keys cannot be loaded", end: "the verifying keys are loaded again",
	}}
}

func (c Config) feed(client *http.Client, p *problems) *feed {
	name, secret, named := strings.Cut(c.IntrospectionSecret, ":")
	if c.IntrospectionSecret != "" && (!named || name == "" || secret == "") {
		p.add("INTROSPECTION_SECRET must have the form name:secret")
	}
	if c.IntrospectionSecret != "" && c.IntrospectionURL == "" {
		p.add("INTROSPECTION_SECRET is set without INTROSPECTION_URL")
	}
	i := &introspection{
		ask: func(context.Context, string) (bool, error) { return false, errors.New("INTROSPECTION_URL is not set") },
		now: c.Now, verdicts: map[[32]byte]verdict{}, flights: map[[32]byte]*inquiry{}, outage: outage{
			log: c.Log, start: "introspection is not available", end: "introspection is available again",
		},
	}
	if c.IntrospectionURL != "" {
		if target := p.url("INTROSPECTION_URL", c.IntrospectionURL); target != nil {
			i.ask = introspectURL(client, target.String(), name, secret)
		}
	}
	if c.RevocationsURL == "" {
		if c.Strict {
			p.add("REVOCATIONS_STRICT is on without REVOCATIONS_URL")
		}
		if c.IntrospectionURL != "" {
			p.add("INTROSPECTION_URL is set without REVOCATIONS_URL")
		}
		return nil
	}
	target := p.url("REVOCATIONS_URL", c.RevocationsURL)
	if target == nil {
		return nil
	}
	effect := "tokens are accepted until they expire"
	if c.Strict {
		effect = "requests are refused after 30 s"
	}
	return &feed{
		fetch: feedURL(client, target), introspection: i, strict: c.Strict, now: c.Now, revoked: newRevoked(), outage: outage{
			log: c.Log, start: "the revocation feed is not available: " + effect, end: "the revocation feed is available again",
		},
	}
}

// url returns the URL in a setting, or nil after it has added a problem. A problem does not contain
// the URL, which may contain a secret.
func (p *problems) url(name, text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		p.add("%s must be an http or https URL without a user and a fragment", name)
		return nil
	}
	return u
}
