// Package app turns the environment into the parts a function is made of. It is
// the only place where a setting is read.
//
// A function asks a Wiring for what it needs when it is bound; asking is what
// makes a setting required. So what a function needs is stated once, by its own
// wiring, and a function that never asks for the signing key starts without one.
// Nothing is opened or computed here: parts are lazy, and a cold start pays for
// what its request uses.
//
// Faults are collected, not returned one by one: an operator who mends a setting
// wants to know of all of them. They never quote a value, which may be a secret.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"ticketing.com/auth/shared/event"
	"ticketing.com/auth/shared/password"
	"ticketing.com/auth/shared/session"
	"ticketing.com/auth/shared/token"
	"ticketing.com/auth/shared/user"
)

// A Lookup finds a setting, as os.LookupEnv does. An empty value counts as none.
type Lookup func(name string) (value string, set bool)

// A Wiring hands out the parts of functions, each made once and shared. It is
// for the start of a process and not for concurrent use; the parts are.
type Wiring struct {
	lookup Lookup
	log    *slog.Logger
	now    func() time.Time
	faults []string

	users     *user.Store
	passwords *password.Hasher
	verifying *token.VerifyingKeys
	verifier  *token.Verifier
	grants    *session.Granter
}

// New returns a wiring over an environment. Handler is where logs go, LOG_LEVEL
// decides what; now is the clock of all parts.
func New(lookup Lookup, handler func(*slog.HandlerOptions) slog.Handler, now func() time.Time) *Wiring {
	w := &Wiring{lookup: lookup, now: now}
	level := slog.LevelInfo
	if s := w.text("LOG_LEVEL", ""); s != "" && level.UnmarshalText([]byte(s)) != nil {
		w.fault("LOG_LEVEL", "must be debug, info, warn or error")
	}
	w.log = slog.New(handler(&slog.HandlerOptions{Level: level}))
	return w
}

// Err returns one error that lists every fault of every setting that was asked
// for, or nil.
func (w *Wiring) Err() error {
	if len(w.faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(w.faults, "\n"))
}

// Close gives back what the parts hold.
func (w *Wiring) Close(ctx context.Context) error {
	if w.users == nil {
		return nil
	}
	return w.users.Close(ctx)
}

// Log returns the log.
func (w *Wiring) Log() *slog.Logger { return w.log }

// Now returns the clock.
func (w *Wiring) Now() func() time.Time { return w.now }

// Port returns the port of the HTTP door.
func (w *Wiring) Port() int { return w.number("PORT", 8080, 0, 65535) }

// Users returns the user store: MONGODB_URI, SESSION_LIMIT, and where there is a
// K_SINK, what concerns it.
func (w *Wiring) Users() *user.Store {
	if w.users != nil {
		return w.users
	}
	limit := w.number("SESSION_LIMIT", 20, 1, 1000)
	uri := w.required("MONGODB_URI")
	if uri == "" {
		return nil
	}
	users, err := user.New(user.Config{URI: uri, Sessions: limit, Sink: w.sink(), Now: w.now, Log: w.log})
	if err != nil {
		w.fault("MONGODB_URI", err.Error())
	}
	w.users = users
	return users
}

// sink returns where events go, or nil where nobody wants them: K_SINK,
// K_CE_OVERRIDES, K_CA_CERTS, K_SINK_TIMEOUT. All but the last are set by
// SinkBinding.
func (w *Wiring) sink() *event.Sink {
	c := event.Config{
		URL:       w.text("K_SINK", ""),
		Overrides: w.text("K_CE_OVERRIDES", ""),
		CACerts:   w.text("K_CA_CERTS", ""),
		TokenFile: event.TokenFile,
		Timeout:   w.duration("K_SINK_TIMEOUT", 300*time.Millisecond, time.Millisecond, 4*time.Second),
	}
	if c.URL == "" {
		return nil
	}
	sink, err := event.NewSink(c)
	if err != nil {
		name, what, _ := strings.Cut(err.Error(), " ")
		w.fault(name, what)
	}
	return sink
}

// RequireSink makes K_SINK a required setting: for a function that has nothing to
// do without.
func (w *Wiring) RequireSink() { w.required("K_SINK") }

// Passwords returns the password hasher: HASH_MEMORY_KIB, HASH_TIME,
// HASH_CONCURRENCY.
func (w *Wiring) Passwords() *password.Hasher {
	if w.passwords == nil {
		w.passwords = password.New(password.Config{
			MemoryKiB:   uint32(w.number("HASH_MEMORY_KIB", 19456, 64, 1<<20)), // OWASP: 19 MiB, t=2, p=1
			Time:        uint32(w.number("HASH_TIME", 2, 1, 16)),
			Concurrency: w.number("HASH_CONCURRENCY", 0, 0, 1024), // 0: by CPU and memory
		})
	}
	return w.passwords
}

// SessionLife is how long a session lives after its last refresh: SESSION_TTL.
func (w *Wiring) SessionLife() time.Duration {
	return w.duration("SESSION_TTL", 720*time.Hour, time.Minute, 10*365*24*time.Hour)
}

