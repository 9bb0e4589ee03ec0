package receiver_test

import (
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

	"ticketing.com/auth/shared/config"
	"ticketing.com/auth/shared/endpoint"
	"ticketing.com/auth/shared/httpserver"
)

// An issuer is an OIDC provider of a cluster.
type issuer struct {
	url   string
	ca    string
	key   *rsa.PrivateKey
	asked atomic.Int64
	down  atomic.Bool
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
	i.asked.Add(1)
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

func TestADeliveryMustProveWhereItComesFrom(t *testing.T) {
	i := newIssuer(t)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	right := jwt.MapClaims{"iss": i.url, "aud": []string{"other", "signup"}}
	with := func(name string, value any) jwt.MapClaims {
		c := jwt.MapClaims{}
		for k, v := range right {
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
			cfg := wiring(settings)
			handler := httpserver.Handler(cfg, greeter)
			if err := cfg.Err(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				name, authorization string
				status              int
			}{
				{"a token of the issuer for this audience", "Bearer " + signed(t, rs, i.key, "k1", right), 200},
				{"the same with the scheme in other letters", "bearer " + signed(t, rs, i.key, "k1", right), 200},
				{"none", "", 401},
				{"another scheme", "Basic " + signed(t, rs, i.key, "k1", right), 401},
				{"words", "Bearer of good news", 401},
				{"another audience", "Bearer " + signed(t, rs, i.key, "k1", with("aud", "signin")), 401},
				{"another subject", "Bearer " + signed(t, rs, i.key, "k1", with("sub", "system:serviceaccount:knative-eventing-too:broker")), 401},
				{"another issuer", "Bearer " + signed(t, rs, i.key, "k1", with("iss", "https://evil.example")), 401},
				{"an expired one", "Bearer " + signed(t, rs, i.key, "k1", with("exp", time.Now().Add(-time.Minute).Unix())), 401},
				{"another key under the known id", "Bearer " + signed(t, jwt.SigningMethodES256, stranger, "k1", right), 401},
				{"an unknown key", "Bearer " + signed(t, jwt.SigningMethodES256, stranger, "k9", right), 401},
				{"the public key as a secret", "Bearer " + signed(t, jwt.SigningMethodHS256, i.key.N.Bytes(), "k1", right), 401},
				{"no signature", "Bearer " + signed(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "k1", right), 401},
			} {
				header := binary
				if c.authorization != "" {
					header += "\nAuthorization: " + c.authorization
				}
				status, h, body := deliver(t, handler, header, `{"name":"ann"}`)
				if status != c.status || (status == 401) != (h.Get("WWW-Authenticate") != "") {
					t.Errorf("%s: %d %v %s", c.name, status, h, body)
				}
			}
			before := i.asked.Load()
			for range 20 {
				deliver(t, handler, binary+"\nAuthorization: Bearer "+signed(t, jwt.SigningMethodES256, stranger, "k9", right), `{}`)
			}
			if n := i.asked.Load() - before; n > 1 {
				t.Errorf("tokens of unknown keys made %d requests to the issuer", n)
			}
		})
	}
}

func TestWhileTheIssuerIsAwayNoEventIsLetIn(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	token := signed(t, jwt.SigningMethodRS256, i.key, "k1", jwt.MapClaims{"iss": i.url, "aud": "signup"})
	for name, settings := range map[string]map[string]string{
		"its document": i.settings(),
		"its keys":     i.settings("EVENT_OIDC_JWKS_URL", i.url+"/keys"),
		"its address":  i.settings("EVENT_OIDC_JWKS_URL", "https://127.0.0.1:1/keys"),
	} {
		handler := httpserver.Handler(wiring(settings), greeter)
		for range 2 {
			status, h, body := deliver(t, handler, binary+"\nAuthorization: Bearer "+token, `{"name":"ann"}`)
			if status != http.StatusServiceUnavailable || h.Get("Retry-After") == "" {
				t.Errorf("%s: %d %s", name, status, body)
			}
		}
	}
}

