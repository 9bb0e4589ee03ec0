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
package app

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
type Wiring struct {
	lookup Lookup
	log    *slog.Logger
	now    func() time.Time
	faults []string
	parts  map[string]any
	close  []func(context.Context) error
}

// New returns a wiring over an environment. Handler is where logs go, LOG_LEVEL
// decides what; now is the clock of all parts.
func New(lookup Lookup, handler func(*slog.HandlerOptions) slog.Handler, now func() time.Time) *Wiring {
	w := &Wiring{lookup: lookup, now: now, parts: map[string]any{}}
	level := slog.LevelInfo
	if s := w.Text("LOG_LEVEL", ""); s != "" && level.UnmarshalText([]byte(s)) != nil {
		w.Fault("LOG_LEVEL", "must be debug, info, warn or error")
	}
	w.log = slog.New(handler(&slog.HandlerOptions{Level: level}))
	return w
}

// Part returns the part of a name, which is made once and shared by all who ask.
func Part[T any](w *Wiring, name string, make func() T) T {
	part, made := w.parts[name]
	if !made {
		part = make()
		w.parts[name] = part
	}
	return part.(T)
}

// Err returns one error that lists every fault of every setting that was asked
// for, a line each, or nil.
func (w *Wiring) Err() error {
	if len(w.faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(w.faults, "\n"))
}

// ExitSettings is the exit code of a process whose settings are missing or wrong.
const ExitSettings = 2

// Complain tells an operator why a process cannot start.
func Complain(out io.Writer, process string, err error) {
	fmt.Fprintf(out, "%s cannot start:\n  %s\n", process, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

// OnClose has a part give back what it holds when the process ends.
func (w *Wiring) OnClose(f func(context.Context) error) { w.close = append(w.close, f) }

// Close ends the parts.
func (w *Wiring) Close(ctx context.Context) error {
	var errs []error
	for _, f := range w.close {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}

// Log returns the log.
func (w *Wiring) Log() *slog.Logger { return w.log }

// Now returns the clock.
func (w *Wiring) Now() func() time.Time { return w.now }

// Fault notes what is wrong with a setting.
func (w *Wiring) Fault(name, what string) {
	if f := name + " " + what; !slices.Contains(w.faults, f) {
		w.faults = append(w.faults, f)
	}
}

// Text returns a setting of one line, or otherwise where it is not set.
func (w *Wiring) Text(name, otherwise string) string { return w.text(name, otherwise, "") }

// Lines returns a setting that may have several lines, such as PEM or JSON, or "".
func (w *Wiring) Lines(name string) string { return w.text(name, "", "\t\r\n") }

// text returns a setting without the white space around it, or otherwise. A control or
// invisible character that is not in allowed is a fault.
func (w *Wiring) text(name, otherwise, allowed string) string {
	s := w.value(name)
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) && !strings.ContainsRune(allowed, c) }) {
		w.Fault(name, "must not contain control or invisible characters")
		return otherwise
	}
	return cmp.Or(s, otherwise)
}

// value returns a setting as it is, without the white space around it.
func (w *Wiring) value(name string) string {
	s, _ := w.lookup(name)
	return strings.TrimSpace(s)
}

// Required returns a setting that must be set.
func (w *Wiring) Required(name string) string {
	if w.value(name) == "" {
		w.Fault(name, "is not set")
	}
	return w.Text(name, "")
}

// Number returns a whole number in bounds.
func (w *Wiring) Number(name string, otherwise, least, most int) int {
	s := w.Text(name, "")
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		w.Fault(name, fmt.Sprintf("must be a whole number from %d to %d", least, most))
		return otherwise
	}
	return n
}

// Duration returns a duration in bounds.
func (w *Wiring) Duration(name string, otherwise, least, most time.Duration) time.Duration {
	s := w.Text(name, "")
	if s == "" {
		return otherwise
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		w.Fault(name, fmt.Sprintf("must be a duration from %s to %s, such as %s", least, most, otherwise))
		return otherwise
	}
	return d
}

// Switch returns whether a setting is on.
func (w *Wiring) Switch(name string, otherwise bool) bool {
	switch w.Text(name, "") {
	case "":
		return otherwise
	case "on":
		return true
	case "off":
	default:
		w.Fault(name, "must be on or off")
	}
	return false
}

// Document returns a required document, from the setting itself or from the file
// that its …_FILE twin names, and which of the two it was; nil where there is none.
func (w *Wiring) Document(setting string) (name string, document []byte) {
	text, path := w.Lines(setting), w.Text(setting+"_FILE", "")
	switch {
	case w.value(setting) != "" && w.value(setting+"_FILE") != "":
		w.Fault(setting, "and "+setting+"_FILE are both set")
	case text != "":
		return setting, []byte(text)
	case path != "":
		document, err := os.ReadFile(path)
		if err == nil {
			return setting + "_FILE", document
		}
		w.Fault(setting+"_FILE", "names a file that cannot be read")
	case w.value(setting)+w.value(setting+"_FILE") == "":
		w.Fault(setting, "(or "+setting+"_FILE) is not set")
	}
	return "", nil
}
