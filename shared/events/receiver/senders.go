package receiver

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
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
	"github.com/go-jose/go-jose/v4"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/tlsconfig"
)

// senders authenticates the senders of events. With an issuer and an audience, each delivery
// must have an OIDC token of that issuer for that audience, as Knative's broker and sources
// send. Without them, only the network restricts the senders.
//
// An attacker that can create a pod in any namespace can get a token of the cluster's issuer
// for any audience. Only the subject of the token names the namespace.
//
// senders fails closed: while the issuer's keys are unavailable, each delivery gets 503, and
// the broker retries.
type senders struct {
	issuer, audience string
	subject          string // the required prefix of a token's subject
	keysURL          string // the URL of the issuer's JWK Set; empty: discovered
	client           func() (*http.Client, error)
	keys             *keys
	verifier         *oidc.IDTokenVerifier
}

const (
	// keysAge is how long fetched keys are valid, even if the issuer withdraws them or is
	// unreachable.
	keysAge = 15 * time.Minute
	// keysRefresh is the age at which a delivery triggers another fetch. The delivery does
	// not wait for it.
	keysRefresh = 5 * time.Minute
	// fetchPause is the minimum time between fetches. It limits the load that tokens with
	// unknown key IDs put on the issuer. Issuers publish a key before they use it, so a
	// pause does not reject valid tokens.
	fetchPause = 5 * time.Second
	// fetchTimeout is the time limit of one fetch: the issuer's document and its keys. It is
	// shorter than the time limit of a function, so that each delivery gets a response
	// within 5 s.
	fetchTimeout = 3 * time.Second
	// maxDocument is the maximum length of a document of the issuer, in bytes.
	maxDocument = 256 << 10
)

// newSenders reads the settings: EVENT_OIDC_ISSUER, EVENT_OIDC_AUDIENCE,
// EVENT_OIDC_SUBJECT, EVENT_OIDC_JWKS_URL, EVENT_OIDC_CA_FILE.
func newSenders(cfg *config.Config) *senders {
	s := &senders{
		issuer:   cfg.Text("EVENT_OIDC_ISSUER", ""),
		audience: cfg.Text("EVENT_OIDC_AUDIENCE", ""),
		subject:  cfg.Text("EVENT_OIDC_SUBJECT", ""),
		keysURL:  cfg.Text("EVENT_OIDC_JWKS_URL", ""),
	}
	caFile := cfg.Text("EVENT_OIDC_CA_FILE", "")
	s.client = func() (*http.Client, error) { return newClient(caFile) }
	s.keys = &keys{fetch: s.fetchKeys}
	s.verifier = oidc.NewVerifier(s.issuer, s.keys, &oidc.Config{
		ClientID:             s.audience,
		SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256, oidc.EdDSA},
		Now:                  cfg.Now(),
	})
	if (s.issuer == "") != (s.audience == "") {
		cfg.Problem("EVENT_OIDC_ISSUER", "and EVENT_OIDC_AUDIENCE must be set together")
	}
	if s.issuer == "" && s.subject+s.keysURL+caFile != "" {
		cfg.Problem("EVENT_OIDC_ISSUER", "must be set where EVENT_OIDC_SUBJECT, EVENT_OIDC_JWKS_URL or EVENT_OIDC_CA_FILE is")
	}
	for name, text := range map[string]string{"EVENT_OIDC_ISSUER": s.issuer, "EVENT_OIDC_JWKS_URL": s.keysURL} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
			cfg.Problem(name, "must be an absolute URL")
		}
	}
	if _, err := s.client(); err != nil {
		cfg.Problem("EVENT_OIDC_CA_FILE", err.Error())
	}
	return s
}

// check returns nil if the Authorization headers authenticate an accepted sender.
func (s *senders) check(ctx context.Context, headers []string) error {
	if s.issuer == "" {
		return nil
	}
	if len(headers) == 0 {
		return apierror.NoToken()
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return apierror.InvalidToken(errors.New("not one bearer token"))
	}
	var missing error // the verifier does not wrap the error of the key set
	checked, err := s.verifier.Verify(context.WithValue(ctx, keysMissing{}, &missing), strings.TrimSpace(token))
	if missing != nil {
		return apierror.Retry(apierror.Unavailable, s.keys.pause(), "The service is unavailable. Try again shortly.", fmt.Errorf("the keys of event tokens: %w", missing))
	}
	if err != nil {
		return apierror.InvalidToken(errors.New("the event token does not verify")) // the error of the library can contain claims
	}
	if !strings.HasPrefix(checked.Subject, s.subject) {
		return apierror.InvalidToken(errors.New("the event token has another subject"))
	}
	return nil
}

