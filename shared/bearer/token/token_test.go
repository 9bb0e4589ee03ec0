package token_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/bearer/token"
)

// The tests issue and verify tokens at noon.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var ann = token.Claims{
	Subject:       "65f1c0ffee",
	Session:       "5e5510f10",
	ID:            "t-1",
	Email:         "ann@example.com",
	IssuedAt:      noon,
	ExpiresAt:     noon.Add(ttl),
	ClientID:      "web",
	EmailVerified: true,
	AuthTime:      noon.Add(-time.Minute),
	AMR:           []string{"pwd"},
	ACR:           "aal1",
	Roles:         []string{"seller"},
}

const ttl = 15 * time.Minute

var b64 = base64.RawURLEncoding

// key returns the nth test key, the same one each time.
func key(n byte) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte{n})
	return ed25519.NewKeyFromSeed(seed[:])
}

// ecKey returns the nth test key over P-256.
func ecKey(n byte) *ecdsa.PrivateKey {
	d := sha256.Sum256([]byte{'e', n})
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
	if err != nil {
		panic(err)
	}
	return k
}

func kid(k crypto.Signer) string { return token.Thumbprint(k.Public()) }

// document returns a JWK Set of test keys.
func document(t testing.TB, private bool, keys ...crypto.Signer) []byte {
	t.Helper()
	var set token.Set
	for _, k := range keys {
		jwk := token.NewJWK(k)
		if !private {
			jwk = jwk.Public()
		}
		set.Keys = append(set.Keys, jwk)
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func issuer(t testing.TB, keys ...crypto.Signer) *token.Issuer {
	t.Helper()
	set, err := token.ParsePrivate(document(t, true, keys...))
	if err != nil {
		t.Fatal(err)
	}
	return token.NewIssuer(set, "ticketing", "shop", "web", ttl)
}

func verifier(t testing.TB, now time.Time, keys ...crypto.Signer) *token.Verifier {
	t.Helper()
	set, err := token.ParsePublic(document(t, false, keys...))
	if err != nil {
		t.Fatal(err)
	}
	return token.NewVerifier(set, "ticketing", "shop", func() time.Time { return now }, 0)
}

func issue(t testing.TB, i *token.Issuer, c token.Claims) string {
	t.Helper()
	raw, err := i.Issue(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// everyKey returns a verifier that trusts keys of both algorithms. The tokens that the tests show it
// are in testdata/tokens.json.
func everyKey(t testing.TB) *token.Verifier {
	t.Helper()
	v := verifier(t, noon, key(1), key(2), ecKey(1))
	recorded[v] = true
	return v
}

// accept returns the claims of a token. It fails the test unless the verifier accepts the token.
func accept(t *testing.T, v *token.Verifier, raw string) token.Claims {
	t.Helper()
	c, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	record(t, v, raw, true)
	return c
}

// refuse fails the test unless the verifier returns ErrInvalid, with a reason that quotes no
// part of the token.
func refuse(t *testing.T, v *token.Verifier, raw string) {
	t.Helper()
	record(t, v, raw, false)
	c, err := v.Verify(t.Context(), raw)
	if !errors.Is(err, token.ErrInvalid) {
		t.Fatalf("got %+v, %v; want ErrInvalid", c, err)
	}
	if !reflect.DeepEqual(c, token.Claims{}) {
		t.Errorf("got claims %+v with the error, want none", c)
	}
	if !strings.HasPrefix(err.Error(), "the token is not valid: ") || len(err.Error()) > 80 || strings.ContainsAny(err.Error(), "\"{\\/") {
		t.Errorf("got the error %q, want a short one that quotes no part of the token", err)
	}
}

type object map[string]any

// with returns a copy with changed members. A nil value removes the member.
func (o object) with(changes object) object {
	o = maps.Clone(o)
	for k, v := range changes {
		if o[k] = v; v == nil {
			delete(o, k)
		}
	}
	return o
}

func (o object) segment(t testing.TB) string {
	t.Helper()
	b, err := json.Marshal(o, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return b64.EncodeToString(b)
}

func validHeader() object { return object{"alg": "EdDSA", "typ": "at+jwt", "kid": kid(key(1))} }

func validClaims() object {
	return object{
		"iss": "ticketing", "aud": "shop", "sub": "65f1c0ffee", "sid": "5e5510f10", "jti": "t-1", "client_id": "web",
		"iat": noon.Unix(), "exp": noon.Add(ttl).Unix(), "email": "ann@example.com", "email_verified": true,
		"auth_time": noon.Unix() - 60, "amr": []string{"pwd"}, "acr": "aal1", "roles": []string{"seller"},
	}
}

// sign signs any two segments with Ed25519.
func sign(k ed25519.PrivateKey, head, body string) string {
	in := head + "." + body
	return in + "." + b64.EncodeToString(ed25519.Sign(k, []byte(in)))
}

func TestVerify_ReturnsIssuedClaims(t *testing.T) {
	raw := issue(t, issuer(t, key(1)), ann)
	got, err := verifier(t, noon, key(1)).Verify(t.Context(), raw)
	if err != nil || !reflect.DeepEqual(got, ann) {
		t.Errorf("got %+v, %v; want %+v", got, err, ann)
	}
}

func TestIssue_HeaderAndClaims(t *testing.T) {
	parts := strings.Split(issue(t, issuer(t, key(1)), ann), ".")
	if len(parts) != 3 {
		t.Fatalf("got %d parts, want 3", len(parts))
	}
	for i, want := range []object{validHeader(), validClaims()} {
		got, err := b64.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := json.Unmarshal(got, &o); err != nil {
			t.Fatal(err)
		}
		if o.segment(t) != want.segment(t) {
			t.Errorf("part %d: got %s, want %v", i, got, want)
		}
	}
	signature, err := b64.DecodeString(parts[2])
	if err != nil || !ed25519.Verify(key(1).Public().(ed25519.PublicKey), []byte(parts[0]+"."+parts[1]), signature) {
		t.Errorf("the signature %x (error %v): want one with Ed25519 over the first two parts", signature, err)
	}
}

func TestIssue_Deterministic(t *testing.T) {
	i := issuer(t, key(1))
	claims := ann
	claims.Email = "ann&<lee>@example.com"
	claims.IssuedAt = noon.Add(999 * time.Millisecond)
	first := issue(t, i, claims)
	if second := issue(t, issuer(t, key(1)), claims); first != second {
		t.Errorf("got %s, want the same token again, %s", second, first)
	}
	got, err := verifier(t, noon, key(1)).Verify(t.Context(), first)
	if err != nil || got.Email != claims.Email || !got.IssuedAt.Equal(noon) {
		t.Errorf("got %+v, %v; want the email %q and the time %v", got, err, claims.Email, noon)
	}
}

func TestIssue_InvalidClaims(t *testing.T) {
	for name, change := range map[string]func(*token.Claims){
		"no subject":                 func(c *token.Claims) { c.Subject = "" },
		"no session":                 func(c *token.Claims) { c.Session = "" },
		"no id":                      func(c *token.Claims) { c.ID = "" },
		"no email":                   func(c *token.Claims) { c.Email = "" },
		"no time":                    func(c *token.Claims) { c.IssuedAt = time.Time{} },
		"a time after the year 9999": func(c *token.Claims) { c.IssuedAt = time.Unix(1<<40, 0) },
		"invalid UTF-8":              func(c *token.Claims) { c.Subject = "a\xff" },
		"a subject of 8 KiB":         func(c *token.Claims) { c.Subject = strings.Repeat("a", token.MaxLength) },
	} {
		t.Run(name, func(t *testing.T) {
			c := ann
			change(&c)
			if raw, err := issuer(t, key(1)).Issue(c); err == nil {
				t.Errorf("got the token %s, want an error", raw)
			}
		})
	}
}

func TestVerify_IssueTimeAndExpiry(t *testing.T) {
	raw := issue(t, issuer(t, key(1)), ann)
	for _, c := range []struct {
		name string
		now  time.Time
		ok   bool
	}{
		{"31 seconds before its issue", noon.Add(-31 * time.Second), false},
		{"30 seconds before its issue, within the leeway", noon.Add(-30 * time.Second), true},
		{"at its issue", noon, true},
		{"a millisecond before its expiry", noon.Add(ttl - time.Millisecond), true},
		{"at its expiry", noon.Add(ttl), false},
		{"a year later", noon.AddDate(1, 0, 0), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := verifier(t, c.now, key(1))
			if !c.ok {
				refuse(t, v, raw)
			} else if _, err := v.Verify(t.Context(), raw); err != nil {
				t.Errorf("got error %v, want none", err)
			}
		})
	}
}

func TestVerify_KeyRotation(t *testing.T) {
	oldToken, newToken := issue(t, issuer(t, key(1), key(2)), ann), issue(t, issuer(t, key(2)), ann)
	for _, c := range []struct {
		name               string
		set                []crypto.Signer
		oldValid, newValid bool
	}{
		{"before the new key is published", []crypto.Signer{key(1)}, true, false},
		{"while both are published", []crypto.Signer{key(1), key(2)}, true, true},
		{"in the other order", []crypto.Signer{key(2), key(1)}, true, true},
		{"after the old key is removed", []crypto.Signer{key(2)}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := verifier(t, noon, c.set...)
			if _, err := v.Verify(t.Context(), oldToken); (err == nil) != c.oldValid {
				t.Errorf("the token of the old key: got error %v, want valid %t", err, c.oldValid)
			}
			if _, err := v.Verify(t.Context(), newToken); (err == nil) != c.newValid {
				t.Errorf("the token of the new key: got error %v, want valid %t", err, c.newValid)
			}
		})
	}
}

func TestVerify_WrongIssuerOrAudience(t *testing.T) {
	raw := issue(t, issuer(t, key(1)), ann)
	keys, err := token.ParsePublic(document(t, false, key(1)))
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return noon }
	refuse(t, token.NewVerifier(keys, "other", "shop", now, 0), raw)
	refuse(t, token.NewVerifier(keys, "ticketing", "other", now, 0), raw)
	refuse(t, token.NewVerifier(keys, "", "shop", now, 0), raw)
	refuse(t, token.NewVerifier(keys, "ticketing", "", now, 0), raw)
}

// Verify accepts only tokens that were issued, byte for byte.
func FuzzVerify(f *testing.F) {
	i, v := issuer(f, key(1)), verifier(f, noon, key(1), key(2))
	raw := issue(f, i, ann)
	f.Add(raw)
	f.Add(strings.ToLower(raw))
	f.Add(raw + "=")
	f.Add(raw + "\n")
	f.Add(raw[:len(raw)-1] + "A")
	f.Add(sign(key(3), validHeader().segment(f), validClaims().segment(f)))
	f.Add(sign(key(1), validHeader().with(object{"alg": "none"}).segment(f), validClaims().segment(f)))
	f.Add(sign(key(1), validHeader().with(object{"crit": []string{"exp"}}).segment(f), validClaims().segment(f)))
	f.Add(sign(key(1), validHeader().segment(f), validClaims().with(object{"exp": "x"}).segment(f)))
	f.Add("..")
	f.Add(strings.Repeat(".", 9000))
	f.Fuzz(func(t *testing.T, s string) {
		c, err := v.Verify(t.Context(), s)
		if err != nil {
			if !errors.Is(err, token.ErrInvalid) || !reflect.DeepEqual(c, token.Claims{}) {
				t.Errorf("got %+v, %v; want no claims and ErrInvalid", c, err)
			}
			return
		}
		if s != issue(t, i, c) {
			t.Errorf("Verify accepted %q, want only issued tokens", s)
		}
	})
}

func BenchmarkIssue(b *testing.B) {
	i := issuer(b, key(1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Issue(ann); err != nil {
			b.Fatal(err)
		}
	}
}

// A consumer sees the same token for minutes.
func BenchmarkVerify_Repeated(b *testing.B) {
	for name, k := range map[string]crypto.Signer{"EdDSA": key(1), "ES256": ecKey(1)} {
		raw := issue(b, issuer(b, k), ann)
		keys, err := token.ParsePublic(document(b, false, k))
		if err != nil {
			b.Fatal(err)
		}
		for _, cached := range []int{0, 1024} {
			v := token.NewVerifier(keys, "ticketing", "shop", func() time.Time { return noon }, cached)
			b.Run(fmt.Sprintf("%s/cached=%d", name, cached), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Verify(b.Context(), raw); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	i, v := issuer(b, key(1)), verifier(b, noon, key(1), key(2))
	raw := issue(b, i, ann)
	for _, c := range []struct{ name, raw string }{
		{"authentic", raw},
		{"forged", raw[:len(raw)-4] + "AAAA"},
		{"dots", strings.Repeat(".", 100_000)},
		{"8 KiB of dots", strings.Repeat(".", token.MaxLength)},
		{"8 KiB of brackets", b64.EncodeToString(bytes.Repeat([]byte("["), 6000)) + ".e30.e30"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = v.Verify(b.Context(), c.raw)
			}
		})
	}
}
