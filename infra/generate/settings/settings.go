// Package settings tells what a function reads of its environment. It asks the
// function's own wiring, so there is no second list to keep: what manifests and
// templates hand to a function, they learn here.
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
	Required []string // without which the function does not start
	Optional []string // which have a default
}

// Of returns the settings of a function whose event door is shut, unless it has no
// other. That a file may stand for a setting (…_FILE) is not listed.
func Of(e endpoint.Endpoint) (Settings, error) {
	var s Settings
	_, missing, _ := bind(e, nil)
	for fault := range strings.Lines(missing) {
		name, _, _ := strings.Cut(fault, " ")
		s.Required = append(s.Required, name)
	}
	for _, name := range s.Required {
		if _, known := samples()[name]; !known {
			return Settings{}, fmt.Errorf("%s needs %s, and nothing says where a deployment has that: it needs a sample in infra/generate/settings and a source in infra/knative and infra/lambda", e.Name, name)
		}
	}
	_, wrong, read := bind(e, given(s.Required))
	if wrong != "" {
		return Settings{}, fmt.Errorf("%s does not take the samples of its settings: %s", e.Name, wrong)
	}
	for _, name := range read {
		if !slices.Contains(s.Required, strings.TrimSuffix(name, "_FILE")) {
			s.Optional = append(s.Optional, name)
		}
	}
	slices.Sort(s.Required)
	slices.Sort(s.Optional)
	s.Optional = slices.Compact(s.Optional)
	return s, nil
}

// Handler returns the HTTP door of a function that has samples for its settings. It
// answers as the function does, as long as that needs nothing of what they name.
func (s Settings) Handler(e endpoint.Endpoint) http.Handler {
	values := given(s.Required)
	values["RATE_LIMIT"] = "off" // counting needs the database
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

// bind wires the function as its process does, and returns its door, what the wiring
// complains of, and what it has looked up. Nothing is dialled.
func bind(e endpoint.Endpoint, given map[string]string) (h http.Handler, faults string, read []string) {
	lookup := func(name string) (string, bool) {
		read = append(read, name)
		value, set := given[name]
		return value, set
	}
	cfg := config.New(lookup, func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
	h = httpserver.Handler(cfg, e)
	if err := cfg.Err(); err != nil {
		faults = err.Error()
	}
	return h, faults, read
}

// samples are values that pass: some settings are read only where others are there.
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
		panic(err) // a key of ours can be written
	}
	return string(b)
}
