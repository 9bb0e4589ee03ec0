// Package app reads the environment. It is the only place where a setting is
// looked up.
//
// A function asks the Wire functions of the packages it uses for its parts, and
// they ask a Wiring for their settings; asking is what makes a setting required. So
// what a function needs is stated once, by its own wiring: one that never asks for
// the signing key starts without it, and one that never asks for the store does not
// even link the database's driver. Nothing is opened or computed here: parts are
// lazy, and a cold start pays for what its request uses.
//
// Faults are collected, not returned one by one: an operator who mends a setting
// wants to know of all of them. They never quote a value, which may be a secret.
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
	"time"
	"unicode"
	"unicode/utf8"
)

// A Lookup finds a setting, as os.LookupEnv does. A Wiring drops white space around a
// value, since a Secret made by echo ends with a line feed. A value of nothing else counts
// as not set.
type Lookup func(name string) (value string, set bool)

// A Wiring is the environment at the start of a process, and the parts made of it.
// It is not for concurrent use; the parts are.
type Config struct {
	lookup   Lookup
	log      *slog.Logger
	now      func() time.Time
	problems []string
	parts    map[string]any
	close    []func(context.Context) error
}

// New returns a wiring over an environment. Handler is where logs go, LOG_LEVEL
// decides what; now is the clock of all parts.
func New(lookup Lookup, handler func(*slog.HandlerOptions) slog.Handler, now func() time.Time) *Config {
	cfg := &Config{lookup: lookup, now: now, parts: map[string]any{}}
	level := slog.LevelInfo
	if s := cfg.Text("LOG_LEVEL", ""); s != "" && level.UnmarshalText([]byte(s)) != nil {
		cfg.Problem("LOG_LEVEL", "must be debug, info, warn or error")
	}
	cfg.log = slog.New(handler(&slog.HandlerOptions{Level: level}))
	return cfg
}

// Part returns the part of a name, which is made once and shared by all who ask.
func Part[T any](cfg *Config, name string, make func() T) T {
	part, made := cfg.parts[name]
	if !made {
		part = make()
		cfg.parts[name] = part
	}
	return part.(T)
}

// Err returns one error that lists every fault of every setting that was asked
// for, a line each, or nil.
func (cfg *Config) Err() error {
	if len(cfg.problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(cfg.problems, "\n"))
}

// ExitSettings is the exit code of a process whose settings are missing or wrong.
const ExitSettings = 2

// PrintError tells an operator why a process cannot start.
func PrintError(out io.Writer, process string, err error) {
	fmt.Fprintf(out, "%s cannot start:\n  %s\n", process, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

// OnClose has a part give back what it holds when the process ends.
func (cfg *Config) OnClose(f func(context.Context) error) { cfg.close = append(cfg.close, f) }

// Close ends the parts.
func (cfg *Config) Close(ctx context.Context) error {
	var errs []error
	for _, f := range cfg.close {
		errs = append(errs, f(ctx))
	}
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

// Text returns a setting of one line, or otherwise where it is not set.
func (cfg *Config) Text(name, otherwise string) string { return cfg.text(name, otherwise, "") }

// Lines returns a setting that may have several lines, such as PEM or JSON, or "".
func (cfg *Config) Lines(name string) string { return cfg.text(name, "", "\t\r\n") }

// text returns a setting without the white space around it, or otherwise. A control or
// invisible character that is not in allowed is a fault.
func (cfg *Config) text(name, otherwise, allowed string) string {
	s := cfg.value(name)
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) && !strings.ContainsRune(allowed, c) }) {
		cfg.Problem(name, "must not contain control or invisible characters")
		return otherwise
	}
	return cmp.Or(s, otherwise)
}

// value returns a setting as it is, without the white space around it.
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

// Number returns a whole number in bounds.
func (cfg *Config) Number(name string, otherwise, least, most int) int {
	s := cfg.Text(name, "")
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		cfg.Problem(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return otherwise
	}
	return n
}

// Duration returns a duration in bounds.
func (cfg *Config) Duration(name string, otherwise, least, most time.Duration) time.Duration {
	s := cfg.Text(name, "")
	if s == "" {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		cfg.Problem(name, fmt.Sprintf("must be a duration from %s to %s, such as %s", least, most, otherwise))
		return otherwise
	}
	return d
}

// Switch returns whether a setting is on.
func (cfg *Config) Switch(name string, otherwise bool) bool {
	switch cfg.Text(name, "") {
	case "":
		return otherwise
	case "on":
		return true
	case "off":
	default:
		cfg.Problem(name, "must be on or off")
	}
	return false
}

// Document returns a required document, from the setting itself or from the file
// that its …_FILE twin names, and which of the two it was; nil where there is none.
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
