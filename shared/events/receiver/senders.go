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

// senders authenticates the senders of events. With an issuer and an audience each delivery
// must carry an OIDC token of them, as Knative's broker and sources send; without, the
// network decides. A client that may create pods anywhere in a cluster can get a token
// of its issuer for any audience: only the subject names the pod's namespace.
//
// It fails closed: while the issuer's keys are unavailable, each delivery gets 503, and
// the broker retries.
type senders struct {
	issuer, audience string
	subject          string // prefix of a token's subject
	keysURL          string // of the issuer's JWK Set; empty: discovered
	client           func() (*http.Client, error)
	keys             *keys
	verifier         *oidc.IDTokenVerifier
}

const (
	// keysAge is how long keys verify after they were fetched, whether the issuer
	// withdraws them or cannot be reached.
	keysAge = 15 * time.Minute
	// keysRefresh is the age at which keys in use are fetched again, beside the
	// deliveries that they verify.
	keysRefresh = 5 * time.Minute
	// fetchPause is the least time from one fetch to the next, so that an attacker who
	// sends tokens with unknown key ids does not put load on the issuer. Issuers
	// publish a key before they use it, so no valid one is missed.
	fetchPause = 5 * time.Second
	// fetchTimeout bounds one fetch: the issuer's document and its keys. It lies below
	// the limit of a function, so that each delivery is answered within 5 s.
	fetchTimeout = 3 * time.Second
	// maxDocument bounds a document of the issuer, in bytes.
	maxDocument = 256 << 10
)

// wireSenders reads the settings: EVENT_OIDC_ISSUER, EVENT_OIDC_AUDIENCE,
// EVENT_OIDC_SUBJECT, EVENT_OIDC_JWKS_URL, EVENT_OIDC_CA_FILE.
func wireSenders(cfg *config.Config) *senders {
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

// check returns nil for a delivery that may be taken.
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
	var missing error // the verifier's own error does not wrap it
	checked, err := s.verifier.Verify(context.WithValue(ctx, keysMissing{}, &missing), strings.TrimSpace(token))
	if missing != nil {
		return apierror.Retry(apierror.Unavailable, s.keys.pause(), "The service is unavailable. Try again shortly.", fmt.Errorf("the keys of event tokens: %w", missing))
	}
	if err != nil {
		return apierror.InvalidToken(errors.New("the event token does not verify")) // the library's words may quote claims
	}
	if !strings.HasPrefix(checked.Subject, s.subject) {
		return apierror.InvalidToken(errors.New("the event token has another subject"))
	}
	return nil
}

// fetchKeys asks the issuer for its keys.
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
			return nil, errors.New("the document is another issuer's")
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
			continue // an unknown kind of key (RFC 7517 §5)
		}
		switch key.Key.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
			public = append(public, key.Key)
		}
	}
	if len(public) == 0 { // 401 would make the broker discard events for a fault of the issuer
		return nil, errors.New("the key set has no usable key")
	}
	return &oidc.StaticKeySet{PublicKeys: public}, nil
}

// get reads a JSON document of at most maxDocument.
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
		return fmt.Errorf("%s answers %s", address, response.Status)
	}
	return json.NewDecoder(io.LimitReader(response.Body, maxDocument)).Decode(document)
}

// newClient reads the certificates anew each time, because a cluster renews them.
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

// keys are the public keys of the issuer, fetched when a token needs them. One goroutine
// at a time fetches, and all deliveries that need its result wait for it. The
// cancellation of a delivery does not cancel the fetch.
type keys struct {
	fetch func(context.Context) (*oidc.StaticKeySet, error)

	mu      sync.Mutex // not held while the issuer is asked
	known   *oidc.StaticKeySet
	fetched time.Time // when known came
	last    *attempt
}

// An attempt is one fetch. Its result counts for all deliveries until fetchPause after
// its end.
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

// usable returns the known keys and their age, or no keys where they are too old.
func (k *keys) usable() (*oidc.StaticKeySet, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := time.Since(k.fetched)
	if k.known == nil || age > keysAge {
		return &oidc.StaticKeySet{}, age
	}
	return k.known, age
}

// pause returns the time until the next fetch may begin, or 0 while one is in flight.
func (k *keys) pause() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil || k.last.ended.IsZero() {
		return 0
	}
	return fetchPause - time.Since(k.last.ended)
}

// refresh begins a fetch, unless one is in flight or ended less than fetchPause ago.
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