// Grants returns what hands sessions to their owners: SIGNING_KEYS,
// ACCESS_TOKEN_TTL, TOKEN_ISSUER, TOKEN_AUDIENCE. It is the only part that holds
// a private key.
func (w *Wiring) Grants() *session.Granter {
	if w.grants != nil {
		return w.grants
	}
	life := w.duration("ACCESS_TOKEN_TTL", 15*time.Minute, time.Second, 24*time.Hour)
	issuer, audience := w.text("TOKEN_ISSUER", "ticketing"), w.text("TOKEN_AUDIENCE", "ticketing")
	name, document := w.keys("SIGNING_KEYS")
	if document == nil {
		return nil
	}
	keys, err := token.ParsePrivate(document)
	if err != nil {
		w.fault(name, "is no key set: "+err.Error())
		return nil
	}
	w.grants = session.NewGranter(token.NewIssuer(keys, issuer, audience, life))
	return w.grants
}

// VerifyingKeys returns the public key set: VERIFYING_KEYS.
func (w *Wiring) VerifyingKeys() *token.VerifyingKeys {
	if w.verifying != nil {
		return w.verifying
	}
	name, document := w.keys("VERIFYING_KEYS")
	if document == nil {
		return nil
	}
	keys, err := token.ParsePublic(document)
	if err != nil {
		w.fault(name, "is no key set: "+err.Error())
	}
	w.verifying = keys
	return keys
}

// Verifier returns what checks access tokens: VERIFYING_KEYS, TOKEN_ISSUER,
// TOKEN_AUDIENCE.
func (w *Wiring) Verifier() *token.Verifier {
	keys := w.VerifyingKeys()
	if w.verifier == nil && keys != nil {
		w.verifier = token.NewVerifier(keys, w.text("TOKEN_ISSUER", "ticketing"), w.text("TOKEN_AUDIENCE", "ticketing"), w.now)
	}
	return w.verifier
}

// An EventDoor says whether events of other services are let in, and how they
// must prove where they come from.
type EventDoor struct {
	Open             bool
	Issuer, Audience string // of the OIDC token that each delivery must carry; empty: none
	KeysURL          string // of the issuer's JWK Set; empty: discovered
	CAFile           string // PEM, trusted beside the system's for fetching it
}

// EventDoor returns the settings of the event door: EVENTS, EVENT_OIDC_ISSUER,
// EVENT_OIDC_AUDIENCE, EVENT_OIDC_JWKS_URL, EVENT_OIDC_CA_FILE.
func (w *Wiring) EventDoor() EventDoor {
	switch w.text("EVENTS", "off") {
	case "off":
		return EventDoor{}
	case "on":
	default:
		w.fault("EVENTS", "must be on or off")
	}
	d := EventDoor{
		Open:     true,
		Issuer:   w.text("EVENT_OIDC_ISSUER", ""),
		Audience: w.text("EVENT_OIDC_AUDIENCE", ""),
		KeysURL:  w.text("EVENT_OIDC_JWKS_URL", ""),
		CAFile:   w.text("EVENT_OIDC_CA_FILE", ""),
	}
	if (d.Issuer == "") != (d.Audience == "") {
		w.fault("EVENT_OIDC_ISSUER", "and EVENT_OIDC_AUDIENCE must be set together")
	}
	if d.Issuer == "" && (d.KeysURL != "" || d.CAFile != "") {
		w.fault("EVENT_OIDC_ISSUER", "must be set where EVENT_OIDC_JWKS_URL or EVENT_OIDC_CA_FILE is")
	}
	return d
}

// RequireEvents makes an open event door a required setting: for a function that
// has no other.
func (w *Wiring) RequireEvents() {
	if !w.EventDoor().Open {
		w.fault("EVENTS", "must be on")
	}
}

// AllowedOrigins returns the web origins whose scripts may call:
// CORS_ALLOWED_ORIGINS, separated by commas.
func (w *Wiring) AllowedOrigins() []string {
	var origins []string
	for s := range strings.SplitSeq(w.text("CORS_ALLOWED_ORIGINS", ""), ",") {
		origin := strings.TrimSpace(s)
		if origin == "" {
			continue
		}
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || origin != u.Scheme+"://"+u.Host) {
			w.fault("CORS_ALLOWED_ORIGINS", "must list origins such as https://tickets.example, separated by commas")
		}
		origins = append(origins, origin)
	}
	return origins
}

// keys returns a key set, from the setting itself or from the file that its
// …_FILE twin names, and which of the two it was.
func (w *Wiring) keys(setting string) (name string, document []byte) {
	text, path := w.text(setting, ""), w.text(setting+"_FILE", "")
	switch {
	case text != "" && path != "":
		w.fault(setting, "and "+setting+"_FILE are both set")
	case text != "":
		return setting, []byte(text)
	case path != "":
		document, err := os.ReadFile(path)
		if err == nil {
			return setting + "_FILE", document
		}
		w.fault(setting+"_FILE", "names a file that cannot be read")
	default:
		w.fault(setting, "(or "+setting+"_FILE) is not set")
	}
	return "", nil
}

func (w *Wiring) fault(name, what string) {
	if f := name + " " + what; !slices.Contains(w.faults, f) {
		w.faults = append(w.faults, f)
	}
}

func (w *Wiring) text(name, otherwise string) string {
	if s, _ := w.lookup(name); s != "" {
		return s
	}
	return otherwise
}

func (w *Wiring) required(name string) string {
	s := w.text(name, "")
	if s == "" {
		w.fault(name, "is not set")
	}
	return s
}

func (w *Wiring) number(name string, otherwise, least, most int) int {
	s := w.text(name, "")
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		w.fault(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return otherwise
	}
	return n
}

func (w *Wiring) duration(name string, otherwise, least, most time.Duration) time.Duration {
	s := w.text(name, "")
	if s == "" {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		w.fault(name, fmt.Sprintf("must be a duration from %s to %s, such as %s", least, most, otherwise))
		return otherwise
	}
	return d
}
