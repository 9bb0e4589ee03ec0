package validate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
)

// A verify returns the user of a valid token.
type verify func(ctx context.Context, raw string) (user string, err error)

func withKeyfunc(t *testing.T, keysURL, issuer, audience string, now func() time.Time) verify {
	keys, err := keyfunc.NewDefaultCtx(t.Context(), []string{keysURL})
	if err != nil {
		t.Fatal(err)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"EdDSA", "ES256"}),
		jwt.WithIssuer(issuer), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithStrictDecoding(), jwt.WithTimeFunc(now))
	return func(_ context.Context, raw string) (string, error) {
		if !accessToken(raw) {
			return "", errors.New("not an access token")
		}
		parsed, err := parser.ParseWithClaims(raw, &jwt.RegisteredClaims{}, keys.Keyfunc)
		if err != nil {
			return "", err
		}
		return parsed.Claims.GetSubject()
	}
}

func withJWX(t *testing.T, keysURL, issuer, audience string, now func() time.Time) verify {
	keys, err := jwk.Fetch(t.Context(), keysURL) // jwk.NewCache fetches again
	if err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, raw string) (string, error) {
		if !accessToken(raw) {
			return "", errors.New("not an access token")
		}
		parsed, err := jwxjwt.Parse([]byte(raw), jwxjwt.WithKeySet(keys),
			jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience),
			jwxjwt.WithRequiredClaim("exp"), jwxjwt.WithRequiredClaim("sub"),
			jwxjwt.WithClock(jwxjwt.ClockFunc(now)))
		if err != nil {
			return "", err
		}
		user, _ := parsed.Subject()
		return user, nil
	}
}

func withOIDC(t *testing.T, keysURL, issuer, audience string, now func() time.Time) verify {
	verifier := oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(t.Context(), keysURL), &oidc.Config{
		ClientID: audience, SupportedSigningAlgs: []string{oidc.EdDSA, oidc.ES256}, Now: now,
	})
	return func(ctx context.Context, raw string) (string, error) {
		if !accessToken(raw) {
			return "", errors.New("not an access token")
		}
		parsed, err := verifier.Verify(ctx, raw)
		if err != nil {
			return "", err
		}
		return parsed.Subject, nil
	}
}

// accessToken reports whether the header of a token names the type of access tokens.
func accessToken(raw string) bool {
	var header struct {
		Type string `json:"typ"`
	}
	segment, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(segment)
	return err == nil && json.Unmarshal(text, &header) == nil && header.Type == "at+jwt"
}

// A library may accept a token that shared/bearer refuses, because the token has a wrong shape. It
// must refuse every token that our keys did not sign, that has expired, or that is for another
// audience, of another issuer or of another type.
func TestLibraries(t *testing.T) {
	document, err := os.ReadFile("../../../shared/bearer/testdata/tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Issuer, Audience string
		Now              int64
		Keys             json.RawMessage `json:"jwks"`
		Tokens           []struct {
			Name, Token string
			Accepted    bool
		}
	}
	if err := json.Unmarshal(document, &all); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(all.Keys) }))
	defer server.Close()
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(all.Keys, &keys); err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Unix(all.Now, 0) }
	// The libraries compare whole seconds, and two of them have no leeway by default.
	atLimit := []string{"ValidToken/a millisecond before its expiry", "ValidToken/an issue 30 seconds ahead"}
	for name, library := range map[string]func(t *testing.T, keysURL, issuer, audience string, now func() time.Time) verify{
		"keyfunc": withKeyfunc, "jwx": withJWX, "go-oidc": withOIDC,
	} {
		t.Run(name, func(t *testing.T) {
			v := library(t, server.URL, all.Issuer, all.Audience, now)
			accepted, refused := map[string]int{}, 0
			for _, c := range all.Tokens {
				user, err := v(t.Context(), c.Token)
				switch {
				case c.Accepted && err == nil:
					accepted[algorithm(c.Token)]++
				case c.Accepted && !slices.Contains(atLimit, c.Name):
					t.Errorf("%s: got %v, want the token accepted", c.Name, err)
				case err != nil:
					refused++
				case !c.Accepted && !trusted(keys, c.Token, all.Issuer, all.Audience, all.Now):
					t.Errorf("%s: got the user %s, want the token refused", c.Name, user)
				}
			}
			if accepted["EdDSA"] == 0 || accepted["ES256"] == 0 || refused < 200 {
				t.Errorf("accepted %v and refused %d tokens, want both algorithms and 200 at least", accepted, refused)
			}
		})
	}
}

func algorithm(raw string) string {
	header, _, _ := strings.Cut(raw, ".")
	text, _ := base64.RawURLEncoding.DecodeString(header)
	var h struct{ Alg string }
	json.Unmarshal(text, &h)
	return h.Alg
}

// trusted reports whether one of the keys signed the token, also if the token has another encoding
// or another shape than the issued ones, and whether its claims are right.
func trusted(keys jose.JSONWebKeySet, raw, issuer, audience string, now int64) bool {
	part := strings.Split(strings.Map(func(c rune) rune {
		if strings.ContainsRune("\r\n=", c) {
			return -1
		}
		return c
	}, strings.TrimSpace(raw)), ".")
	if len(part) != 3 {
		return false
	}
	var decoded [3][]byte
	for i := range part {
		var err error
		if decoded[i], err = base64.RawURLEncoding.DecodeString(part[i]); err != nil {
			return false
		}
	}
	var claims claimSet
	if json.NewDecoder(bytes.NewReader(decoded[1])).Decode(&claims) != nil {
		return strings.Count(string(decoded[1]), ".") == 2 && trusted(keys, string(decoded[1]), issuer, audience, now) // a nested token
	}
	expiry, _ := claims.Expiry.Float64()
	right := accessToken(strings.Join(part, ".")) && claims.Issuer == issuer && slices.Contains(claims.Audience, audience) && float64(now) <= expiry
	for _, in := range []string{raw[:max(strings.LastIndexByte(raw, '.'), 0)], part[0] + "." + part[1]} {
		for _, k := range keys.Keys {
			switch key := k.Key.(type) {
			case ed25519.PublicKey:
				if ed25519.Verify(key, []byte(in), decoded[2]) {
					return right
				}
			case *ecdsa.PublicKey:
				digest := sha256.Sum256([]byte(in))
				if len(decoded[2]) == 64 && ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(decoded[2][:32]), new(big.Int).SetBytes(decoded[2][32:])) {
					return right
				}
			}
		}
	}
	return false
}

type claimSet struct {
	Issuer   string           `json:"iss"`
	Audience jwt.ClaimStrings `json:"aud"`
	Expiry   json.Number      `json:"exp"`
}
