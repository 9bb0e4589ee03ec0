package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The commands of an operator, in their order. DIR stands for the directory, and KEY for the id of
// a key.
func TestKeys_Commands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ids := regexp.MustCompile(`[A-Za-z0-9_-]{43}`)
	var rotation []string // the output of the three steps
	for _, c := range []struct {
		after          time.Duration
		args           string
		code           int
		stdout, stderr string
	}{
		{0, "rotate", 2, "", "keys rotate: open DIR: no such file or directory\n"},
		{0, "new", 0, "Wrote DIR/signing.jwks (private: for signup, signin and refresh only).\nWrote DIR/verifying.jwks (public: for the other functions).\n", ""},
		{0, "new", 2, "", "keys new: create keys DIR/signing.jwks: file already exists\n"},
		{0, "rotate", 0, "Published the new key KEY. It does not sign yet.\n" +
			"Deploy verifying.jwks now, to jwks and to every function that verifies tokens.\n" +
			"Run rotate again from 2026-03-01T12:10:00Z on, to let the new key sign. That leaves 5 minutes for the deployment and 5 for caches of the old set: if the deployment takes longer, wait longer.\n", ""},
		{9 * time.Minute, "rotate", 2, "", "keys rotate: too early to sign with the new key: try again from 2026-03-01T12:10:00Z on\n"},
		{9 * time.Minute, "rotate -force", 0, "Warning: the step was too early: a verifier without the new key rejects its tokens until it fetches the key.\n" +
			"Promoted the key KEY: it signs from now on. The old private key is destroyed; its tokens remain valid.\n" +
			"Deploy signing.jwks now, to signup, signin and refresh.\n" +
			"Run rotate again from 2026-03-01T12:29:30Z on, to withdraw the old key. That leaves 5 minutes for the deployment and the rest for the last tokens of the old key: if the deployment takes longer, wait longer.\n", ""},
		{29 * time.Minute, "rotate", 2, "", "keys rotate: too early to withdraw the old key: try again from 2026-03-01T12:29:30Z on\n"},
		{30 * time.Minute, "rotate -ttl 1h", 2, "", "keys rotate: too early to withdraw the old key: try again from 2026-03-01T13:14:30Z on\n"},
		{30 * time.Minute, "rotate", 0, "Withdrew KEY: its tokens are no longer valid.\n" +
			"Deploy verifying.jwks now, to jwks and to every function that verifies tokens.\nThe rotation is complete.\n", ""},
		{0, "rotate -ttl 0s", 2, "", "keys rotate: -ttl must be positive: run \"go run ./infra/keys rotate -h\" for help\n"},
		{0, "rotate now", 2, "", "keys rotate: unexpected argument: run \"go run ./infra/keys rotate -h\" for help\n"},
		{0, "new -force", 2, "", "keys new: flag provided but not defined: -force: run \"go run ./infra/keys new -h\" for help\n"},
		{0, "new -alg RS256", 2, "", "keys new: -alg must be EdDSA or ES256: run \"go run ./infra/keys new -h\" for help\n"},
		{0, "rotate -alg none", 2, "", "keys rotate: -alg must be EdDSA or ES256: run \"go run ./infra/keys rotate -h\" for help\n"},
		{0, "", 2, "", "keys: no command is given: run \"go run ./infra/keys -h\" for help\n"},
		{0, "revoke", 2, "", "keys: unknown command: run \"go run ./infra/keys -h\" for help\n"},
		{0, "help", 0, text, ""},
		{0, "rotate -h", 0, text, ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.Fields(c.args)
			if len(args) > 0 && c.stdout != text {
				args = append([]string{args[0], "-dir", dir}, args[1:]...)
			}
			var stdout, stderr bytes.Buffer
			code := run(args, &stdout, &stderr, func() time.Time { return noon.Add(c.after) })
			plain := func(b bytes.Buffer) string {
				return ids.ReplaceAllString(strings.ReplaceAll(b.String(), dir, "DIR"), "KEY")
			}
			if strings.HasPrefix(c.args, "rotate") && len(rotation) < 3 && code == 0 {
				_, output, warned := strings.Cut(plain(stdout), "fetches the key.\n")
				if !warned {
					output = plain(stdout)
				}
				rotation = append(rotation, output)
			}
			if code != c.code || plain(stdout) != c.stdout || plain(stderr) != c.stderr {
				t.Errorf("got exit code %d and\n%s%swant %d and\n%s%s", code, plain(stdout), plain(stderr), c.code, c.stdout, c.stderr)
			}
		})
	}

	page, err := os.ReadFile(filepath.Join("..", "docs", "keys.md"))
	if err != nil {
		t.Fatal(err)
	}
	step := "$ go run ./infra/keys rotate\n"
	times := regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	if want := step + strings.Join(rotation, "\n"+step); !strings.Contains(string(page), times.ReplaceAllString(strings.ReplaceAll(want, "KEY", "…"), "…")) {
		t.Errorf("keys.md does not contain\n%s", want)
	}

	var stdout, stderr bytes.Buffer
	want, err := os.ReadFile(filepath.Join(dir, "verifying.jwks"))
	if err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"public", "-dir", dir}, &stdout, &stderr, time.Now); code != 0 || stdout.String() != string(want) || stderr.Len() > 0 {
		t.Errorf("public: got exit code %d and\n%s%swant 0 and\n%s", code, stdout.String(), stderr.String(), want)
	}
}

