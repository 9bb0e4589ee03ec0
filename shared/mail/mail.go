// Package mail renders the mails to users, in plain text and in HTML.
//
// A mail has one template. Both html/template and text/template read it. It has the parts of the
// mail as templates: subject, what (happened), do, action (the label of the link), expires and
// otherwise. layout.html and layout.txt arrange the parts, and common.tmpl has the words that all
// mails of a language share:
//
//	layout.html, layout.txt
//	en/common.tmpl, en/verification.tmpl, en/recovery.tmpl, …
//	de/common.tmpl, …
//
// An operator can mount a folder with the same names (MAIL_TEMPLATES). Each of its files replaces
// the built-in one, and a folder with the name of a further language adds that language.
//
// Every link begins with PUBLIC_URL. No part of a request is in a link, except the token.
package mail

import (
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	texttemplate "text/template"
	"time"
	"unicode"

	"golang.org/x/text/language"

	"ticketing.com/auth/shared/events/event"
)

//go:embed templates
var embedded embed.FS

// Names returns the names of all mails.
func Names() []event.Purpose {
	return []event.Purpose{event.Verification, event.Recovery, event.EmailChange, event.EmailUndo,
		event.NewDevice, event.PasswordNotice, event.DeletionNotice}
}

// HasLink reports whether the mail has a link with a token.
func HasLink(name event.Purpose) bool {
	return name == event.Verification || name == event.Recovery || name == event.EmailChange || name == event.EmailUndo
}

// HasCode reports whether the mail has a code.
func HasCode(name event.Purpose) bool { return HasLink(name) && name != event.EmailUndo }

// Templates renders mails. It is safe for concurrent use.
type Templates struct {
	origin    *url.URL
	files     []fs.FS // the first one that has a file is used
	languages []string
	matcher   language.Matcher

	mu     sync.Mutex
	parsed map[string]*pair
}

// A pair is a template in both forms.
type pair struct {
	html *htmltemplate.Template
	text *texttemplate.Template
}

// defaultLanguage is the language of a mail if no template fits the user.
const defaultLanguage = "en"

// The files of all languages, and of each language.
const (
	layoutHTML = "layout.html"
	layoutText = "layout.txt"
	common     = "common.tmpl"
)

// New returns the built-in templates. origin is the beginning of every link.
//
// If dir is not empty, its files replace or add to the built-in ones. New then renders every mail,
// so an error in a template shows at the start of the process, and not in the mail of a user.
func New(origin, dir string) (*Templates, error) {
	t := &Templates{parsed: map[string]*pair{}}
	var err error
	if t.origin, err = ParseOrigin(origin); err != nil {
		return nil, err
	}
	builtIn, err := fs.Sub(embedded, "templates")
	if err != nil {
		return nil, err
	}
	t.files = []fs.FS{builtIn}
	if dir != "" {
		t.files = slices.Insert(t.files, 0, os.DirFS(dir))
	}
	if err := t.list(); err != nil {
		return nil, err
	}
	if dir != "" {
		return t, t.check()
	}
	return t, nil
}

// ParseOrigin parses an origin: https, or http on a loopback host, and nothing after the host. The
// error does not contain the text.
func ParseOrigin(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		return nil, errors.New("must be an origin such as https://tickets.example, without a path")
	case u.Scheme == "https", u.Scheme == "http" && IsLoopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("must begin with https://: only a loopback host may have http://")
}

// IsLoopback reports whether a host is on this machine.
func IsLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// list finds the languages and rejects files with unexpected names: they would have no effect.
func (t *Templates) list() error {
	for i, files := range t.files {
		entries, err := fs.ReadDir(files, ".")
		if err != nil {
			return errors.New("is not a folder that can be read")
		}
		for _, entry := range entries {
			name := entry.Name()
			switch {
			case strings.HasPrefix(name, "."), name == layoutHTML, name == layoutText: // ..data is a part of each mounted ConfigMap
				continue
			}
			if tag, err := language.Parse(name); err != nil || tag.String() != name {
				return fmt.Errorf("has %q: it must be %s, %s or a folder with the tag of a language, such as pt-BR", name, layoutHTML, layoutText)
			}
			if err := t.listLanguage(i, name); err != nil {
				return err
			}
		}
	}
	slices.Sort(t.languages)
	t.languages = slices.Compact(t.languages)
	first := slices.Index(t.languages, defaultLanguage)
	t.languages[0], t.languages[first] = t.languages[first], t.languages[0] // the matcher falls back to the first one
	var tags []language.Tag
	for _, name := range t.languages {
		tags = append(tags, language.Make(name))
	}
	t.matcher = language.NewMatcher(tags)
	return nil
}

