package app_test

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/app"
)

func wiring(settings map[string]string) *app.Wiring {
	return app.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
}

func TestEveryFaultIsListedOnceAndNoValueIsQuoted(t *testing.T) {
	w := wiring(map[string]string{
		"LOG_LEVEL": "secret", "NUMBER": "secret", "LOW": "0", "FRACTION": "1.5", "DURATION": "30", "LONG": "48h", "SWITCH": "secret",
		"BOTH": "secret", "BOTH_FILE": "secret", "GONE_FILE": "/secret",
	})
	for range 2 {
		w.Number("NUMBER", 1, 0, 9)
		w.Number("LOW", 1, 1, 9)
		w.Number("FRACTION", 1, 1, 9)
		w.Duration("DURATION", time.Second, 0, time.Hour)
		w.Duration("LONG", time.Second, 0, time.Hour)
		w.Switch("SWITCH", true)
		w.Required("REQUIRED")
		w.Document("BOTH")
		w.Document("GONE")
		w.Document("NONE")
	}
	want := strings.Join([]string{
		"LOG_LEVEL must be debug, info, warn or error",
		"NUMBER must be a whole number from 0 to 9",
		"LOW must be a whole number from 1 to 9",
		"FRACTION must be a whole number from 1 to 9",
		"DURATION must be a duration from 0s to 1h0m0s, such as 1s",
		"LONG must be a duration from 0s to 1h0m0s, such as 1s",
		"SWITCH must be on or off",
		"REQUIRED is not set",
		"BOTH and BOTH_FILE are both set",
		"GONE_FILE names a file that cannot be read",
		"NONE (or NONE_FILE) is not set",
	}, "\n")
	if err := w.Err(); err == nil || err.Error() != want {
		t.Errorf("faults:\n%v", err)
	}
	var out strings.Builder
	app.Complain(&out, "signup", w.Err())
	if got := out.String(); got != "signup cannot start:\n  "+strings.ReplaceAll(want, "\n", "\n  ")+"\n" {
		t.Errorf("complaint:\n%s", got)
	}
}

func TestWhatIsNotSetHasItsDefault(t *testing.T) {
	w := wiring(map[string]string{"EMPTY": ""})
	if w.Number("EMPTY", 7, 0, 9) != 7 || w.Duration("NONE", time.Minute, 0, time.Hour) != time.Minute || w.Switch("NONE", false) || !w.Switch("NONE", true) || w.Text("EMPTY", "x") != "x" || w.Err() != nil {
		t.Errorf("faults: %v", w.Err())
	}
}

func TestADocumentMayComeFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("document"), 0o600); err != nil {
		t.Fatal(err)
	}
	for from, settings := range map[string]map[string]string{
		"KEYS":      {"KEYS": "document", "KEYS_FILE": ""},
		"KEYS_FILE": {"KEYS_FILE": file},
	} {
		name, got := wiring(settings).Document("KEYS")
		if name != from || string(got) != "document" {
			t.Errorf("%s: %s %s", from, name, got)
		}
	}
}

func TestAPartIsMadeOnce(t *testing.T) {
	w, made := wiring(nil), 0
	for range 3 {
		app.Part(w, "part", func() int { made++; return made })
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}

// A Secret made by echo ends with a line feed.
func TestSettings_WhiteSpaceAroundAValueIsDropped(t *testing.T) {
	for _, around := range []string{"\n", "\r\n", " ", "\t", "\n\n", "\u00a0", "\u2028", " \r\n\t "} {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte("document"), 0o600); err != nil {
			t.Fatal(err)
		}
		w := wiring(map[string]string{
			"LOG_LEVEL": around + "debug" + around, "TEXT": around + "a b" + around, "PORT": around + "8080" + around, "LIFE": "15m" + around,
			"SWITCH": around + "on", "PEM": around + "a\r\n\tb" + around, "KEYS": "{\n}" + around, "KEYS_FILE": around, "OTHER_FILE": around + file + around,
		})
		keys, document := w.Document("KEYS")
		_, other := w.Document("OTHER")
		if w.Text("TEXT", "") != "a b" || w.Required("TEXT") != "a b" || w.Number("PORT", 1, 0, 65535) != 8080 || w.Duration("LIFE", 0, 0, time.Hour) != 15*time.Minute ||
			!w.Switch("SWITCH", false) || w.Lines("PEM") != "a\r\n\tb" || keys != "KEYS" || string(document) != "{\n}" || string(other) != "document" {
			t.Errorf("%q is part of a value", around)
		}
		if err := w.Err(); err != nil {
			t.Errorf("%q: %v", around, err)
		}
	}
}

func TestSettings_WhiteSpaceAloneIsNotSet(t *testing.T) {
	for _, blank := range []string{" ", "\n", "\r\n", "\t", "\u00a0", " \n "} {
		w := wiring(map[string]string{"LOG_LEVEL": blank, "TEXT": blank, "PORT": blank, "LIFE": blank, "SWITCH": blank, "REQUIRED": blank, "KEYS": blank, "KEYS_FILE": blank})
		if w.Text("TEXT", "x") != "x" || w.Number("PORT", 7, 0, 9) != 7 || w.Duration("LIFE", time.Minute, 0, time.Hour) != time.Minute || !w.Switch("SWITCH", true) || w.Lines("TEXT") != "" {
			t.Errorf("%q is set", blank)
		}
		w.Required("REQUIRED")
		w.Document("KEYS")
		if err := w.Err(); err == nil || err.Error() != "REQUIRED is not set\nKEYS (or KEYS_FILE) is not set" {
			t.Errorf("%q: %v", blank, err)
		}
	}
}

func TestSettings_ControlCharactersAreRefused(t *testing.T) {
	for _, bad := range []string{"\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\u0085", "\u00a0", "\u200b", "\u202e", "\ufeff", "\u2028", "\xff"} {
		value := "secret" + bad + "secret"
		w := wiring(map[string]string{"LOG_LEVEL": value, "TEXT": value, "PORT": value, "LIFE": value, "SWITCH": value, "KEYS_FILE": value, "A": value, "A_FILE": value})
		w.Text("TEXT", "")
		w.Required("TEXT")
		w.Number("PORT", 1, 0, 9)
		w.Duration("LIFE", 0, 0, 0)
		w.Switch("SWITCH", false)
		w.Document("KEYS")
		want := []string{"LOG_LEVEL", "TEXT", "PORT", "LIFE", "SWITCH", "KEYS_FILE"}
		if !strings.Contains("\n\r\t", bad) { // of a document these are part
			w.Lines("A")
			want = append(want, "A")
		}
		all := strings.Join(want, " must not contain control or invisible characters\n") + " must not contain control or invisible characters"
		if err := w.Err(); err == nil || err.Error() != all {
			t.Errorf("%q:\n%v", bad, err)
		}
	}
	w := wiring(map[string]string{"MARKED": "\ufeffsecret"})
	if w.Text("MARKED", ""); w.Err() == nil {
		t.Error("a byte order mark is part of a value")
	}
}