// The page mail.md has the output of the first step.
func TestMail_Commands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	noon := time.Now().Truncate(time.Second)
	const withdrew = "Withdrew the old key from DIR/mail.keys.\nDeploy the file to mail and to the functions that check tokens.\nThe rotation is complete.\n"
	step := ""
	for _, c := range []struct {
		after          time.Duration
		args           string
		code           int
		stdout, stderr string // "…" stands for a time
	}{
		{0, "", 0, "Wrote DIR/mail.keys (secret: for mail and the functions that check its tokens).\n", ""},
		{0, "", 0, "Added a new key to DIR/mail.keys. The old key still accepts the tokens of earlier mails.\n" +
			"Deploy the file first to the functions that check tokens, then to mail.\nRun mail again from … on, to withdraw the old key.\n", ""},
		{7 * 24 * time.Hour, "", 2, "", "keys mail: too early to withdraw the old key: try again from … on\n"},
		{7 * 24 * time.Hour, "-force", 0, "Warning: the step was too early: links and codes of the last days are no longer valid.\n" + withdrew, ""},
		{0, "now", 2, "", "keys mail: unexpected argument: run \"go run ./infra/keys mail -h\" for help\n"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"mail", "-dir", dir}, strings.Fields(c.args)...), &stdout, &stderr, func() time.Time { return noon.Add(c.after) })
		times := regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
		plain := func(b bytes.Buffer) string {
			return times.ReplaceAllString(strings.ReplaceAll(b.String(), dir, "DIR"), "…")
		}
		if code != c.code || plain(stdout) != c.stdout || plain(stderr) != c.stderr {
			t.Errorf("mail %s: got exit code %d and\n%s%swant %d and\n%s%s", c.args, code, plain(stdout), plain(stderr), c.code, c.stdout, c.stderr)
		}
		if strings.HasPrefix(c.stdout, "Added") {
			step = strings.ReplaceAll(plain(stdout), "DIR", ".data/keys")
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "mail.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "$ go run ./infra/keys mail\n" + step; !strings.Contains(string(page), want) {
		t.Errorf("mail.md does not contain\n%s", want)
	}
}

// A URL on the command line would show its password to all users of the machine, so it is in a file.
func TestSecrets_MailServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if code := run([]string{"new", "-dir", dir}, &bytes.Buffer{}, &bytes.Buffer{}, time.Now); code != 0 {
		t.Fatalf("new: got exit code %d, want 0", code)
	}
	file := filepath.Join(t.TempDir(), "smtp.url")
	for content, c := range map[string]struct {
		code           int
		stdout, stderr string
	}{
		"smtp://user:secret@mail.example:587\n": {0, `url: "smtp://user:secret@mail.example:587"`, ""},
		"smtp://user:secret/@mail.example":      {2, "", "percent-encoding"},
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		code := run([]string{"secrets", "-dir", dir, "-smtp", file}, &stdout, &stderr, time.Now)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) || strings.Contains(stderr.String(), "secret/") {
			t.Errorf("got exit code %d and %s\nwant %d, %q and %q", code, stderr.String(), c.code, c.stdout, c.stderr)
		}
	}
}

// A running database has the passwords of the first run, so each run must print the same ones.
func TestSecrets_AreStable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	secrets := func(args ...string) (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		code = run(append([]string{"secrets", "-dir", dir}, args...), &out, &errs, time.Now)
		return code, out.String(), strings.ReplaceAll(errs.String(), dir, "DIR")
	}
	if code, _, stderr := secrets(); code != 2 || stderr != "keys secrets: open DIR: no such file or directory\n" {
		t.Errorf("without keys: got exit code %d and %s, want 2 and an error that names the directory", code, stderr)
	}
	if code := run([]string{"new", "-dir", dir}, &bytes.Buffer{}, &bytes.Buffer{}, time.Now); code != 0 {
		t.Fatalf("new: got exit code %d, want 0", code)
	}
	_, once, _ := secrets()
	code, again, stderr := secrets()
	if code != 0 || once != again || stderr != "" || !strings.Contains(once, "name: mongodb-signin\n") {
		t.Errorf("the second run: got exit code %d, %s and\n%swant 0 and\n%s", code, stderr, again, once)
	}
	if password := regexp.MustCompile(`:([0-9a-f]{48})@`).FindAllString(once, -1); len(slices.Compact(slices.Sorted(slices.Values(password)))) < 8 {
		t.Errorf("got %d passwords, want at least 8 different ones", len(password))
	}
	root := filepath.Join(dir, "mongodb.key")
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mongodb.key: got the mode %v and %v, want 0600", info.Mode(), err)
	}
	if code, _, stderr := secrets("-mongodb", "mongodb://ann:secret@db.example/users"); code != 2 || strings.Contains(stderr, "secret@") {
		t.Errorf("a URI with a password: got exit code %d and %s, want 2 and no password", code, stderr)
	}
	if err := os.WriteFile(root, []byte("cut sho"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := secrets(); code != 2 || !strings.Contains(stderr, "damaged") {
		t.Errorf("a truncated mongodb.key: got exit code %d and %s, want 2 and an error with damaged", code, stderr)
	}
}