func (t *Templates) listLanguage(i int, name string) error {
	entries, err := fs.ReadDir(t.files[i], name)
	if err != nil {
		return fmt.Errorf("has %q, which is not a folder that can be read", name)
	}
	for _, entry := range entries {
		if file := entry.Name(); !strings.HasPrefix(file, ".") && !slices.Contains(languageFiles(), file) {
			return fmt.Errorf("has %q, which is no template: use one of %s", path.Join(name, file), strings.Join(languageFiles(), ", "))
		}
	}
	t.languages = append(t.languages, name)
	return nil
}

// languageFiles returns the files of a language.
func languageFiles() []string {
	all := []string{common}
	for _, name := range Names() {
		all = append(all, string(name)+".tmpl")
	}
	return all
}

// check renders every mail in every language.
func (t *Templates) check() error {
	for _, lang := range t.languages {
		for _, name := range Names() {
			if _, err := t.Render(Sample(name, lang)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sample returns sample content of a mail, for a check or a preview.
func Sample(name event.Purpose, locale string) Content {
	now := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	c := Content{Template: name, Locale: locale, At: now, Agent: "Chrome on macOS", Place: "203.0.113.0/24"}
	if HasLink(name) {
		c.Purpose, c.Token, c.Expires = name, "sample-token", now.Add(time.Hour)
	}
	if HasCode(name) {
		c.Code = "123456"
	}
	if name == event.DeletionNotice {
		c.Deletes = now.Add(30 * 24 * time.Hour)
	}
	return c
}

// Languages returns the tags of the languages. The first one is the default.
func (t *Templates) Languages() []string { return slices.Clone(t.languages) }

// Content is the content of a mail.
type Content struct {
	Template event.Purpose
	Locale   string // a language tag (RFC 5646) or a list as in Accept-Language; empty or invalid: the default language

	Purpose event.Purpose // of the token
	Token   string        // empty for a mail without a link
	Code    string        // empty for a mail without a code
	Expires time.Time     // of the token

	At           time.Time // of the change
	Agent, Place string    // of the client; may be empty
	Deletes      time.Time // of the account; may be zero
}

// A Mail is a rendered mail.
type Mail struct{ Language, Subject, Text, HTML string }

// view is the data of the templates.
type view struct {
	Language string
	Site     string // the host of PUBLIC_URL
	Home     string // PUBLIC_URL
	Link     string // with the token
	Code     string

	Time, Expires, Deletes string // in UTC
	Agent, Place           string
}

// Render renders a mail. The error does not contain the content.
func (t *Templates) Render(c Content) (Mail, error) {
	if !slices.Contains(Names(), c.Template) {
		return Mail{}, errors.New("there is no such template")
	}
	lang := t.match(c.Locale)
	p, err := t.parse(lang, c.Template)
	if err != nil {
		return Mail{}, err
	}
	v := view{
		Language: lang, Site: t.origin.Host, Home: t.origin.String(), Code: c.Code,
		Time: formatTime(c.At), Expires: formatTime(c.Expires), Deletes: formatTime(c.Deletes),
		Agent: plain(c.Agent), Place: network(c.Place),
	}
	if c.Token != "" {
		v.Link = t.Link(c.Purpose, c.Token)
	}
	var subject, text, html strings.Builder
	for _, step := range []error{
		p.text.ExecuteTemplate(&subject, "subject", v),
		p.text.ExecuteTemplate(&text, layoutText, v),
		p.html.ExecuteTemplate(&html, layoutHTML, v),
	} {
		if step != nil {
			return Mail{}, fmt.Errorf("the template %s/%s.tmpl cannot be rendered: %s", lang, c.Template, place(step))
		}
	}
	m := Mail{lang, strings.Join(strings.Fields(subject.String()), " "), text.String(), html.String()}
	if m.Subject == "" {
		return Mail{}, fmt.Errorf("the template %s/%s.tmpl has no subject", lang, c.Template)
	}
	return m, nil
}

// Link returns the link to the page for a purpose. The token is in the fragment. A browser sends the
// fragment to no server: no log and no Referer header contains it, and a GET changes nothing.
func (t *Templates) Link(purpose event.Purpose, token string) string {
	return t.origin.String() + "/confirm/" + url.PathEscape(string(purpose)) + "#" + token
}

// maxLocale bounds the work for a locale, in bytes.
const maxLocale = 256

// match returns the best language for a locale.
func (t *Templates) match(locale string) string {
	wanted, _, err := language.ParseAcceptLanguage(locale[:min(len(locale), maxLocale)])
	if err != nil || len(wanted) == 0 {
		return t.languages[0]
	}
	_, index, _ := t.matcher.Match(wanted...)
	return t.languages[index]
}

// optional has the parts that a mail without a link does not define.
const optional = `{{define "action"}}{{end}}{{define "expires"}}{{end}}`

// parse returns the parsed templates of a mail. Each is parsed once, at its first use.
func (t *Templates) parse(lang string, name event.Purpose) (*pair, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mail := path.Join(lang, string(name)+".tmpl")
	if p := t.parsed[mail]; p != nil {
		return p, nil
	}
	html, text := htmltemplate.New(""), texttemplate.New("")
	for _, file := range []string{"optional", layoutHTML, layoutText, path.Join(lang, common), mail} {
		source, err := optional, error(nil)
		if file != "optional" {
			source, err = t.read(file)
		}
		if err == nil && file != layoutText {
			_, err = html.New(file).Parse(source)
		}
		if err == nil && file != layoutHTML {
			_, err = text.New(file).Parse(source)
		}
		if err != nil {
			return nil, fmt.Errorf("the template %s cannot be read: %w", file, err)
		}
	}
	t.parsed[mail] = &pair{html, text}
	return t.parsed[mail], nil
}

// maxFile is the maximum size of a template, in bytes.
const maxFile = 64 << 10

func (t *Templates) read(file string) (string, error) {
	for _, files := range t.files {
		source, err := fs.ReadFile(files, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && len(source) > maxFile {
			err = fmt.Errorf("it is larger than %d KiB", maxFile>>10)
		}
		return string(source), err
	}
	return "", fs.ErrNotExist
}

// place returns the position in a template from its error. The rest of the error can contain the
// values that the template was executed with.
func place(err error) string {
	position, _, _ := strings.Cut(err.Error(), ": executing ")
	if e, is := errors.AsType[*htmltemplate.Error](err); is {
		position = fmt.Sprintf("%s:%d: %s", e.Name, e.Line, e.Description) // of an escape, before the execution
	}
	return position
}

// formatTime returns a time that readers of all languages understand, or "" for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}

// maxPlain is the maximum length of plain text, in bytes.
const maxPlain = 64

// plain returns text of a client in a form that no mail program turns into a link: letters,
// digits and a few other characters, with no dot or colon between letters.
func plain(text string) string {
	var out strings.Builder
	runes := []rune(text)
	for i, c := range runes {
		isNumber := c == '.' && i > 0 && i+1 < len(runes) && unicode.IsDigit(runes[i-1]) && unicode.IsDigit(runes[i+1])
		if !isNumber && !unicode.In(c, unicode.L, unicode.N) && !strings.ContainsRune("()-_,+", c) {
			c = ' '
		}
		if out.Len()+len(string(c)) > maxPlain {
			break
		}
		out.WriteRune(c)
	}
	return strings.Join(strings.Fields(out.String()), " ")
}

// network returns a network in its normal form, or "" for any other text.
func network(text string) string {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return ""
	}
	return prefix.Masked().String()
}
