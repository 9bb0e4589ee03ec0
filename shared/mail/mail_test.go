package mail_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/mail"
)

const origin = "https://tickets.example"

func templates(t *testing.T, dir string) *mail.Templates {
	t.Helper()
	all, err := mail.New(origin, dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func render(t *testing.T, all *mail.Templates, c mail.Content) mail.Mail {
	t.Helper()
	m, err := all.Render(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var target = regexp.MustCompile(`(?i)(?:href|src|action|url)\s*[=(]\s*["']?([^"')\s>]*)`)

// Every mail says what happened, what to do, when the link expires, and what to do if the user did
// not cause it. It loads nothing, and its only link is the one with the token.
func TestRender_EveryTemplate(t *testing.T) {
	all := templates(t, "")
	if got, want := all.Languages(), []string{"en", "de", "es", "fr", "ja"}; !slices.Equal(got, want) {
		t.Fatalf("got the languages %v, want %v", got, want)
	}
	subjects := map[string]bool{}
	for _, lang := range all.Languages() {
		for _, name := range mail.Names() {
			c := mail.Sample(name, lang)
			m := render(t, all, c)
			link := ""
			if mail.HasLink(name) {
				link = origin + "/confirm/" + string(name) + "#sample-token"
			}
			if m.Language != lang || m.Subject == "" || subjects[m.Subject] {
				t.Errorf("%s/%s: got the language %s and the subject %q, want another subject in each", lang, name, m.Language, m.Subject)
			}
			subjects[m.Subject] = true
			for form, text := range map[string]string{"text": m.Text, "HTML": m.HTML} {
				wanted := []string{m.Subject, "2026-01-02 03:04 UTC", "Chrome on macOS", "203.0.113.0/24", "tickets.example"}
				if link != "" {
					wanted = append(wanted, link, "2026-01-02 04:04 UTC")
				}
				if c.Code != "" {
					wanted = append(wanted, c.Code)
				}
				if name == event.DeletionNotice {
					wanted = append(wanted, "2026-02-01 03:04 UTC")
				}
				for _, want := range wanted {
					if !strings.Contains(text, want) {
						t.Errorf("%s/%s: the %s has no %q:\n%s", lang, name, form, want, text)
					}
				}
				if c.Code == "" && strings.Contains(text, "123456") || strings.Contains(text, "{{") || strings.Contains(text, "<no value>") {
					t.Errorf("%s/%s: got the %s\n%s", lang, name, form, text)
				}
			}
			for _, m := range target.FindAllStringSubmatch(m.HTML, -1) {
				if m[1] != link {
					t.Errorf("%s/%s: the HTML refers to %q, want only %q", lang, name, m[1], link)
				}
			}
			for _, loads := range []string{"<img", "<script", "<link", "<iframe", "@import"} {
				if strings.Contains(m.HTML, loads) {
					t.Errorf("%s/%s: the HTML has %s", lang, name, loads)
				}
			}
			if strings.Contains(m.Text, "\n\n\n") || strings.Contains(m.Text, "<") {
				t.Errorf("%s/%s: got the text\n%s", lang, name, m.Text)
			}
		}
	}
}

func TestRender_Golden(t *testing.T) {
	got := render(t, templates(t, ""), mail.Sample(event.EmailUndo, "en")).Text
	const want = `Your email address was changed

The email address of your account at tickets.example was changed. This message goes to the earlier address.

Time: 2026-01-02 03:04 UTC
Device: Chrome on macOS
Network: 203.0.113.0/24

If you made this change, there is nothing to do. If you did not, open this link. It restores this address, signs out all devices and locks the password.

https://tickets.example/confirm/undo#sample-token

The link expires on 2026-01-02 04:04 UTC.

If you did not make the change, reset your password after you have restored the address.

--
This is an automatic message about your account at tickets.example.
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRender_DeletionAtOnce(t *testing.T) {
	all := templates(t, "")
	for _, lang := range all.Languages() {
		c := mail.Sample(event.DeletionNotice, lang)
		c.Deletes = time.Time{}
		if m := render(t, all, c); strings.Contains(m.Text, origin) || strings.Contains(m.Text, "  ") {
			t.Errorf("%s: got\n%s\nwant no offer to restore the account", lang, m.Text)
		}
	}
}

func TestRender_Locale(t *testing.T) {
	all := templates(t, "")
	for locale, want := range map[string]string{
		"": "en", "de": "de", "de-AT": "de", "fr-CA": "fr", "es-419": "es", "ja-JP": "ja", "en-GB": "en", "gsw": "de",
		"pt-BR": "en", "zh-Hant": "en", "*": "en", "no tag": "en", "de;q=0.5, fr": "fr", "sv, es;q=0.1": "es",
		"../../etc": "en", "DE_de": "de", strings.Repeat("de-", 1000): "en", "\xff": "en",
	} {
		c := mail.Sample(event.NewDevice, locale)
		if got := render(t, all, c).Language; got != want {
			t.Errorf("%q: got the language %s, want %s", locale, got, want)
		}
	}
}

// The client chooses the name of its device. It must add no markup, no link and no line.
func TestRender_HostileClient(t *testing.T) {
	all := templates(t, "")
	for agent, want := range map[string]string{
		"Chrome 120.0 on macOS":                  "Chrome 120.0 on macOS",
		"Firefox on Ubuntu (X11)":                "Firefox on Ubuntu (X11)",
		`<script>alert(1)</script>`:              "script alert(1) script",
		`"><a href="https://evil.example">x</a>`: "a href https evil example x a",
		"visit evil.example now":                 "visit evil example now",
		"a\r\nBcc: bob@example.com\r\n\r\nbody":  "a Bcc bob example com body",
		"{{.Link}}":                              "Link",
		"\u202egnitacude\u202c":                  "gnitacude",
		strings.Repeat("é", 100):                 strings.Repeat("é", 32),
		"ブラウザー":                                  "ブラウザー",
	} {
		c := mail.Sample(event.Recovery, "en")
		c.Agent, c.Place = agent, agent
		m := render(t, all, c)
		if !strings.Contains(m.Text, "\nDevice: "+want+"\n\n") || !strings.Contains(m.HTML, "Device: "+want+"</p>") {
			t.Errorf("%q: want the device %q and no network in\n%s\n%s", agent, want, m.Text, m.HTML)
		}
		if strings.ContainsAny(m.Subject, "\r\n") || strings.Contains(m.HTML, "evil.example") {
			t.Errorf("%q: got the subject %q and\n%s", agent, m.Subject, m.HTML)
		}
	}
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const recoveryFile = `{{define "subject"}}Ours{{end}}{{define "what"}}At {{.Site}}{{end}}{{define "do"}}Do.{{end}}{{define "action"}}Go{{end}}{{define "expires"}}{{.Expires}}{{end}}{{define "otherwise"}}Else.{{end}}`

func TestNew_MountedFolder(t *testing.T) {
	t.Run("a file replaces the built-in one", func(t *testing.T) {
		all := templates(t, write(t, map[string]string{"en/recovery.tmpl": recoveryFile, "..data/x": "", "..2026": ""}))
		if got := render(t, all, mail.Sample(event.Recovery, "en")).Subject; got != "Ours" {
			t.Errorf("got the subject %q, want Ours", got)
		}
		if got := render(t, all, mail.Sample(event.EmailUndo, "en")).Subject; got != "Your email address was changed" {
			t.Errorf("another mail: got the subject %q, want the built-in one", got)
		}
	})
	t.Run("a layout applies to all languages", func(t *testing.T) {
		all := templates(t, write(t, map[string]string{"layout.html": `<b>Brand</b>{{template "subject" .}}`}))
		if got := render(t, all, mail.Sample(event.Recovery, "de")).HTML; got != "<b>Brand</b>Setzen Sie Ihr Passwort zurück" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a folder adds a language", func(t *testing.T) {
		files := map[string]string{"pt-BR/common.tmpl": `{{define "time"}}Hora{{end}}{{define "agent"}}a{{end}}{{define "place"}}p{{end}}{{define "code"}}c{{end}}{{define "footer"}}f{{end}}`}
		for _, name := range mail.Names() {
			files["pt-BR/"+string(name)+".tmpl"] = recoveryFile
		}
		all := templates(t, write(t, files))
		if m := render(t, all, mail.Sample(event.NewDevice, "pt-PT, fr;q=0.5")); m.Language != "pt-BR" || !strings.Contains(m.Text, "Hora: ") {
			t.Errorf("got the language %s and\n%s", m.Language, m.Text)
		}
	})
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a misspelled template":            {map[string]string{"en/recvery.tmpl": ""}, `has "en/recvery.tmpl", which is no template`},
		"a folder that is no language":     {map[string]string{"english/recovery.tmpl": ""}, `has "english"`},
		"a language in another spelling":   {map[string]string{"pt_BR/recovery.tmpl": ""}, `has "pt_BR"`},
		"a file beside the folders":        {map[string]string{"recovery.tmpl": ""}, `has "recovery.tmpl"`},
		"an incomplete language":           {map[string]string{"pt-BR/recovery.tmpl": recoveryFile}, "the template pt-BR/common.tmpl cannot be read"},
		"a syntax error":                   {map[string]string{"en/recovery.tmpl": `{{define "subject"}}`}, "the template en/recovery.tmpl cannot be read"},
		"an unknown member":                {map[string]string{"en/recovery.tmpl": strings.Replace(recoveryFile, ".Site", ".Password", 1)}, "en/recovery.tmpl cannot be rendered: template: en/recovery.tmpl:1:"},
		"a part that is missing":           {map[string]string{"layout.html": `{{template "signature" .}}`}, "cannot be rendered"},
		"a subject that is empty":          {map[string]string{"en/recovery.tmpl": strings.Replace(recoveryFile, "Ours", " ", 1)}, "has no subject"},
		"a link in an unsafe place":        {map[string]string{"layout.html": `<script>x = {{.Link}</script>`}, "cannot be read"},
		"a template that is much too long": {map[string]string{"layout.txt": strings.Repeat("x", 1<<17)}, "larger than 64 KiB"},
	} {
		if _, err := mail.New(origin, write(t, c.files)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := mail.New(origin, filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing folder: got no error")
	}
}

func TestParseOrigin(t *testing.T) {
	for text, want := range map[string]bool{
		"https://tickets.example": true, "https://tickets.example:8443": true, "http://localhost:8080": true, "http://127.0.0.1": true, "http://[::1]:80": true,
		"http://tickets.example": false, "https://": false, "https://tickets.example/": false, "https://tickets.example/app": false,
		"https://user:secret@tickets.example": false, "https://tickets.example?a": false, "https://tickets.example?": false, "https://tickets.example#": false,
		"tickets.example": false, "javascript:alert(1)": false, "": false, "https://:443": false, "http://localhost.evil.example": false,
	} {
		if _, err := mail.ParseOrigin(text); (err == nil) != want || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v, want that it is valid: %t", text, err, want)
		}
	}
}
