package mailbox

import (
	"bytes"
	_ "embed"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/infra/local/pages"
	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/httpserver"
	"ticketing.com/auth/shared/mail"
)

// Path is the path of the page, and TemplatesPath that of the page of the templates.
const Path, TemplatesPath = "/mail", "/mail/templates"

var (
	//go:embed page.html
	source string
	page   = template.Must(template.New("").Parse(source))
	//go:embed page.css
	style []byte
)

const (
	// policy is that of the page. The HTML of a mail is in a frame of its own.
	policy = "default-src 'none'; style-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// framePolicy is that of the HTML of a mail: no scripts, no requests, and an origin of its own.
	// Its links open outside of the frame.
	framePolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)

// Handler returns a handler that serves the page of a box and the page of the templates, and passes all
// other paths to next. If the box is nil, its page says that mails are sent. next must drain its requests
// itself.
//
// The mails contain tokens. So the process must listen on a loopback address, and Handler answers
// only requests to a loopback host. Otherwise a page of another site could read the mails under a
// name that resolves to a loopback address (DNS rebinding).
func Handler(b *Box, templates *mail.Templates, next http.Handler) http.Handler {
	own := httpserver.Drain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.answer(r, templates).Write(w) }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.EscapedPath(); (path == Path || strings.HasPrefix(path, Path+"/")) && isLoopback(r.Host) {
			own.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback reports whether the Host of a request is localhost or a loopback address.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && address.IsLoopback()
}

func (b *Box) answer(r *http.Request, templates *mail.Templates) endpoint.Response {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return endpoint.Refuse(apierror.Method("GET, HEAD"))
	}
	path := r.URL.EscapedPath()
	switch {
	case path == Path+"/page.css":
		return pages.Response("text/css; charset=utf-8", policy, style)
	case path == Path && wantsJSON(r):
		return b.list()
	case path == Path:
		return render(b.content())
	case path == TemplatesPath:
		return preview(templates)
	}
	if language, name, is := strings.Cut(strings.TrimPrefix(path, TemplatesPath+"/"), "/"); is && slices.Contains(templates.Languages(), language) && slices.Contains(mail.Names(), event.Purpose(name)) {
		m, err := templates.Render(mail.Sample(event.Purpose(name), language))
		if err != nil {
			return endpoint.Refuse(apierror.From(err))
		}
		return pages.Response("text/html; charset=utf-8", framePolicy, []byte(`<base target="_blank">`+m.HTML))
	}
	if id, err := strconv.Atoi(strings.TrimPrefix(path, Path+"/")); err == nil && b != nil {
		if m, found := b.mail(id); found {
			return pages.Response("text/html; charset=utf-8", framePolicy, []byte(`<base target="_blank">`+m.HTML))
		}
	}
	return endpoint.Refuse(apierror.New(apierror.NotFound, "There is nothing here."))
}

// wantsJSON reports whether a client asks for JSON. A browser also accepts HTML.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return r.URL.Query().Get("format") == "json" || strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

// content is the content of the page.
type content struct {
	Caught bool   `json:"caught"` // false: SMTP_URL is set, and mails are sent
	Mails  []Mail `json:"mails"`
	Limit  int    `json:"-"`

	Preview bool `json:"-"` // the mails are samples of the templates
}

func (b *Box) content() content {
	if b == nil {
		return content{Mails: []Mail{}}
	}
	c := content{Caught: true, Mails: append([]Mail{}, b.Mails()...), Limit: limit}
	for i := range c.Mails {
		c.Mails[i].Frame = Path + "/" + strconv.Itoa(c.Mails[i].ID)
	}
	return c
}

func (b *Box) list() endpoint.Response {
	body, err := json.Marshal(b.content())
	if err != nil {
		return endpoint.Refuse(apierror.From(err))
	}
	return pages.Response("application/json", policy, body)
}

// preview returns a page with a sample of each mail in each language.
func preview(templates *mail.Templates) endpoint.Response {
	c := content{Preview: true}
	for _, language := range templates.Languages() {
		for _, name := range mail.Names() {
			m, err := templates.Render(mail.Sample(name, language))
			if err != nil {
				return endpoint.Refuse(apierror.From(err))
			}
			path := language + "/" + string(name)
			c.Mails = append(c.Mails, Mail{To: path, Subject: m.Subject, Text: m.Text, HTML: m.HTML, Frame: TemplatesPath + "/" + path})
		}
	}
	return render(c)
}

func render(c content) endpoint.Response {
	var out bytes.Buffer
	if err := page.Execute(&out, c); err != nil {
		return endpoint.Refuse(apierror.From(err))
	}
	return pages.Response("text/html; charset=utf-8", policy, out.Bytes())
}
