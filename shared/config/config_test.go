package config_test

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/config"
)

func wiring(settings map[string]string) *config.Config {
	return config.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
}

func TestEveryFaultIsListedOnceAndNoValueIsQuoted(t *testing.T) {
	cfg := wiring(map[string]string{
		"LOG_LEVEL": "secret", "NUMBER": "secret", "LOW": "0", "FRACTION": "1.5", "DURATION": "30", "LONG": "48h", "SWITCH": "secret",
		"BOTH": "secret", "BOTH_FILE": "secret", "GONE_FILE": "/secret",
	})
	for range 2 {
		cfg.Number("NUMBER", 1, 0, 9)
		cfg.Number("LOW", 1, 1, 9)
		cfg.Number("FRACTION", 1, 1, 9)
		cfg.Duration("DURATION", time.Second, 0, time.Hour)
		cfg.Duration("LONG", time.Second, 0, time.Hour)
		cfg.Switch("SWITCH", true)
		cfg.Required("REQUIRED")
		cfg.Document("BOTH")
		cfg.Document("GONE")
		cfg.Document("NONE")
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
	if err := cfg.Err(); err == nil || err.Error() != want {
		t.Errorf("faults:\n%v", err)
	}
	var out strings.Builder
	config.PrintError(&out, "signup", cfg.Err())
	if got := out.String(); got != "signup cannot start:\n  "+strings.ReplaceAll(want, "\n", "\n  ")+"\n" {
		t.Errorf("complaint:\n%s", got)
	}
}

func TestWhatIsNotSetHasItsDefault(t *testing.T) {
	cfg := wiring(map[string]string{"EMPTY": ""})
	if cfg.Number("EMPTY", 7, 0, 9) != 7 || cfg.Duration("NONE", time.Minute, 0, time.Hour) != time.Minute || cfg.Switch("NONE", false) || !cfg.Switch("NONE", true) || cfg.Text("EMPTY", "x") != "x" || cfg.Err() != nil {
		t.Errorf("faults: %v", cfg.Err())
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
	cfg, made := wiring(nil), 0
	for range 3 {
		config.Part(cfg, "part", func() int { made++; return made })
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
		cfg := wiring(map[string]string{
			"LOG_LEVEL": around + "debug" + around, "TEXT": around + "a b" + around, "PORT": around + "8080" + around, "LIFE": "15m" + around,
			"SWITCH": around + "on", "PEM": around + "a\r\n\tb" + around, "KEYS": "{\n}" + around, "KEYS_FILE": around, "OTHER_FILE": around + file + around,
		})
		keys, document := cfg.Document("KEYS")
		_, other := cfg.Document("OTHER")
		if cfg.Text("TEXT", "") != "a b" || cfg.Required("TEXT") != "a b" || cfg.Number("PORT", 1, 0, 65535) != 8080 || cfg.Duration("LIFE", 0, 0, time.Hour) != 15*time.Minute ||
			!cfg.Switch("SWITCH", false) || cfg.Lines("PEM") != "a\r\n\tb" || keys != "KEYS" || string(document) != "{\n}" || string(other) != "document" {
			t.Errorf("%q is part of a value", around)
		}
		if err := cfg.Err(); err != nil {
			t.Errorf("%q: %v", around, err)
		}
	}
}

func TestSettings_WhiteSpaceAloneIsNotSet(t *testing.T) {
	for _, blank := range []string{" ", "\n", "\r\n", "\t", "\u00a0", " \n "} {
		cfg := wiring(map[string]string{"LOG_LEVEL": blank, "TEXT": blank, "PORT": blank, "LIFE": blank, "SWITCH": blank, "REQUIRED": blank, "KEYS": blank, "KEYS_FILE": blank})
		if cfg.Text("TEXT", "x") != "x" || cfg.Number("PORT", 7, 0, 9) != 7 || cfg.Duration("LIFE", time.Minute, 0, time.Hour) != time.Minute || !cfg.Switch("SWITCH", true) || cfg.Lines("TEXT") != "" {
			t.Errorf("%q is set", blank)
		}
		cfg.Required("REQUIRED")
		cfg.Document("KEYS")
		if err := cfg.Err(); err == nil || err.Error() != "REQUIRED is not set\nKEYS (or KEYS_FILE) is not set" {
			t.Errorf("%q: %v", blank, err)
		}
	}
}

func TestSettings_ControlCharactersAreRefused(t *testing.T) {
	for _, bad := range []string{"\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\u0085", "\u00a0", "\u200b", "\u202e", "\ufeff", "\u2028", "\xff"} {
		value := "secret" + bad + "secret"
		cfg := wiring(map[string]string{"LOG_LEVEL": value, "TEXT": value, "PORT": value, "LIFE": value, "SWITCH": value, "KEYS_FILE": value, "A": value, "A_FILE": value})
		cfg.Text("TEXT", "")
		cfg.Required("TEXT")
		cfg.Number("PORT", 1, 0, 9)
		cfg.Duration("LIFE", 0, 0, 0)
		cfg.Switch("SWITCH", false)
		cfg.Document("KEYS")
		want := []string{"LOG_LEVEL", "TEXT", "PORT", "LIFE", "SWITCH", "KEYS_FILE"}
		if !strings.Contains("\n\r\t", bad) { // of a document these are part
			cfg.Lines("A")
			want = append(want, "A")
		}
		all := strings.Join(want, " must not contain control or invisible characters\n") + " must not contain control or invisible characters"
		if err := cfg.Err(); err == nil || err.Error() != all {
			t.Errorf("%q:\n%v", bad, err)
		}
	}
	cfg := wiring(map[string]string{"MARKED": "\ufeffsecret"})
	if cfg.Text("MARKED", ""); cfg.Err() == nil {
		t.Error("a byte order mark is part of a value")
	}
}
