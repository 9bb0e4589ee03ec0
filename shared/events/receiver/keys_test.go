package receiver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"ticketing.com/auth/shared/apierror"
	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
)

// A fakeIssuer answers requests without a network, so that a test can run on the clock
// of synctest.
type fakeIssuer struct {
	keys   []*ecdsa.PrivateKey
	answer atomic.Pointer[func(*http.Request) (*http.Response, error)] // nil: as an issuer that works
	asked  atomic.Int64
}

func newFakeIssuer(t *testing.T) *fakeIssuer {
	t.Helper()
	i := &fakeIssuer{}
	for range 2 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		i.keys = append(i.keys, key)
	}
	return i
}

// RoundTrip implements http.RoundTripper.
func (i *fakeIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.asked.Add(1)
	if answer := i.answer.Load(); answer != nil {
		return (*answer)(r)
	}
	return i.works(i.keys[0])(r)
}

func (i *fakeIssuer) answers(f func(*http.Request) (*http.Response, error)) { i.answer.Store(&f) }

// works returns an answer of an issuer with these keys.
func (i *fakeIssuer) works(keys ...*ecdsa.PrivateKey) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		var document any = map[string]string{"issuer": "https://issuer.example", "jwks_uri": "https://issuer.example/keys"}
		if r.URL.Path == "/keys" {
			// one of an unknown kind
			all := []any{map[string]string{"kty": "OKP", "crv": "X448", "kid": "x", "x": "AA"}}
			for _, key := range keys {
				all = append(all, jose.JSONWebKey{Key: key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"})
			}
			document = map[string]any{"keys": all}
		}
		body, err := json.Marshal(document)
		return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(string(body))), Request: r}, err
	}
}

// silent never answers.
func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// trickle answers a space a second.
func trickle(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: spaces{r.Context()}, Request: r}, nil
}

type spaces struct{ ctx context.Context }

func (s spaces) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		p[0] = ' '
		return 1, nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

func (spaces) Close() error { return nil }

// sendersOf returns senders that must have a token of the issuer.
func sendersOf(t *testing.T, i *fakeIssuer) *senders {
	t.Helper()
	settings := map[string]string{"EVENT_OIDC_ISSUER": "https://issuer.example", "EVENT_OIDC_AUDIENCE": "signup"}
	cfg := config.New(func(name string) (string, bool) { s, is := settings[name]; return s, is },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
	s := wireSenders(cfg)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	s.client = func() (*http.Client, error) { return &http.Client{Transport: i}, nil }
	return s
}

// bearer is an Authorization header with a token signed by a key.
func bearer(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": "https://issuer.example", "aud": "signup", "sub": "s", "exp": time.Now().Add(time.Hour).Unix()})
	signed, err := token.SignedString(key)
	if err != nil {
		t.Error(err)
	}
	return "Bearer " + signed
}

// checks returns a function that checks a token signed by a key.
func checks(t *testing.T, i *fakeIssuer) func(context.Context, *ecdsa.PrivateKey) error {
	t.Helper()
	s := sendersOf(t, i)
	return func(ctx context.Context, key *ecdsa.PrivateKey) error {
		return s.check(ctx, []string{bearer(t, key)})
	}
}

// is fails the test unless an error is a fault of this kind; Internal is none at all.
func is(t *testing.T, err error, kind apierror.Kind) {
	t.Helper()
	f, _ := errors.AsType[*apierror.Error](err)
	if kind == apierror.Internal && err != nil || kind != apierror.Internal && (f == nil || f.Kind() != kind) {
		t.Errorf("got %v, want kind %d", err, kind)
	}
}

const taken = apierror.Internal // the zero Kind stands for no fault

func TestKeys_OneFetchWhoseFailureIsSharedForAPause(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){"an issuer that is silent": silent, "an issuer that trickles": trickle} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newFakeIssuer(t)
				i.answers(answer)
				check := checks(t, i)
				deliver := func(n int) (took time.Duration) {
					began, answered := time.Now(), make(chan error)
					for range n {
						go func() { answered <- check(t.Context(), i.keys[0]) }()
					}
					for range n {
						is(t, <-answered, apierror.Unavailable)
					}
					return time.Since(began)
				}
				for round := range 3 {
					if took := deliver(16); took != fetchTimeout {
						t.Errorf("round %d: 16 deliveries took %s", round, took)
					}
					if took := deliver(16); took != 0 {
						t.Errorf("round %d: in the pause 16 deliveries took %s", round, took)
					}
					if n := i.asked.Load(); n != int64(round+1) {
						t.Errorf("round %d: the issuer got %d requests", round, n)
					}
					time.Sleep(fetchPause)
				}
				i.answers(i.works(i.keys[0]))
				is(t, check(t.Context(), i.keys[0]), taken)
			})
		})
	}
}

func TestKeys_RetryAfterIsTheRestOfThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		i.answers(func(r *http.Request) (*http.Response, error) { return nil, errors.New("no route") })
		check := checks(t, i)
		for _, want := range []string{"5", "5", "4", "4", "3", "3", "2", "2", "1", "1", "5"} {
			err := apierror.From(check(t.Context(), i.keys[0]))
			if got := err.Headers(); err.Kind() != apierror.Unavailable || len(got) != 1 || got[0] != (apierror.Header{Name: "Retry-After", Value: want}) {
				t.Errorf("got %v %v, want Retry-After %s", err, got, want)
			}
			time.Sleep(fetchPause / 10)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		time.Sleep(fetchPause)
		i.answers(silent)
		if got := apierror.From(check(cancelled, i.keys[0])).Headers(); len(got) != 1 || got[0].Value != "1" {
			t.Errorf("got %v while a fetch is in flight, want Retry-After 1", got)
		}
		time.Sleep(fetchTimeout)
	})
}

