// Package config reads the environment. No other package looks up a setting.
//
// A function calls the FromConfig functions of the packages that it uses, and these read
// their settings from a Config. A setting is required only if a function reads it. So a
// function that does not sign tokens starts without the signing key. A function without a
// store does not link the database driver. FromConfig functions open no connection and
// compute nothing expensive, so that a cold start does only the work of its request.
//
// A Config collects the problems of all settings, so that the operator sees them at once. A
// problem never contains a value, because the value may be a secret.
package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Lookup returns a setting, as os.LookupEnv does. A Config trims white space around a
// value, because a Secret created with echo ends with a line feed. A value of only white
// space counts as not set.
type Lookup func(name string) (value string, set bool)

// A Config holds the settings of a process and the shared values created from them. It is
// not safe for concurrent use.
type Config struct {
	lookup   Lookup
	log      *slog.Logger
	now      func() time.Time
	problems []string
	parts    map[string]any
	close    []func(context.Context) error
}

// New returns a Config for an environment. handler returns the log handler, given the level
// from LOG_LEVEL. now is the clock.
func New(lookup Lookup, handler func(*slog.HandlerOptions) slog.Handler, now func() time.Time) *Config {
	cfg := &Config{lookup: lookup, now: now, parts: map[string]any{}}
	level := slog.LevelInfo
	if s := cfg.Text("LOG_LEVEL", ""); s != "" && level.UnmarshalText([]byte(s)) != nil {
		cfg.Problem("LOG_LEVEL", "must be debug, info, warn or error")
	}
	cfg.log = slog.New(handler(&slog.HandlerOptions{Level: level}))
	return cfg
}

// Part returns the value with the given name. The first call creates it, and later calls
// return the same value.
func Part[T any](cfg *Config, name string, create func() T) T {
	part, ok := cfg.parts[name]
	if !ok {
		part = create()
		cfg.parts[name] = part
	}
	return part.(T)
}

// Err returns one error with all problems of the settings read so far, one per line. It
// returns nil if there are none.
func (cfg *Config) Err() error {
	if len(cfg.problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(cfg.problems, "\n"))
}

// ExitSettings is the exit code of a process with missing or invalid settings.
const ExitSettings = 2

// PrintError writes the error that keeps a process from starting, for the operator.
func PrintError(out io.Writer, process string, err error) {
	fmt.Fprintf(out, "%s cannot start:\n  %s\n", process, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

// OnClose registers a function that releases resources. Close calls it.
func (cfg *Config) OnClose(f func(context.Context) error) { cfg.close = append(cfg.close, f) }

// Close calls the functions registered with OnClose at the same time and joins their errors.
func (cfg *Config) Close(ctx context.Context) error {
	errs := make([]error, len(cfg.close))
	var group sync.WaitGroup
	for i, f := range cfg.close {
		group.Go(func() { errs[i] = f(ctx) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// Log returns the log.
func (cfg *Config) Log() *slog.Logger { return cfg.log }

// Now returns the clock.
func (cfg *Config) Now() func() time.Time { return cfg.now }

// Problem adds a problem of a setting to those that Err returns.
func (cfg *Config) Problem(name, problem string) {
	if p := name + " " + problem; !slices.Contains(cfg.problems, p) {
		cfg.problems = append(cfg.problems, p)
	}
}

// Text returns a setting of one line, or the default value if it is not set.
func (cfg *Config) Text(name, defaultValue string) string { return cfg.text(name, defaultValue, "") }

// Lines returns a setting that may have several lines, such as PEM or JSON, or "".
func (cfg *Config) Lines(name string) string { return cfg.text(name, "", "\t\r\n") }

// text returns a setting without surrounding white space, or the default value. It reports
// a control or invisible character that is not in allowed as a problem.
func (cfg *Config) text(name, defaultValue, allowed string) string {
	s := cfg.value(name)
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) && !strings.ContainsRune(allowed, c) }) {
		cfg.Problem(name, "must not contain control or invisible characters")
		return defaultValue
	}
	return cmp.Or(s, defaultValue)
}

// value returns a setting without surrounding white space.
func (cfg *Config) value(name string) string {
	s, _ := cfg.lookup(name)
	return strings.TrimSpace(s)
}

// Required returns a setting that must be set.
func (cfg *Config) Required(name string) string {
	if cfg.value(name) == "" {
		cfg.Problem(name, "is not set")
	}
	return cfg.Text(name, "")
}

// Number returns a whole number from least to most, or the default value if it is not set.
func (cfg *Config) Number(name string, defaultValue, least, most int) int {
	s := cfg.Text(name, "")
	if s == "" {
		return defaultValue
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		cfg.Problem(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return defaultValue
	}
	return n
}

// Duration returns a duration from least to most, or the default value if it is not set.
func (cfg *Config) Duration(name string, defaultValue, least, most time.Duration) time.Duration {
	s := cfg.Text(name, "")
	if s == "" {
		return defaultValue
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		cfg.Problem(name, fmt.Sprintf("must be a duration from %s to %s, such as %s", least, most, defaultValue))
		return defaultValue
	}
	return d
}

// Switch reports whether a setting is "on". It returns the default value if it is not set.
func (cfg *Config) Switch(name string, defaultValue bool) bool {
	switch cfg.Text(name, "") {
	case "":
		return defaultValue
	case "on":
		return true
	case "off":
	default:
		cfg.Problem(name, "must be on or off")
	}
	return false
}

// Document returns a required document. The setting contains the document, or setting+"_FILE"
// contains the path of a file with it. name is the setting that was used. Document returns
// nil if both are missing or invalid.
func (cfg *Config) Document(setting string) (name string, document []byte) {
	text, path := cfg.Lines(setting), cfg.Text(setting+"_FILE", "")
	switch {
	case cfg.value(setting) != "" && cfg.value(setting+"_FILE") != "":
		cfg.Problem(setting, "and "+setting+"_FILE are both set")
	case text != "":
		return setting, []byte(text)
	case path != "":
		document, err := os.ReadFile(path)
		if err == nil {
			return setting + "_FILE", document
		}
		cfg.Problem(setting+"_FILE", "names a file that cannot be read")
	case cfg.value(setting)+cfg.value(setting+"_FILE") == "":
		cfg.Problem(setting, "(or "+setting+"_FILE) is not set")
	}
	return "", nil
}
