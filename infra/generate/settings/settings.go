// Package settings lists the settings that a function reads. It runs the constructor of the
// function and records the lookups, so no second list needs an update. The generators of the
// manifests and templates use this list.
package settings

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/token"
)

// Settings are names of settings, sorted.
type Settings struct {
	Required []string // the function does not start without them
	Optional []string // they have a default
}

// removed is a setting of earlier versions. A function reads it only to reject it.
const removed = "THROTTLE"

// Of returns the settings of a function that does not accept events, unless the function has no
// route. It omits the settings that name a file instead of a value (…_FILE).
func Of(e endpoint.Endpoint) (Settings, error) {
	var s Settings
	_, missing, _ := bind(e, nil)
	for problem := range strings.Lines(missing) {
		name, _, _ := strings.Cut(problem, " ")
		s.Required = append(s.Required, name)
	}
	for _, name := range s.Required {
		if _, known := samples()[name]; !known {
			return Settings{}, fmt.Errorf("%s requires the unknown setting %s: add a sample in infra/generate/settings and a source in infra/knative and infra/lambda", e.Name, name)
		}
	}
	_, invalid, read := bind(e, given(s.Required))
	if invalid != "" {
		return Settings{}, fmt.Errorf("%s rejects the samples of its settings: %s", e.Name, invalid)
	}
	for _, name := range read {
		if name != removed && !slices.Contains(s.Required, strings.TrimSuffix(name, "_FILE")) {
			s.Optional = append(s.Optional, name)
		}
	}
	slices.Sort(s.Required)
	slices.Sort(s.Optional)
	s.Optional = slices.Compact(s.Optional)
	return s, nil
}

// Handler returns the HTTP handler of a function with sample settings. It answers as the function
// does, as long as a request needs no database and no sink.
func (s Settings) Handler(e endpoint.Endpoint) http.Handler {
	values := given(s.Required)
	values["RATE_LIMIT"] = "off" // rate limits need the database
	h, _, _ := bind(e, values)
	return h
}

func given(names []string) map[string]string {
	values := map[string]string{}
	for _, name := range names {
		values[name] = samples()[name]
	}
	return values
}

// bind constructs the function as its process does. It returns the handler, the errors of the
// settings and the names of all settings that were read. It opens no connection.
func bind(e endpoint.Endpoint, given map[string]string) (h http.Handler, problems string, read []string) {
	lookup := func(name string) (string, bool) {
		read = append(read, name)
		value, set := given[name]
		return value, set
	}
	cfg := config.New(lookup, func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
	h = httpserver.Handler(cfg, e)
	if err := cfg.Err(); err != nil {
		problems = err.Error()
	}
	return h, problems, read
}

// samples returns valid values. Some settings are read only if others are set.
func samples() map[string]string {
	key := token.NewJWK(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	return map[string]string{
		"MONGODB_URI":    "mongodb://localhost",
		"SIGNING_KEYS":   set(key),
		"VERIFYING_KEYS": set(key.Public()),
		"K_SINK":         "http://localhost",
		"EVENTS":         "on",
	}
}

func set(key token.JWK) string {
	b, err := json.Marshal(token.Set{Keys: []token.JWK{key}})
	if err != nil {
		panic(err) // a generated key can always be encoded
	}
	return string(b)
}
