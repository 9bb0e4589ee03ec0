// Package sender sends the events of this system to K_SINK as CloudEvents 1.0, over HTTP in
// binary mode. It supports the settings of SinkBinding: overrides, certificates and an OIDC
// token.
//
// It sends one event per call and stores nothing. Package user stores the events that are
// not yet delivered.
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
	"ticketing.com/auth/shared/events/inprocess"
	"ticketing.com/auth/shared/tlsconfig"
)

// A Config configures a Sink. SinkBinding sets most of it.
type Config struct {
	URL       string        // K_SINK
	Overrides string        // K_CE_OVERRIDES: {"extensions":{…}}
	CACerts   string        // K_CA_CERTS: PEM, trusted in addition to the system's certificates
	TokenFile string        // the file of the OIDC token, if it exists; Send reads it each time, because it is renewed
	Timeout   time.Duration // how long a client's request waits for the sink
}

// tokenFile is the file in which SinkBinding mounts the OIDC token for the sink's audience.
const tokenFile = "/oidc/token"

// A Sink sends events to one URL. It is safe for concurrent use.
type Sink struct {
	url        string
	extensions map[string]string
	tokenFile  string
	timeout    time.Duration
	client     func() *http.Client // created for the first event
}

// New returns the Sink of a configuration, or an error that starts with the name of the
// invalid setting. It opens no connection.
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

// extensions returns the attributes that the overrides add to each event. It validates the
// whole configuration except the URL.
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
	sample := event.Event{ID: "sample", Type: event.SignedUp.Name, Source: event.Source, Subject: "sample", Time: time.Unix(0, 0), Data: event.UserSignedUp{}}
	if _, err := (&Sink{extensions: overrides.Extensions}).request(context.Background(), sample); err != nil {
		return nil, errors.New("K_CE_OVERRIDES does not result in a valid CloudEvent")
	}
	if c.CACerts != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.CACerts)) {
		return nil, errors.New("K_CA_CERTS has no certificate in PEM form")
	}
	return overrides.Extensions, nil
}

// FromConfig returns the sink that the settings configure. If K_SINK is not set, it returns the
// sink of package inprocess, or nil if the process does not deliver events itself. SinkBinding sets K_SINK, K_CE_OVERRIDES and K_CA_CERTS. The operator can set
// K_SINK_TIMEOUT. FromConfig validates all of them, even if K_SINK is not set.
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
			name, problem, _ := strings.Cut(err.Error(), " ")
			cfg.Problem(name, problem)
		}
		return s
	})
	if s != nil {
		return s
	}
	if local := inprocess.FromConfig(cfg); local != nil {
		return local
	}
	return nil
}

// Takes implements event.Sink. A broker takes all types.
func (s *Sink) Takes(*event.Type) bool { return true }

// Timeout implements event.Sink.
func (s *Sink) Timeout() time.Duration { return s.timeout }

// Send sends one event in binary mode. It returns nil after the sink has acknowledged the
// event with a 2xx status.
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
	io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // allows reuse of the connection
	switch status := response.StatusCode; {
	case 200 <= status && status <= 299:
		return nil
	case 400 <= status && status <= 499 && !slices.Contains(retryable, status):
		return fmt.Errorf("%w: event %s, %s", event.ErrRefused, e.ID, response.Status)
	}
	return fmt.Errorf("send event %s: the sink responded %s", e.ID, response.Status)
}

// retryable lists the 4xx statuses after which a retry can succeed: the sink does not exist
// yet, needs other credentials, or is overloaded.
var retryable = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout,
	http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests}

func (s *Sink) request(ctx context.Context, e event.Event) (*http.Request, error) {
	out := ce.New()
	out.SetID(e.ID)
	out.SetSource(e.Source)
	out.SetType(e.Type)
	out.SetDataSchema(event.Schema(e.Type))
	out.SetTime(e.Time)
	out.SetSubject(e.Subject)
	out.SetExtension("partitionkey", e.Subject) // CloudEvents Partitioning: keeps the events of a subject in order
	if e.Trace != "" {
		out.SetExtension("traceparent", e.Trace) // CloudEvents Distributed Tracing: the trace of the first request
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
	for name, values := range r.Header { // the SDK does not encode (HTTP Protocol Binding §3.1.3.2)
		if strings.HasPrefix(name, "Ce-") {
			r.Header[name] = []string{encoded(values[0])}
		}
	}
	if token, err := os.ReadFile(s.tokenFile); err == nil {
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return r, nil
}

// encoded returns an attribute value for a header. It percent-encodes all bytes outside of
// printable ASCII, and also space, quote and percent.
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

// maxTimeout limits Send for a context without a deadline. This project always sets one.
const maxTimeout = 10 * time.Second

// newClient returns a client that follows no redirect. A redirect would send the token to
// another server than the sink.
func newClient(caCerts string) *http.Client {
	transport, err := tlsconfig.Transport([]byte(caCerts))
	if err != nil {
		panic(err) // New has validated the certificates
	}
	return &http.Client{
		Transport:     transport,
		Timeout:       maxTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
