package event

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/go-json-experiment/json"
)

// A Config says where events go. SinkBinding sets most of it.
type Config struct {
	URL       string        // K_SINK
	Overrides string        // K_CE_OVERRIDES: {"extensions":{…}}
	CACerts   string        // K_CA_CERTS: PEM, trusted beside the system's
	TokenFile string        // the OIDC token, if the file exists; it is read for each send, since it is renewed
	Timeout   time.Duration // the most a request waits for the sink
}

// TokenFile is where SinkBinding mounts the OIDC token for the sink's audience.
const TokenFile = "/oidc/token"

// A Sink receives events. It is safe for concurrent use.
type Sink struct {
	url        string
	extensions map[string]string
	tokenFile  string
	timeout    time.Duration
	client     func() *http.Client // made when the first event needs it
}

// NewSink checks a configuration. It opens nothing.
func NewSink(c Config) (*Sink, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("K_SINK must be an absolute http or https URL")
	}
	var overrides struct {
		Extensions map[string]string `json:"extensions"`
	}
	if c.Overrides != "" && json.Unmarshal([]byte(c.Overrides), &overrides) != nil {
		return nil, errors.New(`K_CE_OVERRIDES must be {"extensions":{"name":"value"}}`)
	}
	for name := range overrides.Extensions {
		if !event.IsExtensionNameValid(name) {
			return nil, errors.New("K_CE_OVERRIDES has a name that CloudEvents does not allow")
		}
	}
	if c.CACerts != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.CACerts)) {
		return nil, errors.New("K_CA_CERTS has no certificate in PEM form")
	}
	return &Sink{
		url:        c.URL,
		extensions: overrides.Extensions,
		tokenFile:  c.TokenFile,
		timeout:    c.Timeout,
		client:     sync.OnceValue(func() *http.Client { return newClient(c.CACerts) }),
	}, nil
}

// Timeout is the most that a person's request waits for the sink.
func (s *Sink) Timeout() time.Duration { return s.timeout }

// Send sends one event, in binary mode, and returns nil when the sink has
// acknowledged it with a 2xx.
func (s *Sink) Send(ctx context.Context, e Event) error {
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
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("send event %s: the sink answered %s", e.ID, response.Status)
	}
	return nil
}

func (s *Sink) request(ctx context.Context, e Event) (*http.Request, error) {
	ce := event.New()
	ce.SetID(e.ID)
	ce.SetSource(Source)
	ce.SetType(e.Type)
	ce.SetTime(e.Time)
	ce.SetSubject(e.Data.UserID)
	ce.SetExtension("partitionkey", e.Data.UserID) // CloudEvents Partitioning: all of a user in order
	if e.Trace != "" {
		ce.SetExtension("traceparent", e.Trace) // CloudEvents Distributed Tracing: where it began
	}
	for name, value := range s.extensions {
		ce.SetExtension(name, value)
	}
	if err := ce.SetData(event.ApplicationJSON, e.Data); err != nil {
		return nil, err
	}
	if err := ce.Validate(); err != nil {
		return nil, err
	}
	r, err := cehttp.NewHTTPRequestFromEvent(ctx, s.url, ce)
	if err != nil {
		return nil, err
	}
	if e.Trace != "" {
		r.Header.Set("Traceparent", e.Trace)
	}
	if token, err := os.ReadFile(s.tokenFile); err == nil {
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return r, nil
}

// newClient follows no redirect: the token is for the sink and nobody else.
func newClient(caCerts string) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if caCerts != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		roots.AppendCertsFromPEM([]byte(caCerts))
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
