package cloudevents

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"ticketing.com/auth/shared/app"
	"ticketing.com/auth/shared/fault"
	"ticketing.com/auth/shared/trust"
)

// senders decides who may send events. With an issuer and an audience each
// delivery must carry an OIDC token of them, as Knative's broker and sources send;
// without, the network decides. Who may write a pod's manifest anywhere in a cluster can
// have a token of its issuer for any audience: it is the subject that tells whose pod.
//
// It fails closed: while the issuer's keys cannot be had, no event is let in, and
// the broker is told to try again.
type senders struct {
	issuer, audience string
	subject          string // with which a token's subject begins
	keysURL          string // of the issuer's JWK Set; empty: discovered
	caFile           string // PEM, trusted beside the system's for fetching it
	now              func() time.Time

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // made when the first event needs it
	made     time.Time
}

const (
	// keysAge is how long keys that the issuer has withdrawn may still count.
	keysAge = 15 * time.Minute
	// fetchPause is the least time between two requests to the issuer: a stranger
	// who sends tokens with unknown key ids must not make us its load. Issuers
	// publish a key before they use it, so none that counts is missed.
	fetchPause = 5 * time.Second
	// fetchTimeout bounds one request to the issuer.
	fetchTimeout = 3 * time.Second
	// maxDocument bounds what is read of an answer of the issuer, in bytes.
	maxDocument = 256 << 10
)

// wireSenders reads the settings: EVENT_OIDC_ISSUER, EVENT_OIDC_AUDIENCE,
// EVENT_OIDC_SUBJECT, EVENT_OIDC_JWKS_URL, EVENT_OIDC_CA_FILE.
func wireSenders(w *app.Wiring) *senders {
	s := &senders{
		issuer:   w.Text("EVENT_OIDC_ISSUER", ""),
		audience: w.Text("EVENT_OIDC_AUDIENCE", ""),
		subject:  w.Text("EVENT_OIDC_SUBJECT", ""),
		keysURL:  w.Text("EVENT_OIDC_JWKS_URL", ""),
		caFile:   w.Text("EVENT_OIDC_CA_FILE", ""),
		now:      w.Now(),
	}
	if (s.issuer == "") != (s.audience == "") {
		w.Fault("EVENT_OIDC_ISSUER", "and EVENT_OIDC_AUDIENCE must be set together")
	}
	if s.issuer == "" && s.subject+s.keysURL+s.caFile != "" {
		w.Fault("EVENT_OIDC_ISSUER", "must be set where EVENT_OIDC_SUBJECT, EVENT_OIDC_JWKS_URL or EVENT_OIDC_CA_FILE is")
	}
	for name, text := range map[string]string{"EVENT_OIDC_ISSUER": s.issuer, "EVENT_OIDC_JWKS_URL": s.keysURL} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
			w.Fault(name, "must be an absolute URL")
		}
	}
	if _, err := s.client(); err != nil {
		w.Fault("EVENT_OIDC_CA_FILE", err.Error())
	}
	return s
}

// check returns nil for a delivery that may be taken.
func (s *senders) check(ctx context.Context, headers []string) error {
	if s.issuer == "" {
		return nil
	}
	if len(headers) == 0 {
		return fault.NoToken()
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return fault.InvalidToken(errors.New("not one bearer token"))
	}
	verifier, err := s.ready()
	if err != nil {
		return fault.Away(fmt.Errorf("the issuer of event tokens: %w", err))
	}
	call := &keyCall{}
	checked, err := verifier.Verify(context.WithValue(ctx, keyCall{}, call), strings.TrimSpace(token))
	if err != nil {
		if call.unreachable != nil {
			return fault.Away(fmt.Errorf("the keys of event tokens: %w", call.unreachable))
		}
		return fault.InvalidToken(errors.New("the event token does not verify")) // the library's words may quote claims
	}
	if !strings.HasPrefix(checked.Subject, s.subject) {
		return fault.InvalidToken(errors.New("the event token is somebody else's"))
	}
	return nil
}

// ready returns the verifier, made once its issuer could be asked.
func (s *senders) ready() (*oidc.IDTokenVerifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verifier != nil && time.Since(s.made) < keysAge {
		return s.verifier, nil
	}
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	// the keys are fetched as long as the process lives, not only this request
	lasting := oidc.ClientContext(context.Background(), client)
	url := s.keysURL
	if url == "" {
		provider, err := oidc.NewProvider(lasting, s.issuer)
		if err != nil {
			return nil, err
		}
		var document struct {
			KeysURL string `json:"jwks_uri"`
		}
		if err := provider.Claims(&document); err != nil {
			return nil, err
		}
		url = document.KeysURL
	}
	s.verifier = oidc.NewVerifier(s.issuer, keys{oidc.NewRemoteKeySet(lasting, url)}, &oidc.Config{
		ClientID:             s.audience,
		SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256, oidc.EdDSA},
		Now:                  s.now,
	})
	s.made = time.Now()
	return s.verifier, nil
}

func (s *senders) client() (*http.Client, error) {
	var pem []byte
	if s.caFile != "" {
		var err error
		if pem, err = os.ReadFile(s.caFile); err != nil {
			return nil, errors.New("cannot be read")
		}
	}
	transport, err := trust.Transport(pem)
	if err != nil {
		return nil, fmt.Errorf("has %w", err)
	}
	return &http.Client{Transport: &frugal{transport: transport, last: map[string]attempt{}}, Timeout: fetchTimeout}, nil
}

// keys tells the caller of Verify whether it was the keys that were missing, which
// the library's error does not.
type keys struct{ set oidc.KeySet }

type keyCall struct{ unreachable error }

func (k keys) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.set.VerifySignature(ctx, jwt)
	if err != nil && strings.HasPrefix(err.Error(), "fetching keys") && !errors.Is(err, errFresh) {
		ctx.Value(keyCall{}).(*keyCall).unreachable = err
	}
	return payload, err
}

// errFresh: the keys were fetched a moment ago, and the token does not verify with
// them.
var errFresh = errors.New("fetched a moment ago")

// frugal asks each address no more often than once in fetchPause, and reads no
// more than maxDocument.
type frugal struct {
	transport http.RoundTripper

	mu   sync.Mutex
	last map[string]attempt // by URL: the issuer's document and its keys
}

type attempt struct {
	at time.Time
	ok bool // a whole JSON document came
}

// RoundTrip implements http.RoundTripper.
func (f *frugal) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	url := r.URL.String()
	if before := f.last[url]; time.Since(before.at) < fetchPause {
		if before.ok {
			return nil, errFresh
		}
		return nil, errors.New("failed a moment ago")
	}
	f.last[url] = attempt{at: time.Now()}
	response, err := f.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDocument))
	if err != nil {
		return nil, err
	}
	f.last[url] = attempt{time.Now(), response.StatusCode == http.StatusOK && json.Valid(body)}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}
