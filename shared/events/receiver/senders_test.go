package receiver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

// An issuer is the OIDC provider of a cluster.
type issuer struct {
	url      string
	ca       string
	key      *rsa.PrivateKey
	requests atomic.Int64
	down     atomic.Bool
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	server := httptest.NewTLSServer(i)
	t.Cleanup(server.Close)
	i.url, i.ca = server.URL, filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(i.ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.requests.Add(1)
	switch {
	case i.down.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	case r.URL.Path == "/keys":
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	}
}

func (i *issuer) settings(more ...string) map[string]string {
	s := map[string]string{"EVENTS": "on", "EVENT_OIDC_ISSUER": i.url, "EVENT_OIDC_AUDIENCE": "signup", "EVENT_OIDC_CA_FILE": i.ca}
	for k := 0; k < len(more); k += 2 {
		s[more[k]] = more[k+1]
	}
	return s
}

func signed(t *testing.T, method jwt.SigningMethod, key any, kid string, change jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": "system:serviceaccount:knative-eventing:broker", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for name, value := range change {
		claims[name] = value
	}
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = kid
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSenders_Token(t *testing.T) {
	i := newIssuer(t)
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	valid := jwt.MapClaims{"iss": i.url, "aud": []string{"other", "signup"}}
	with := func(name string, value any) jwt.MapClaims {
		c := jwt.MapClaims{}
		for k, v := range valid {
			c[k] = v
		}
		c[name] = value
		return c
	}
	rs := jwt.SigningMethodRS256
	for name, settings := range map[string]map[string]string{
		"by discovery":     i.settings("EVENT_OIDC_SUBJECT", "system:serviceaccount:knative-eventing:"),
		"by a JWK Set URL": i.settings("EVENT_OIDC_SUBJECT", "system:serviceaccount:knative-eventing:", "EVENT_OIDC_JWKS_URL", i.url+"/keys"),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(settings)
			handler := httpserver.Handler(cfg, greeter)
			if err := cfg.Err(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				name, authorization string
				status              int
			}{
				{"a token of the issuer for this audience", "Bearer " + signed(t, rs, i.key, "k1", valid), 200},
				{"the scheme in lower case", "bearer " + signed(t, rs, i.key, "k1", valid), 200},
				{"no token", "", 401},
				{"another scheme", "Basic " + signed(t, rs, i.key, "k1", valid), 401},
				{"text that is not a token", "Bearer of good news", 401},
				{"another audience", "Bearer " + signed(t, rs, i.key, "k1", with("aud", "signin")), 401},
				{"another subject", "Bearer " + signed(t, rs, i.key, "k1", with("sub", "system:serviceaccount:knative-eventing-too:broker")), 401},
				{"another issuer", "Bearer " + signed(t, rs, i.key, "k1", with("iss", "https://evil.example")), 401},
				{"an expired token", "Bearer " + signed(t, rs, i.key, "k1", with("exp", time.Now().Add(-time.Minute).Unix())), 401},
				{"another key with the known ID", "Bearer " + signed(t, jwt.SigningMethodES256, attacker, "k1", valid), 401},
				{"an unknown key", "Bearer " + signed(t, jwt.SigningMethodES256, attacker, "k9", valid), 401},
				{"the public key as a secret", "Bearer " + signed(t, jwt.SigningMethodHS256, i.key.N.Bytes(), "k1", valid), 401},
				{"no signature", "Bearer " + signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "k1", valid), 401},
			} {
				header := binary
				if c.authorization != "" {
					header += "\nAuthorization: " + c.authorization
				}
				status, h, body := deliver(t, handler, header, `{"name":"ann"}`)
				if status != c.status || (status == 401) != (h.Get("WWW-Authenticate") != "") {
					t.Errorf("%s: got %d %v %s, want %d", c.name, status, h, body, c.status)
				}
			}
			before := i.requests.Load()
			for range 20 {
				deliver(t, handler, binary+"\nAuthorization: Bearer "+signed(t, jwt.SigningMethodES256, attacker, "k9", valid), `{}`)
			}
			if n := i.requests.Load() - before; n > 1 {
				t.Errorf("20 tokens with unknown keys: got %d requests to the issuer, want at most 1", n)
			}
		})
	}
}

func TestSenders_IssuerUnreachable(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the issuer")
	}
	i := newIssuer(t)
	i.down.Store(true)
	token := signed(t, jwt.SigningMethodRS256, i.key, "k1", jwt.MapClaims{"iss": i.url, "aud": "signup"})
	for name, settings := range map[string]map[string]string{
		"the document": i.settings(),
		"the keys":     i.settings("EVENT_OIDC_JWKS_URL", i.url+"/keys"),
		"the address":  i.settings("EVENT_OIDC_JWKS_URL", "https://127.0.0.1:1/keys"),
	} {
		handler := httpserver.Handler(newConfig(settings), greeter)
		for range 2 {
			status, h, body := deliver(t, handler, binary+"\nAuthorization: Bearer "+token, `{"name":"ann"}`)
			if status != http.StatusServiceUnavailable || h.Get("Retry-After") == "" {
				t.Errorf("%s: got %d %s, want 503 and Retry-After", name, status, body)
			}
		}
	}
}