// fetchKeys returns the keys of the issuer.
func (s *senders) fetchKeys(ctx context.Context) (*oidc.StaticKeySet, error) {
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	address := s.keysURL
	if address == "" {
		var document struct {
			Issuer  string `json:"issuer"`
			KeysURL string `json:"jwks_uri"`
		}
		if err := get(ctx, client, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration", &document); err != nil {
			return nil, err
		}
		if document.Issuer != s.issuer {
			return nil, errors.New("the discovery document has another issuer")
		}
		address = document.KeysURL
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := get(ctx, client, address, &set); err != nil {
		return nil, err
	}
	var public []crypto.PublicKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil {
			continue // an unknown key type (RFC 7517 §5)
		}
		switch key.Key.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
			public = append(public, key.Key)
		}
	}
	if len(public) == 0 { // with 401 the broker would discard events because of the issuer's error
		return nil, errors.New("the key set has no usable key")
	}
	return &oidc.StaticKeySet{PublicKeys: public}, nil
}

// get fetches a JSON document of at most maxDocument bytes.
func get(ctx context.Context, client *http.Client, address string, document any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", address, response.Status)
	}
	return json.NewDecoder(io.LimitReader(response.Body, maxDocument)).Decode(document)
}

// newClient returns a client that trusts the certificates in caFile. It is called for each
// fetch, because a cluster renews the certificates.
func newClient(caFile string) (*http.Client, error) {
	var pem []byte
	if caFile != "" {
		var err error
		if pem, err = os.ReadFile(caFile); err != nil {
			return nil, errors.New("cannot be read")
		}
	}
	transport, err := tlsconfig.Transport(pem)
	if err != nil {
		return nil, fmt.Errorf("has %w", err)
	}
	return &http.Client{Transport: transport, Timeout: fetchTimeout}, nil
}

// keys caches the public keys of the issuer. A token with an unknown key triggers a fetch. At
// most one fetch runs at a time, and all deliveries that need its result wait for it. The
// cancellation of a delivery does not cancel the fetch.
type keys struct {
	fetch func(context.Context) (*oidc.StaticKeySet, error)

	mu      sync.Mutex // not held during a fetch
	known   *oidc.StaticKeySet
	fetched time.Time // the time of the fetch of known
	last    *attempt
}

// An attempt is one fetch. All deliveries use its result until fetchPause after its end.
type attempt struct {
	done  chan struct{} // closed at the end
	ended time.Time
	err   error
}

// keysMissing is the key of a *error in the context of VerifySignature.
type keysMissing struct{}

// VerifySignature implements oidc.KeySet.
func (k *keys) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	set, age := k.usable()
	if payload, err := set.VerifySignature(ctx, token); err == nil {
		if age > keysRefresh {
			k.refresh()
		}
		return payload, nil
	}
	a := k.refresh()
	select {
	case <-a.done:
	case <-ctx.Done():
		*ctx.Value(keysMissing{}).(*error) = ctx.Err()
		return nil, ctx.Err()
	}
	if a.err != nil {
		*ctx.Value(keysMissing{}).(*error) = a.err
		return nil, a.err
	}
	set, _ = k.usable()
	return set.VerifySignature(ctx, token)
}

// usable returns the known keys and their age. It returns no keys if they are too old.
func (k *keys) usable() (*oidc.StaticKeySet, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := time.Since(k.fetched)
	if k.known == nil || age > keysAge {
		return &oidc.StaticKeySet{}, age
	}
	return k.known, age
}

// pause returns the time until the next fetch may start, or 0 while one is in flight.
func (k *keys) pause() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil || k.last.ended.IsZero() {
		return 0
	}
	return fetchPause - time.Since(k.last.ended)
}

// refresh starts a fetch, unless one is in flight or ended less than fetchPause ago.
func (k *keys) refresh() *attempt {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.last; a != nil && (a.ended.IsZero() || time.Since(a.ended) < fetchPause) {
		return a
	}
	a := &attempt{done: make(chan struct{})}
	k.last = a
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		set, err := k.fetch(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		a.ended, a.err = time.Now(), err
		if err == nil {
			k.known, k.fetched = set, a.ended
		}
		close(a.done)
	}()
	return a
}
