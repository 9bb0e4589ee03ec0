// Package sink sends the system's events to K_SINK as CloudEvents 1.0, over HTTP in
// binary mode, with what SinkBinding asks for: overrides, certificates, an OIDC
// token.
//
// It sends one event when told to, and remembers nothing: what to send, and what
// was sent, is the business of package user.
package sender

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	ce "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/events/event"
	"ticketing.com/auth/shared/tlsconfig"
)

// A Config says where events go. SinkBinding sets most of it.
type Config struct {
	URL       string        // K_SINK
	Overrides string        // K_CE_OVERRIDES: {"extensions":{…}}
	CACerts   string        // K_CA_CERTS: PEM, trusted beside the system's
	TokenFile string        // the OIDC token, if the file exists; it is read for each send, since it is renewed
	Timeout   time.Duration // the most a request waits for the sink
}

// tokenFile is where SinkBinding mounts the OIDC token for the sink's audience.
const tokenFile = "/oidc/token"

// A Sink receives events. It is safe for concurrent use.
type Sink struct {
	url        string
	extensions map[string]string
	tokenFile  string
	timeout    time.Duration
	client     func() *http.Client // made when the first event needs it
}

// New checks a configuration. It opens nothing.
func New(c Config) (*Sink, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("K_SINK must be an absolute http or https URL")
	}
	extensions, err := c.extensions()
	if err != nil {
		return nil, err
	}
	return &Sink{
		url:        c.URL,
		extensions: extensions,
		tokenFile:  c.TokenFile,
		timeout:    c.Timeout,
		client:     sync.OnceValue(func() *http.Client { return newClient(c.CACerts) }),
	}, nil
}

// extensions returns the attributes that the overrides add to each event. It checks all of
// a configuration but the URL.
func (c Config) extensions() (map[string]string, error) {
	var overrides struct {
		Extensions map[string]string `json:"extensions"`
	}
	if c.Overrides != "" && json.Unmarshal([]byte(c.Overrides), &overrides) != nil {
		return nil, errors.New(`K_CE_OVERRIDES must be {"extensions":{"name":"value"}}`)
	}
	for name, value := range overrides.Extensions {
		if !ce.IsExtensionNameValid(name) || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, errors.New("K_CE_OVERRIDES has a name or a value that CloudEvents does not allow")
		}
	}
	sample := event.New(event.SignedUp, time.Unix(0, 0), "", event.Data{UserID: "sample"})
	if _, err := (&Sink{extensions: overrides.Extensions}).request(context.Background(), sample); err != nil {
		return nil, errors.New("K_CE_OVERRIDES makes no valid CloudEvent")
	}
	if c.CACerts != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.CACerts)) {
		return nil, errors.New("K_CA_CERTS has no certificate in PEM form")
	}
	return overrides.Extensions, nil
}

// FromConfig returns the sink of the environment, or nil where there is none: K_SINK,
// K_CE_OVERRIDES, K_CA_CERTS, which SinkBinding sets, and K_SINK_TIMEOUT. It checks each of
// them, also where K_SINK is not set.
func FromConfig(cfg *config.Config) event.Sink {
	s := config.Part(cfg, "sink", func() *Sink {
		c := Config{
			URL:       cfg.Text("K_SINK", ""),
			Overrides: cfg.Lines("K_CE_OVERRIDES"),
			CACerts:   cfg.Lines("K_CA_CERTS"),
			TokenFile: tokenFile,
			Timeout:   cfg.Duration("K_SINK_TIMEOUT", 300*time.Millisecond, time.Millisecond, 4*time.Second),
		}
		var s *Sink
		var err error
		if c.URL == "" {
			_, err = c.extensions()
		} else {
			s, err = New(c)
		}
		if err != nil {
			name, what, _ := strings.Cut(err.Error(), " ")
			cfg.Problem(name, what)
		}
		return s
	})
	if s == nil {
		return nil
	}
	return s
}

// Timeout implements event.Sink.
func (s *Sink) Timeout() time.Duration { return s.timeout }

// Send sends one event, in binary mode, and returns nil when the sink has
// acknowledged it with a 2xx.
func (s *Sink) Send(ctx context.Context, e event.Event) error {
	r, err := s.request(ctx, e)
	if err != nil {
		return fmt.Errorf("send event %s: %w", e.ID, err)
	}
	response, err := s.client().Do(r)
	if err != nil {
		return fmt.Errorf("send event %s: %w", e.ID, err)
	}
	defer response.Body.Close()
	io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	switch status := response.StatusCode; {
	case 200 <= status && status <= 299:
		return nil
	case 400 <= status && status <= 499 && !slices.Contains(passing, status):
		return fmt.Errorf("%w: event %s, %s", event.ErrRefused, e.ID, response.Status)
	}
	return fmt.Errorf("send event %s: the sink answered %s", e.ID, response.Status)
}

// passing are those answers of 4xx which another try may not get: the sink is not
// there yet, wants other credentials, or has too much to do.
var passing = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout,
	http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests}

func (s *Sink) request(ctx context.Context, e event.Event) (*http.Request, error) {
	out := ce.New()
	out.SetID(e.ID)
	out.SetSource(event.Source)
	out.SetType(e.Type)
	out.SetTime(e.Time)
	out.SetSubject(e.Data.UserID)
	out.SetExtension("partitionkey", e.Data.UserID) // CloudEvents Partitioning: all of a user in order
	if e.Trace != "" {
		out.SetExtension("traceparent", e.Trace) // CloudEvents Distributed Tracing: where it began
	}
	for name, value := range s.extensions {
		out.SetExtension(name, value)
	}
	if err := out.SetData(ce.ApplicationJSON, e.Data); err != nil {
		return nil, err
	}
	if err := out.Validate(); err != nil {
		return nil, err
	}
	r, err := cehttp.NewHTTPRequestFromEvent(ctx, s.url, out)
	if err != nil {
		return nil, err
	}
	if e.Trace != "" {
		r.Header.Set("Traceparent", e.Trace)
	}
	for name, values := range r.Header { // the SDK leaves this to us (HTTP Protocol Binding §3.1.3.2)
		if strings.HasPrefix(name, "Ce-") {
			r.Header[name] = []string{encoded(values[0])}
		}
	}
	if token, err := os.ReadFile(s.tokenFile); err == nil {
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return r, nil
}

// encoded is the value of an attribute as a header may have it: what is no printable
// ASCII, and space, quote and percent, in percent-encoding.
func encoded(value string) string {
	var out strings.Builder
	for _, b := range []byte(value) {
		if b <= ' ' || b == '"' || b == '%' || b > '~' {
			fmt.Fprintf(&out, "%%%02X", b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// longest is how long a send may take whose context has no end: none of ours.
const longest = 10 * time.Second

// newClient follows no redirect: the token is for the sink and nobody else.
func newClient(caCerts string) *http.Client {
	transport, err := tlsconfig.Transport([]byte(caCerts))
	if err != nil {
		panic(err) // New has looked
	}
	return &http.Client{
		Transport:     transport,
		Timeout:       longest,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
