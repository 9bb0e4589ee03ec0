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

func newConfig(settings map[string]string) *config.Config {
	return config.New(func(name string) (string, bool) { s, ok := settings[name]; return s, ok },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
}

func TestErr_AllProblemsWithoutValues(t *testing.T) {
	cfg := newConfig(map[string]string{
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
		t.Errorf("got problems:\n%v\nwant:\n%s", err, want)
	}
	var out strings.Builder
	config.PrintError(&out, "signup", cfg.Err())
	if got := out.String(); got != "signup cannot start:\n  "+strings.ReplaceAll(want, "\n", "\n  ")+"\n" {
		t.Errorf("PrintError wrote:\n%s", got)
	}
}

func TestSettings_Defaults(t *testing.T) {
	cfg := newConfig(map[string]string{"EMPTY": ""})
	if cfg.Number("EMPTY", 7, 0, 9) != 7 || cfg.Duration("NONE", time.Minute, 0, time.Hour) != time.Minute || cfg.Switch("NONE", false) || !cfg.Switch("NONE", true) || cfg.Text("EMPTY", "x") != "x" || cfg.Err() != nil {
		t.Errorf("a setting does not have its default, or is a problem: %v", cfg.Err())
	}
}

func TestDocument_FromFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("document"), 0o600); err != nil {
		t.Fatal(err)
	}
	for from, settings := range map[string]map[string]string{
		"KEYS":      {"KEYS": "document", "KEYS_FILE": ""},
		"KEYS_FILE": {"KEYS_FILE": file},
	} {
		name, got := newConfig(settings).Document("KEYS")
		if name != from || string(got) != "document" {
			t.Errorf("got %s from %s, want document from %s", got, name, from)
		}
	}
}

func TestPart_CreatedOnce(t *testing.T) {
	cfg, created := newConfig(nil), 0
	for range 3 {
		config.Part(cfg, "part", func() int { created++; return created })
	}
	if created != 1 {
		t.Errorf("created %d times, want 1", created)
	}
}

// A Secret created with echo ends with a line feed.
func TestSettings_TrimsWhiteSpace(t *testing.T) {
	for _, around := range []string{"\n", "\r\n", " ", "\t", "\n\n", "\u00a0", "\u2028", " \r\n\t "} {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte("document"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := newConfig(map[string]string{
			"LOG_LEVEL": around + "debug" + around, "TEXT": around + "a b" + around, "PORT": around + "8080" + around, "LIFE": "15m" + around,
			"SWITCH": around + "on", "PEM": around + "a\r\n\tb" + around, "KEYS": "{\n}" + around, "KEYS_FILE": around, "OTHER_FILE": around + file + around,
		})
		keys, document := cfg.Document("KEYS")
		_, other := cfg.Document("OTHER")
		if cfg.Text("TEXT", "") != "a b" || cfg.Required("TEXT") != "a b" || cfg.Number("PORT", 1, 0, 65535) != 8080 || cfg.Duration("LIFE", 0, 0, time.Hour) != 15*time.Minute ||
			!cfg.Switch("SWITCH", false) || cfg.Lines("PEM") != "a\r\n\tb" || keys != "KEYS" || string(document) != "{\n}" || string(other) != "document" {
			t.Errorf("%q is not trimmed from a value", around)
		}
		if err := cfg.Err(); err != nil {
			t.Errorf("%q: got %v, want no problem", around, err)
		}
	}
}

func TestSettings_OnlyWhiteSpace(t *testing.T) {
	for _, blank := range []string{" ", "\n", "\r\n", "\t", "\u00a0", " \n "} {
		cfg := newConfig(map[string]string{"LOG_LEVEL": blank, "TEXT": blank, "PORT": blank, "LIFE": blank, "SWITCH": blank, "REQUIRED": blank, "KEYS": blank, "KEYS_FILE": blank})
		if cfg.Text("TEXT", "x") != "x" || cfg.Number("PORT", 7, 0, 9) != 7 || cfg.Duration("LIFE", time.Minute, 0, time.Hour) != time.Minute || !cfg.Switch("SWITCH", true) || cfg.Lines("TEXT") != "" {
			t.Errorf("%q counts as set", blank)
		}
		cfg.Required("REQUIRED")
		cfg.Document("KEYS")
		if err := cfg.Err(); err == nil || err.Error() != "REQUIRED is not set\nKEYS (or KEYS_FILE) is not set" {
			t.Errorf("%q: got %v, want REQUIRED and KEYS to be not set", blank, err)
		}
	}
}

func TestSettings_ControlCharacters(t *testing.T) {
	for _, bad := range []string{"\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\u0085", "\u00a0", "\u200b", "\u202e", "\ufeff", "\u2028", "\xff"} {
		value := "secret" + bad + "secret"
		cfg := newConfig(map[string]string{"LOG_LEVEL": value, "TEXT": value, "PORT": value, "LIFE": value, "SWITCH": value, "KEYS_FILE": value, "A": value, "A_FILE": value})
		cfg.Text("TEXT", "")
		cfg.Required("TEXT")
		cfg.Number("PORT", 1, 0, 9)
		cfg.Duration("LIFE", 0, 0, 0)
		cfg.Switch("SWITCH", false)
		cfg.Document("KEYS")
		want := []string{"LOG_LEVEL", "TEXT", "PORT", "LIFE", "SWITCH", "KEYS_FILE"}
		if !strings.Contains("\n\r\t", bad) { // a document may contain these
			cfg.Lines("A")
			want = append(want, "A")
		}
		all := strings.Join(want, " must not contain control or invisible characters\n") + " must not contain control or invisible characters"
		if err := cfg.Err(); err == nil || err.Error() != all {
			t.Errorf("%q: got\n%v\nwant\n%s", bad, err, all)
		}
	}
	cfg := newConfig(map[string]string{"MARKED": "\ufeffsecret"})
	if cfg.Text("MARKED", ""); cfg.Err() == nil {
		t.Error("a byte order mark: got no problem")
	}
}
