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
	out "ticketing.com/auth/shared/events/event"
)

// A fakeIssuer is an issuer without a network, so that a test can use the clock of synctest.
type fakeIssuer struct {
	keys     []*ecdsa.PrivateKey
	response atomic.Pointer[func(*http.Request) (*http.Response, error)] // nil: valid documents
	requests atomic.Int64
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
	i.requests.Add(1)
	if response := i.response.Load(); response != nil {
		return (*response)(r)
	}
	return i.valid(i.keys[0])(r)
}

// respond sets the responses of the issuer.
func (i *fakeIssuer) respond(f func(*http.Request) (*http.Response, error)) { i.response.Store(&f) }

// valid returns the responses of an issuer with these keys.
func (i *fakeIssuer) valid(keys ...*ecdsa.PrivateKey) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		var document any = map[string]string{"issuer": "https://issuer.example", "jwks_uri": "https://issuer.example/keys"}
		if r.URL.Path == "/keys" {
			// a key of an unknown type
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

// silent sends no response.
func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// trickle sends one space per second.
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

// sendersFor returns senders that require a token of the issuer.
func sendersFor(t *testing.T, i *fakeIssuer) *senders {
	t.Helper()
	settings := map[string]string{"EVENT_OIDC_ISSUER": "https://issuer.example", "EVENT_OIDC_AUDIENCE": "signup"}
	cfg := config.New(func(name string) (string, bool) { s, is := settings[name]; return s, is },
		func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
	s := newSenders(cfg)
	if err := cfg.Err(); err != nil {
		t.Fatal(err)
	}
	s.client = func() (*http.Client, error) { return &http.Client{Transport: i}, nil }
	return s
}

// bearer returns an Authorization header with a token signed by a key.
func bearer(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": "https://issuer.example", "aud": "signup", "sub": "s", "exp": time.Now().Add(time.Hour).Unix()})
	signed, err := token.SignedString(key)
	if err != nil {
		t.Error(err)
	}
	return "Bearer " + signed
}

// newCheck returns a function that checks a token signed by a key.
func newCheck(t *testing.T, i *fakeIssuer) func(context.Context, *ecdsa.PrivateKey) error {
	t.Helper()
	s := sendersFor(t, i)
	return func(ctx context.Context, key *ecdsa.PrivateKey) error {
		return s.check(ctx, []string{bearer(t, key)})
	}
}

// wantKind fails the test unless err is an API error of the given kind, or nil for accepted.
func wantKind(t *testing.T, err error, kind apierror.Kind) {
	t.Helper()
	f, _ := errors.AsType[*apierror.Error](err)
	if kind == apierror.Internal && err != nil || kind != apierror.Internal && (f == nil || f.Kind() != kind) {
		t.Errorf("got %v, want kind %d", err, kind)
	}
}

const accepted = apierror.Internal // the zero Kind means no error

func TestKeys_SharesFailureDuringPause(t *testing.T) {
	for name, response := range map[string]func(*http.Request) (*http.Response, error){"an issuer without a response": silent, "an issuer with a slow response": trickle} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newFakeIssuer(t)
				i.respond(response)
				check := newCheck(t, i)
				deliver := func(n int) (took time.Duration) {
					began, results := time.Now(), make(chan error)
					for range n {
						go func() { results <- check(t.Context(), i.keys[0]) }()
					}
					for range n {
						wantKind(t, <-results, apierror.Unavailable)
					}
					return time.Since(began)
				}
				for round := range 3 {
					if took := deliver(16); took != fetchTimeout {
						t.Errorf("round %d: 16 deliveries took %s, want %s", round, took, fetchTimeout)
					}
					if took := deliver(16); took != 0 {
						t.Errorf("round %d: 16 deliveries during the pause took %s, want 0", round, took)
					}
					if n := i.requests.Load(); n != int64(round+1) {
						t.Errorf("round %d: the issuer got %d requests, want %d", round, n, round+1)
					}
					time.Sleep(fetchPause)
				}
				i.respond(i.valid(i.keys[0]))
				wantKind(t, check(t.Context(), i.keys[0]), accepted)
			})
		})
	}
}

func TestKeys_RetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		i.respond(func(r *http.Request) (*http.Response, error) { return nil, errors.New("no route") })
		check := newCheck(t, i)
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
		i.respond(silent)
		if got := apierror.From(check(cancelled, i.keys[0])).Headers(); len(got) != 1 || got[0].Value != "1" {
			t.Errorf("got %v while a fetch is in flight, want Retry-After 1", got)
		}
		time.Sleep(fetchTimeout)
	})
}

func TestKeys_FetchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		i.respond(func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(fetchTimeout - time.Second):
				return i.valid(i.keys[0])(r)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})
		began := time.Now()
		wantKind(t, newCheck(t, i)(t.Context(), i.keys[0]), apierror.Unavailable)
		if took := time.Since(began); took != fetchTimeout {
			t.Errorf("the fetch took %s, want %s", took, fetchTimeout)
		}
	})
}