func TestSenders_SilentIssuerSlowsNoPublicRoute(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				close(dialled)
				return
			}
			dialled <- c
		}
	}()
	i := newIssuer(t)
	handler := httpserver.Handler(wiring(i.settings("EVENT_OIDC_JWKS_URL", "http://"+silent.Addr().String()+"/keys")), greeter)
	header := binary + "\nAuthorization: Bearer " + signed(t, jwt.SigningMethodRS256, i.key, "k1", jwt.MapClaims{"iss": i.url, "aud": "signup"})
	answered := make(chan int)
	for range 16 {
		go func() {
			status, h, _ := deliver(t, handler, header, `{"name":"ann"}`)
			if h.Get("Retry-After") == "" {
				t.Errorf("%d %v", status, h)
			}
			answered <- status
		}()
	}
	connection := <-dialled
	r := httptest.NewRequest(http.MethodPost, "/echo", strings.NewReader(`{"name":"ann"}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	select {
	case status := <-answered:
		t.Errorf("a delivery was answered %d before the issuer", status)
	default:
	}
	if w.Code != http.StatusOK {
		t.Errorf("the public route: %d %s", w.Code, w.Body)
	}
	connection.Close()
	for range 16 {
		if status := <-answered; status != http.StatusServiceUnavailable {
			t.Errorf("a delivery: %d", status)
		}
	}
	silent.Close()
	for range dialled {
		t.Error("the issuer was dialled again")
	}
}

// A function on Knative is reached at its event path only from inside the cluster;
// several in one process, and one on Lambda, are reached there by the public.
func TestEVENTS_OnNeedsOIDCWhereThePublicReachesIt(t *testing.T) {
	other := endpoint.Define(endpoint.Spec{Name: "other", Method: http.MethodPost, Path: "/other", Success: http.StatusOK},
		func(*config.Config) endpoint.Handler[named, named] { return nil })
	const (
		events = "EVENTS must not be on without EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE"
		pair   = "EVENT_OIDC_ISSUER and EVENT_OIDC_AUDIENCE must be set together"
	)
	oidc := map[string]string{"EVENT_OIDC_ISSUER": "https://i.example", "EVENT_OIDC_AUDIENCE": "a"}
	for _, c := range []struct {
		name   string
		events string
		oidc   map[string]string
		public string // what is wrong where the public reaches the process; empty: nothing
		single string // the same of one function on Knative
		takes  bool
	}{
		{"not set", "", nil, "", "", false},
		{"off", "off", nil, "", "", false},
		{"on", "on", nil, events, "", true},
		{"on with OIDC", "on", oidc, "", "", true},
		{"on with half of it", "on", map[string]string{"EVENT_OIDC_ISSUER": "https://i.example"}, pair, pair, true},
		{"insecure", "insecure", nil, "", "", true},
		{"insecure with OIDC", "insecure", oidc, "", "", true},
		{"in capitals", "ON", nil, "EVENTS must be on, insecure or off", "EVENTS must be on, insecure or off", false},
	} {
		for where, start := range map[string]struct {
			want      string
			lambda    string
			endpoints []endpoint.Endpoint
		}{
			"one function":           {c.single, "", []endpoint.Endpoint{greeter}},
			"one function on Lambda": {c.public, "127.0.0.1:1", []endpoint.Endpoint{greeter}},
			"two functions":          {c.public, "", []endpoint.Endpoint{other, greeter}},
		} {
			settings := map[string]string{"EVENTS": c.events, "AWS_LAMBDA_RUNTIME_API": start.lambda}
			maps.Copy(settings, c.oidc)
			cfg := wiring(settings)
			handler := httpserver.Handler(cfg, start.endpoints...)
			if err := cfg.Err(); (err == nil) != (start.want == "") || err != nil && !strings.HasPrefix(err.Error(), start.want) {
				t.Errorf("%s, %s: %v", c.name, where, err)
			}
			want := http.StatusNotFound
			switch {
			case c.takes && c.oidc != nil: // insecure does not outweigh them
				want = http.StatusUnauthorized
			case c.takes:
				want = http.StatusOK
			}
			if status, _, body := deliver(t, handler, binary, `{"name":"ann"}`); start.want == "" && status != want {
				t.Errorf("%s, %s: %d %s", c.name, where, status, body)
			}
		}
	}
}

func TestWrongSettingsOfTheIssuerStopTheStart(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"EVENT_OIDC_ISSUER":   {"EVENT_OIDC_ISSUER": "no url", "EVENT_OIDC_AUDIENCE": "a"},
		"EVENT_OIDC_JWKS_URL": {"EVENT_OIDC_ISSUER": "https://i.example", "EVENT_OIDC_AUDIENCE": "a", "EVENT_OIDC_JWKS_URL": "::"},
		"EVENT_OIDC_CA_FILE":  {"EVENT_OIDC_ISSUER": "https://i.example", "EVENT_OIDC_AUDIENCE": "a", "EVENT_OIDC_CA_FILE": "/nowhere"},
	} {
		settings["EVENTS"] = "on"
		cfg := wiring(settings)
		if httpserver.Handler(cfg, greeter); cfg.Err() == nil || !strings.HasPrefix(cfg.Err().Error(), name+" ") {
			t.Errorf("%s: %v", name, cfg.Err())
		}
	}
}