func TestSenders_SlowIssuerDoesNotDelayRoutes(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				close(connections)
				return
			}
			connections <- c
		}
	}()
	i := newIssuer(t)
	handler := httpserver.Handler(newConfig(i.settings("EVENT_OIDC_JWKS_URL", "http://"+silent.Addr().String()+"/keys")), greeter)
	header := binary + "\nAuthorization: Bearer " + signed(t, jwt.SigningMethodRS256, i.key, "k1", jwt.MapClaims{"iss": i.url, "aud": "signup"})
	statuses := make(chan int)
	for range 16 {
		go func() {
			status, h, _ := deliver(t, handler, header, `{"name":"ann"}`)
			if h.Get("Retry-After") == "" {
				t.Errorf("got %d %v, want Retry-After", status, h)
			}
			statuses <- status
		}()
	}
	connection := <-connections
	r := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(`{"name":"ann"}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	select {
	case status := <-statuses:
		t.Errorf("a delivery got %d before the response of the issuer", status)
	default:
	}
	if w.Code != http.StatusOK {
		t.Errorf("the public route: got %d %s, want 200", w.Code, w.Body)
	}
	connection.Close()
	for range 16 {
		if status := <-statuses; status != http.StatusServiceUnavailable {
			t.Errorf("a delivery: got %d, want 503", status)
		}
	}
	silent.Close()
	for range connections {
		t.Error("got a second connection to the issuer, want one")
	}
}

// The event path of one function on Knative is reachable only inside the cluster. The event
// path of several functions in one process, or of a function on Lambda, is public.
func TestEvents_PublicPathRequiresOIDC(t *testing.T) {
	other := endpoint.Function{Name: "other", Endpoints: []endpoint.Endpoint{endpoint.Define(
		endpoint.Spec{Method: http.MethodPost, Path: "/other", Access: endpoint.Public, Success: http.StatusOK}, newNothing,
		func(_ struct{}, _ context.Context, in named) (named, error) { return in, nil })}}
	const (
		events = "EVENTS must not be on without EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE"
		pair   = "EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE must be set together"
	)
	oidc := map[string]string{"EVENT_OIDC_ISSUER": "https://i.example", "EVENT_OIDC_AUDIENCE": "a"}
	for _, c := range []struct {
		name    string
		events  string
		oidc    map[string]string
		public  string // the problem if the event path is public; empty: none
		single  string // the problem of one function on Knative
		enabled bool
	}{
		{"not set", "", nil, "", "", false},
		{"off", "off", nil, "", "", false},
		{"on", "on", nil, events, "", true},
		{"on with OIDC", "on", oidc, "", "", true},
		{"on with one setting of OIDC", "on", map[string]string{"EVENT_OIDC_ISSUER": "https://i.example"}, pair, pair, true},
		{"insecure", "insecure", nil, "", "", true},
		{"insecure with OIDC", "insecure", oidc, "", "", true},
		{"in capitals", "ON", nil, "EVENTS must be on, insecure or off", "EVENTS must be on, insecure or off", false},
	} {
		for where, start := range map[string]struct {
			want      string
			lambda    string
			functions []endpoint.Function
		}{
			"one function":           {c.single, "", []endpoint.Function{greeter}},
			"one function on Lambda": {c.public, "127.0.0.1:1", []endpoint.Function{greeter}},
			"two functions":          {c.public, "", []endpoint.Function{other, greeter}},
		} {
			settings := map[string]string{"EVENTS": c.events, "AWS_LAMBDA_RUNTIME_API": start.lambda}
			maps.Copy(settings, c.oidc)
			cfg := newConfig(settings)
			handler := httpserver.Handler(cfg, start.functions...)
			if err := cfg.Err(); (err == nil) != (start.want == "") || err != nil && !strings.HasPrefix(err.Error(), start.want) {
				t.Errorf("%s, %s: got error %v, want %q", c.name, where, err, start.want)
			}
			want := http.StatusNotFound
			switch {
			case c.enabled && c.oidc != nil: // insecure does not disable OIDC
				want = http.StatusUnauthorized
			case c.enabled:
				want = http.StatusOK
			}
			if status, _, body := deliver(t, handler, binary, `{"name":"ann"}`); start.want == "" && status != want {
				t.Errorf("%s, %s: got %d %s, want %d", c.name, where, status, body, want)
			}
		}
	}
}

func TestSenders_InvalidSettings(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"EVENT_OIDC_ISSUER":   {"EVENT_OIDC_ISSUER": "no url", "EVENT_OIDC_AUDIENCE": "a"},
		"EVENT_OIDC_JWKS_URL": {"EVENT_OIDC_ISSUER": "https://i.example", "EVENT_OIDC_AUDIENCE": "a", "EVENT_OIDC_JWKS_URL": "::"},
		"EVENT_OIDC_CA_FILE":  {"EVENT_OIDC_ISSUER": "https://i.example", "EVENT_OIDC_AUDIENCE": "a", "EVENT_OIDC_CA_FILE": "/nowhere"},
	} {
		settings["EVENTS"] = "on"
		cfg := newConfig(settings)
		if httpserver.Handler(cfg, greeter); cfg.Err() == nil || !strings.HasPrefix(cfg.Err().Error(), name+" ") {
			t.Errorf("got error %v, want one about %s", cfg.Err(), name)
		}
	}
}