func TestReceiver_TimeLimitIncludesFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		i.respond(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return i.valid(i.keys[0])(r)
		})
		cfg := config.New(func(string) (string, bool) { return "", false },
			func(o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(io.Discard, o) }, time.Now)
		slow := On(endpoint.Receiver{Types: []*out.Type{out.Untyped("hello.v1", "")}}, func(*config.Config) struct{} { return struct{}{} },
			func(_ struct{}, ctx context.Context, _ endpoint.None) (endpoint.None, error) {
				<-ctx.Done()
				return endpoint.None{}, ctx.Err()
			})
		d := &receiver{byType: map[string][]*endpoint.Bound{"hello.v1": {slow.Bind(cfg, "slow")}}, senders: sendersFor(t, i), log: cfg.Log()}
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "1", "Ce-Source": "/s", "Ce-Type": "hello.v1", "Authorization": bearer(t, i.keys[0])} {
			r.Header.Set(name, value)
		}
		w, began := httptest.NewRecorder(), time.Now()
		d.ServeHTTP(w, r)
		if took := time.Since(began); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || took != slow.Limit() {
			t.Errorf("got %d %v after %s, want 503 after %s", w.Code, w.Header(), took, slow.Limit())
		}
	})
}

func TestKeys_CanceledDeliveryDoesNotCancelFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		proceed := make(chan struct{})
		i.respond(func(r *http.Request) (*http.Response, error) {
			<-proceed
			return i.valid(i.keys[0])(r)
		})
		check := newCheck(t, i)
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- check(ctx, i.keys[0]) }()
		synctest.Wait() // the fetch is in flight
		go func() { second <- check(t.Context(), i.keys[0]) }()
		synctest.Wait()
		cancel()
		wantKind(t, <-first, apierror.Unavailable)
		close(proceed)
		wantKind(t, <-second, accepted)
		if n := i.requests.Load(); n != 2 { // the document and the keys
			t.Errorf("got %d requests, want 2", n)
		}
	})
}

func TestKeys_OutageOfIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		check := newCheck(t, i)
		old, new := i.keys[0], i.keys[1]
		wantKind(t, check(t.Context(), old), accepted)
		i.respond(silent)
		fetched := time.Now()
		time.Sleep(fetchPause)
		began := time.Now()
		wantKind(t, check(t.Context(), new), apierror.Unavailable) // the token may be valid, so the broker must retry
		if took := time.Since(began); took != fetchTimeout {
			t.Errorf("a delivery with an unknown key took %s, want %s", took, fetchTimeout)
		}
		for time.Since(fetched) < keysAge {
			began := time.Now()
			wantKind(t, check(t.Context(), old), accepted)
			if took := time.Since(began); took != 0 {
				t.Errorf("%s after the fetch, a delivery with a known key took %s, want 0", time.Since(fetched), took)
			}
			time.Sleep(30 * time.Second)
		}
		time.Sleep(time.Second)
		wantKind(t, check(t.Context(), old), apierror.Unavailable)
		i.respond(i.valid(new))
		time.Sleep(fetchPause)
		wantKind(t, check(t.Context(), new), accepted)
		wantKind(t, check(t.Context(), old), apierror.Unauthenticated)
	})
}

func TestKeys_RefreshInBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newFakeIssuer(t)
		check := newCheck(t, i)
		old, new := i.keys[0], i.keys[1]
		wantKind(t, check(t.Context(), old), accepted)
		i.respond(i.valid(new)) // the issuer has withdrawn the old key
		time.Sleep(keysRefresh + time.Second)
		wantKind(t, check(t.Context(), old), accepted)
		synctest.Wait() // for the fetch in the background
		wantKind(t, check(t.Context(), old), apierror.Unauthenticated)
		wantKind(t, check(t.Context(), new), accepted)
	})
}

func TestKeys_InvalidDocument(t *testing.T) {
	document := func(status int, body string) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		}
	}
	i := newFakeIssuer(t)
	otherIssuer := func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/keys" {
			return i.valid(i.keys[0])(r)
		}
		return document(http.StatusOK, `{"issuer":"https://evil.example","jwks_uri":"https://issuer.example/keys"}`)(r)
	}
	for name, response := range map[string]func(*http.Request) (*http.Response, error){
		"an error":           document(http.StatusInternalServerError, `{}`),
		"another issuer":     otherIssuer,
		"no JSON":            document(http.StatusOK, `<html>`),
		"half a document":    document(http.StatusOK, `{"issuer":"https://issuer.example"`),
		"a large document":   document(http.StatusOK, `{"issuer":"https://issuer.example","x":"`+strings.Repeat("x", maxDocument)+`"}`),
		"no URL of the keys": document(http.StatusOK, `{"issuer":"https://issuer.example"}`),
		"no keys":            document(http.StatusOK, `{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}`),
		"a symmetric key":    document(http.StatusOK, `{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys","keys":[{"kty":"oct","k":"AAAA"}]}`),
	} {
		i.respond(response)
		t.Run(name, func(t *testing.T) { wantKind(t, newCheck(t, i)(t.Context(), i.keys[0]), apierror.Unavailable) })
	}
}
