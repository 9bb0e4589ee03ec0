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

// all asks for every part there is.
func all(w *app.Wiring) {
	w.Port()
	w.Users()
	w.Passwords()
	w.SessionLife()
	w.Grants()
	w.Verifier()
	w.AllowedOrigins()
}

func TestEveryFaultIsListedOnceAndNoValueIsQuoted(t *testing.T) {
	settings := map[string]string{
		"LOG_LEVEL": "secret", "PORT": "secret", "MONGODB_URI": "postgres://u:secret@db", "SESSION_LIMIT": "0",
		"HASH_MEMORY_KIB": "1", "HASH_TIME": "-1", "HASH_CONCURRENCY": "1.5", "SESSION_TTL": "30", "ACCESS_TOKEN_TTL": "secret",
		"SIGNING_KEYS": `{"keys":["secret"]}`, "VERIFYING_KEYS": "x", "VERIFYING_KEYS_FILE": "secret", "CORS_ALLOWED_ORIGINS": "https://a.example,secret",
	}
	w := wiring(settings)
	all(w)
	all(w)
	err := w.Err()
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Fatalf("faults: %v", err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 12 {
		t.Errorf("%d faults:\n%v", len(lines), err)
	}
	for name := range settings {
		if !strings.Contains(err.Error(), name+" ") {
			t.Errorf("%s is not among the faults:\n%v", name, err)
		}
	}
}

func TestWhatIsNotAskedForIsNotRequired(t *testing.T) {
	w := wiring(map[string]string{"MONGODB_URI": "mongodb://db"})
	w.Port()
	w.Users()
	w.Passwords()
	if err := w.Err(); err != nil {
		t.Error(err)
	}
	w.Grants()
	w.Verifier()
	if err := w.Err(); err == nil || strings.Count(err.Error(), "is not set") != 2 {
		t.Errorf("faults: %v", err)
	}
}

func TestPartsAreMadeOnceAndShared(t *testing.T) {
	w := wiring(map[string]string{"MONGODB_URI": "mongodb://db"})
	users, passwords := w.Users(), w.Passwords()
	if w.Users() != users || w.Passwords() != passwords {
		t.Error("a part was made twice")
	}
}

func TestKeysMayComeFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	public := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	if err := os.WriteFile(file, []byte(public), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, settings := range map[string]map[string]string{
		"the setting":          {"VERIFYING_KEYS": public},
		"a file":               {"VERIFYING_KEYS_FILE": file},
		"empty counts as none": {"VERIFYING_KEYS_FILE": file, "VERIFYING_KEYS": ""},
	} {
		w := wiring(settings)
		if w.VerifyingKeys(); w.Err() != nil {
			t.Errorf("%s: %v", name, w.Err())
		}
	}
	w := wiring(map[string]string{"VERIFYING_KEYS_FILE": file + "x"})
	if w.VerifyingKeys(); w.Err() == nil || strings.Contains(w.Err().Error(), file) {
		t.Errorf("a file that is not there: %v", w.Err())
	}
}