func TestKeys_SlowDiscoveryAndSlowKeysShareOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		i.answers(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(fetchTimeout - time.Second):
				return i.works(i.keys[0])(r)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		began := time.Now()
		is(t, checks(t, i)(t.Context(), i.keys[0]), apierror.Unavailable)
		if took := time.Since(began); took != fetchTimeout {
			t.Errorf("it took %s", took)
		}
	})
}

func TestReceiver_WaitForKeysCountsTowardTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		i.answers(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return i.works(i.keys[0])(r)
		})
		cfg := config.New(func(string) (string, bool) { return "", false },
			func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
		slow := On(endpoint.Endpoint{}, endpoint.Trigger{Types: []string{"hello.v1"}}, func(*config.Config) endpoint.Handler[endpoint.None, endpoint.None] {
			return func(ctx context.Context, _ endpoint.None) (endpoint.None, error) {
				<-ctx.Done()
				return endpoint.None{}, ctx.Err()
			}
		})
		d := &receiver{map[string]*endpoint.Function{"hello.v1": slow.Bind(cfg, true)}, sendersOf(t, i), cfg.Log()}
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "/s", "Ce-Type": "hello.v1", "Authorization": bearer(t, i.keys[0])} {
			r.Header.Set(name, value)
		}
		answer, began := httptest.NewRecorder(), time.Now()
		d.ServeHTTP(answer, r)
		if took := time.Since(began); answer.Code != http.StatusServiceUnavailable || answer.Header().Get("Retry-After") == "" || took != slow.Limit() {
			t.Errorf("%d %v after %s, want 503 after %s", answer.Code, answer.Header(), took, slow.Limit())
		}
	})
}

func TestKeys_CancellationOfTheFirstDeliveryFailsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		goOn := make(chan struct{})
		i.answers(func(r *http.Request) (*http.Response, error) {
			<-goOn
			return i.works(i.keys[0])(r)
		})
		check := checks(t, i)
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- check(ctx, i.keys[0]) }()
		synctest.Wait() // the fetch is in flight
		go func() { second <- check(t.Context(), i.keys[0]) }()
		synctest.Wait()
		cancel()
		is(t, <-first, apierror.Unavailable)
		close(goOn)
		is(t, <-second, taken)
		if n := i.asked.Load(); n != 2 { // the document and the keys
			t.Errorf("%d requests", n)
		}
	})
}

func TestKeys_KnownOnesVerifyForTheirAgeDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		check := checks(t, i)
		old, new := i.keys[0], i.keys[1]
		is(t, check(t.Context(), old), taken)
		i.answers(silent)
		fetched := time.Now()
		time.Sleep(fetchPause)
		began := time.Now()
		is(t, check(t.Context(), new), apierror.Unavailable) // it may be valid: the broker must try again
		if took := time.Since(began); took != fetchTimeout {
			t.Errorf("a delivery with an unknown key took %s", took)
		}
		for time.Since(fetched) < keysAge {
			began := time.Now()
			is(t, check(t.Context(), old), taken)
			if took := time.Since(began); took != 0 {
				t.Errorf("%s into the outage a delivery with a known key took %s", time.Since(fetched), took)
			}
			time.Sleep(30 * time.Second)
		}
		time.Sleep(time.Second)
		is(t, check(t.Context(), old), apierror.Unavailable)
		i.answers(i.works(new))
		time.Sleep(fetchPause)
		is(t, check(t.Context(), new), taken)
		is(t, check(t.Context(), old), apierror.Unauthenticated)
	})
}

func TestKeys_InUseAreFetchedAgainBesideTheDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		check := checks(t, i)
		old, new := i.keys[0], i.keys[1]
		is(t, check(t.Context(), old), taken)
		i.answers(i.works(new)) // the issuer has withdrawn the old one
		time.Sleep(keysRefresh + time.Second)
		is(t, check(t.Context(), old), taken)
		synctest.Wait() // for the fetch that this began
		is(t, check(t.Context(), old), apierror.Unauthenticated)
		is(t, check(t.Context(), new), taken)
	})
}

func TestKeys_AnIssuerThatGivesNoneIsAway(t *testing.T) {
	document := func(status int, body string) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		}
	}
	i := newFakeIssuer(t)
	another := func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/keys" {
			return i.works(i.keys[0])(r)
		}
		return document(http.StatusOK, `{"issuer":"https://evil.example","jwks_uri":"https://issuer.example/keys"}`)(r)
	}
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"an error":           document(http.StatusInternalServerError, `{}`),
		"another issuer":     another,
		"words":              document(http.StatusOK, `<html>`),
		"half a document":    document(http.StatusOK, `{"issuer":"https://issuer.example"`),
		"an endless one":     document(http.StatusOK, `{"issuer":"https://issuer.example","x":"`+strings.Repeat("x", maxDocument)+`"}`),
		"no address of keys": document(http.StatusOK, `{"issuer":"https://issuer.example"}`),
		"no keys":            document(http.StatusOK, `{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`),
		"a secret for a key": document(http.StatusOK, `{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys","keys":[{"kty":"oct","k":"AAAA"}]}`),
	} {
		i.answers(answer)
		t.Run(name, func(t *testing.T) { is(t, checks(t, i)(t.Context(), i.keys[0]), apierror.Unavailable) })
	}
}
